"""What was acknowledged is on disk; every kind of damage is named; one writer at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.errors import StoreCorruptError, StoreError, StoreLockedError
from phi3_industry.vector_stores import FaissSQLiteVectorStore
from phi3_industry.vector_stores.vector_index import VectorIndex

QUERY = VectorStoreQuery(query_embedding=[1.0, 3.0], similarity_top_k=4)
WORDS = VectorStoreQuery(query_str="part5", similarity_top_k=4, mode="text_search")


def fill(folder: Path, node: Callable[..., Any], *, count: int = 12) -> None:
    with FaissSQLiteVectorStore(folder, identity={"embedding_model": "m"}) as store:
        nodes = [node(f"n{i}", [1, i], text=f"part{i} of the pump", size=i) for i in range(count)]
        store.replace_document("d", "hash", nodes)


def answers(store: FaissSQLiteVectorStore) -> list[Any]:
    results = store.query_many([QUERY, WORDS])
    return [
        *[(result.ids, result.similarities) for result in results],
        *[[node.to_json() for node in result.nodes] for result in results],
        store.document_hashes(),
        store.count,
    ]


# Crashes


def run_trials(folder: Path, trials: int, seed: int) -> dict[str, Any]:
    script = Path(__file__).with_name("crash_trials.py")
    finished = subprocess.run(
        [sys.executable, str(script), str(folder), str(trials), str(seed)],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    outcome: dict[str, Any] = json.loads(finished.stdout)
    assert len(outcome["acknowledged"]) == trials
    assert max(outcome["acknowledged"]) > 2, "no writer lived long enough for the trial to matter"
    return outcome


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the trials fork")


@needs_fork
def test_a_killed_writer_leaves_what_it_acknowledged(tmp_path):
    assert run_trials(tmp_path, 24, seed=0)["problems"] == []


@needs_fork
@pytest.mark.slow
def test_a_thousand_killed_writers_leave_what_they_acknowledged(tmp_path):
    assert run_trials(tmp_path, 1000, seed=1)["problems"] == []


class FailingConnection(sqlite3.Connection):
    """Fails the statement that brings ``budget`` to zero, as a full disk would."""

    budget = 10**9

    def _spend(self, sql: str) -> None:
        if sql.startswith(("ROLLBACK", "PRAGMA")):
            return
        FailingConnection.budget -= 1
        if FailingConnection.budget == 0:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL  # as SQLite itself sets it
            raise error

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        self._spend(sql)
        return super().execute(sql, *more)

    def executemany(self, sql: str, *more: Any) -> sqlite3.Cursor:
        self._spend(sql)
        return super().executemany(sql, *more)


@pytest.mark.parametrize("start", ["new", "filled"])
def test_every_statement_may_fail_and_leaves_the_old_state(tmp_path, node, monkeypatch, start):
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=FailingConnection)
    )
    failures = 0
    for number in range(1, 200):
        folder = tmp_path / str(number)
        if start == "filled":
            FailingConnection.budget = 10**9
            fill(folder, node)
        store = FaissSQLiteVectorStore(folder)
        before = (store.count, store.document_hashes())
        FailingConnection.budget = number
        try:
            store.replace_document("d", "new", [node("n1", [0, 1]), node("m", [1, 0])])
            store.persist()
            finished = True
        except StoreError as error:
            message, finished = str(error), False
            failures += 1
        FailingConnection.budget = 10**9
        after = (store.count, store.document_hashes())
        store.close()
        with FaissSQLiteVectorStore(folder) as reopened:
            assert (reopened.count, reopened.document_hashes()) == after
            assert after in (before, (2, {"d": "new"}))
            assert reopened.verify().count == after[0]
            if after[0]:
                assert len(reopened.query(QUERY).ids) == min(4, after[0])
        assert finished or "What was acknowledged before is intact" in message
        if finished:
            assert after == (2, {"d": "new"})
            break
    assert finished
    assert failures > 15


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("room", [0, 3_000, 10_000, 30_000, 70_000, 150_000, 300_000])
def test_a_full_disk_leaves_the_old_state(folder, node, room):
    import resource

    fill(folder, node)
    with FaissSQLiteVectorStore(folder) as store:
        before = answers(store)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        nodes = [node(f"big{i}", [1, i], text=f"big{i} " * 300, doc="e") for i in range(40)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(StoreError, match=r"before is intact|Nothing was changed"):
                store.replace_document("e", "hash", nodes)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert answers(store) == before
        store.replace_document("e", "hash", nodes)
        assert store.count == 52
    with FaissSQLiteVectorStore(folder) as store:
        assert store.verify().count == 52


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_an_index_file_that_cannot_be_written_harms_nothing(
    folder, node, monkeypatch, caplog, call
):
    fill(folder, node)
    store = FaissSQLiteVectorStore(folder)
    store.add([node("new", [1, 3])])

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match="No space left on device"):
            store.persist()
        before = answers(store)
        store.add([node(f"more{i}", [-1, i]) for i in range(20)])
        store.close()
    assert "was not written" in caplog.text
    assert not list(folder.glob("*.new"))
    with FaissSQLiteVectorStore(folder) as reopened:
        assert answers(reopened)[0] == before[0]


# Damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:50],
        lambda data: data[:4096],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"garbage" * 5000,
        lambda data: b"\0" * len(data),
    ],
)
def test_a_truncated_or_foreign_database_is_named(folder, node, damage):
    fill(folder, node)
    database = folder / "store.sqlite"
    database.write_bytes(damage(database.read_bytes()))
    with pytest.raises(StoreCorruptError, match=r"store\.sqlite' is damaged: .*Restore") as caught:
        FaissSQLiteVectorStore(folder)
    assert caught.value.path == str(database)


def test_a_database_of_something_else_is_refused(folder):
    folder.mkdir()
    connection = sqlite3.connect(folder / "store.sqlite")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(StoreCorruptError, match="it is not the database of a store"):
        FaissSQLiteVectorStore(folder)


def test_a_missing_database_is_not_taken_for_a_new_store(folder, node):
    fill(folder, node)
    (folder / "store.sqlite").unlink()
    with pytest.raises(StoreCorruptError, match="it is missing, while other files of the store"):
        FaissSQLiteVectorStore(folder)


def test_flipped_bytes_never_change_an_answer(folder, node, tmp_path):
    fill(folder, node)
    with FaissSQLiteVectorStore(folder) as store:
        expected = answers(store)
    intact = (folder / "store.sqlite").read_bytes()
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    messages: list[str] = []
    used = [position for position, byte in enumerate(intact) if byte]  # most of a page is free
    positions = used[:: len(used) // 200]
    for position in positions:
        data = bytearray(intact)
        data[position] ^= 0x41
        (damaged / "store.sqlite").write_bytes(data)
        for leftover in damaged.glob("store.sqlite-*"):
            leftover.unlink()
        try:
            with FaissSQLiteVectorStore(damaged, read_only=True) as store:
                found = answers(store)
        except StoreError as error:
            messages.append(str(error))
            continue
        assert found == expected, f"byte {position} changed the answer"
    assert len(positions) > 100
    assert len(messages) > 50
    assert all(str(damaged) in message for message in messages)


def test_a_damaged_row_is_found_by_verify_and_by_the_query_that_reads_it(folder, node, monkeypatch):
    fill(folder, node)
    connection = sqlite3.connect(folder / "store.sqlite")
    connection.execute("UPDATE nodes SET content = replace(content, 'part3', 'part8')")
    connection.commit()
    connection.close()
    with pytest.raises(StoreCorruptError, match="row 4 does not match its checksum"):
        FaissSQLiteVectorStore(folder)
    # a large store is not read through when it is opened
    monkeypatch.setattr("phi3_industry.vector_stores.database._CHECK_ON_OPEN_BYTES", 0)
    with FaissSQLiteVectorStore(folder) as store:
        with pytest.raises(StoreCorruptError, match="row 4 does not match"):
            store.query(QUERY)
        with pytest.raises(StoreCorruptError, match="row 4 does not match"):
            store.verify()


@pytest.mark.parametrize("table", ["data", "content", "docsize"])
def test_a_damaged_lexical_index_is_found(folder, node, monkeypatch, table):
    fill(folder, node)
    database = folder / "store.sqlite"
    connection = sqlite3.connect(database)
    last = f"SELECT max(id) FROM passages_{table}"
    connection.execute(f"DELETE FROM passages_{table} WHERE id = ({last})")
    connection.commit()
    connection.close()
    with pytest.raises(StoreCorruptError, match="lexical index does not match its checksum"):
        FaissSQLiteVectorStore(folder)
    monkeypatch.setattr("phi3_industry.vector_stores.database._CHECK_ON_OPEN_BYTES", 0)
    with FaissSQLiteVectorStore(folder) as store:
        with pytest.raises(StoreCorruptError, match="lexical index does not match its checksum"):
            store.verify()
        store.add([node("new", [1, 1], doc="e")])  # the checksum is of another state now
        with pytest.raises(StoreCorruptError, match=r"store\.sqlite' is damaged"):
            store.verify()


def test_many_changes_are_written_to_the_index_file_at_once(folder, node, monkeypatch):
    monkeypatch.setattr("phi3_industry.vector_stores.accelerator._MANY_CHANGES", 10)
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node(f"n{i}", [1, i]) for i in range(9)])
        assert not list(folder.glob("vectors.*"))
        store.add([node("one more", [1, 0])])
        assert [path.name for path in folder.glob("vectors.*")] == ["vectors.2.faiss"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap", "remove"])
def test_a_damaged_index_file_is_rebuilt_from_the_database(folder, node, tmp_path, caplog, damage):
    fill(folder, node)
    with FaissSQLiteVectorStore(folder) as store:
        expected = answers(store)
    (index,) = folder.glob("vectors.*.faiss")
    data = bytearray(index.read_bytes())
    if damage == "swap":
        with FaissSQLiteVectorStore(tmp_path / "other") as other:
            other.add([node(f"n{i}", [i, -1]) for i in range(12)])
        (foreign,) = (tmp_path / "other").glob("vectors.*.faiss")
        assert foreign.name == index.name
        data = bytearray(foreign.read_bytes())
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        del data[len(data) // 2 if damage == "truncate" else 0 :]
    index.unlink()
    if damage != "remove":
        index.write_bytes(data)
    with FaissSQLiteVectorStore(folder) as store:
        assert answers(store) == expected
        assert ("is damaged. It is rebuilt" in caplog.text) == (damage != "remove")
        store.rebuild()
        assert VectorIndex.read(folder, store_meta(folder)) is not None


def store_meta(folder: Path) -> dict[str, Any]:
    from phi3_industry.vector_stores.schema import read_meta

    connection = sqlite3.connect(folder / "store.sqlite")
    try:
        return read_meta(connection)
    finally:
        connection.close()


# Writers and readers


def test_a_second_writer_is_refused_and_may_follow(folder, node):
    first = FaissSQLiteVectorStore(folder)
    first.add([node("a", [1, 0])])
    with FaissSQLiteVectorStore(folder) as second:
        assert second.count == 1
        with pytest.raises(StoreLockedError, match="One writer is allowed at a time") as caught:
            second.add([node("b", [0, 1])])
        assert caught.value.process_id == os.getpid()
        assert caught.value.since.startswith("20")
        first.close()
        second.add([node("b", [0, 1])])
        assert sorted(second.query(QUERY).ids) == ["a", "b"]


@needs_fork
def test_a_dead_writers_lock_is_recovered(folder, node):
    fill(folder, node)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from phi3_industry.vector_stores.lock import WriterLock\n"
        "lock = WriterLock(Path(sys.argv[1])); lock.acquire(); print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with FaissSQLiteVectorStore(folder) as store:
            with pytest.raises(StoreLockedError, match=f"by process {holder.pid} since 20"):
                store.delete("d")
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            store.delete("d")
            assert store.count == 0
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()


def test_readers_see_one_state_while_a_writer_works(folder, node):
    def version(number: int) -> list[Any]:
        return [node(f"n{i}", [1, i], text=f"version{number}", doc="d") for i in range(5)]

    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        with FaissSQLiteVectorStore(folder, read_only=True) as reader:
            while not done.is_set():
                result = reader.query(VectorStoreQuery([1.0, 1.0], similarity_top_k=9))
                texts = {found.get_content() for found in result.nodes}
                if len(result.nodes) != 5 or len(texts) != 1:
                    problems.append(f"{result.ids} {texts}")

    with FaissSQLiteVectorStore(folder) as writer:
        writer.replace_document("d", "0", version(0))
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(1, 25):
            writer.replace_document("d", str(number), version(number))
            if number % 6 == 0:
                writer.persist()
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
