"""What was acknowledged is there or an error names the file, whatever happens to SQLite's log."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import TextNode

from phi3_industry.errors import StoreCorruptError, StoreError
from phi3_industry.vector_stores import FaissSQLiteVectorStore, log_guard
from phi3_industry.vector_stores.acknowledged import AcknowledgedFile
from phi3_industry.vector_stores.log import DamagedLogError, LogPosition, committed_part

PAGE_BYTES = 16384
FRAME_BYTES = 24 + PAGE_BYTES
Killed = Callable[..., Path]


@pytest.fixture
def killed(tmp_path: Path, node: Callable[..., TextNode]) -> Killed:
    """Make the folder that a writer leaves when it is killed after some changes."""

    def make(name: str = "killed", *, changes: int = 3) -> Path:
        target = tmp_path / name
        with FaissSQLiteVectorStore(tmp_path / f"{name}-alive") as store:
            for number in range(changes):
                store.add([node(f"n{number}", [1, number])])
            shutil.copytree(store.path, target)
        return target

    return make


def count(folder: Path, **settings: Any) -> int:
    with FaissSQLiteVectorStore(folder, **settings) as store:
        return store.count


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def fails(*_: Any) -> None:
    raise OSError(5, "Input/output error")


# Damage to the log


def test_a_killed_writers_log_is_read(killed):
    folder = killed()
    assert (folder / "store.sqlite-wal").stat().st_size > 3 * PAGE_BYTES
    assert count(folder, read_only=True) == 3
    assert count(folder) == 3


def places_in_a_log(folder: Path) -> Iterator[int]:
    size = (folder / "store.sqlite-wal").stat().st_size
    yield from (2, 13, 17, 25)  # in its head
    for start in range(32, size, FRAME_BYTES):
        yield from (start + 1, start + 6, start + 9, start + 18, start + 500)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_flipped_byte_in_the_log_is_found(killed, tmp_path, read_only):
    source, target = killed(), tmp_path / "damaged"
    places = list(places_in_a_log(source))
    assert len(places) > 30
    for place in places:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        flip(target / "store.sqlite-wal", place)
        before = {path.name: path.read_bytes() for path in target.iterdir()}
        with pytest.raises(StoreCorruptError, match=r"-wal' is damaged: .*Restore") as caught:
            count(target, read_only=read_only)
        assert caught.value.path == str(target / "store.sqlite-wal")
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before


@pytest.mark.parametrize("room", [0, 10, 32, 32 + FRAME_BYTES, -1])
def test_a_log_that_is_cut_off_is_found(killed, room):
    folder = killed()
    log = folder / "store.sqlite-wal"
    log.write_bytes(log.read_bytes()[:room])
    with pytest.raises(StoreCorruptError, match=r"-wal' is damaged: "):
        count(folder)


def test_a_log_that_was_removed_is_missed(killed):
    folder = killed()
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (folder / name).unlink()
    with pytest.raises(StoreCorruptError, match=r"-wal' is damaged: it is missing or empty"):
        count(folder)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_log_that_is_folded_while_another_opens_the_store_is_not_missed(
    tmp_path, node, monkeypatch, read_only
):
    folder = tmp_path / "store"
    writer = FaissSQLiteVectorStore(folder)
    writer.add([node("n0", [1, 0])])
    read, reads = AcknowledgedFile.read, []

    def read_and_let_the_writer_close(file: AcknowledgedFile) -> Any:
        reads.append(read(file))
        if len(reads) == 1:
            writer.close()
        return reads[-1]

    monkeypatch.setattr(AcknowledgedFile, "read", read_and_let_the_writer_close)
    assert count(folder, read_only=read_only) == 1
    assert not reads[0].folded


def test_what_came_after_the_last_acknowledgement_may_break_off(killed, tmp_path, node):
    """A write that a death has cut off is no damage."""
    folder = killed()
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("more", [3, 1])])
        later = Path(shutil.copytree(folder, tmp_path / "later"))
    log = later / "store.sqlite-wal"
    intact = log.read_bytes()
    log.write_bytes(intact + intact[32 : 32 + FRAME_BYTES // 2])
    assert count(later) == 4


def half_folded(folder: Path) -> None:
    """Leave the folder as a death half-way through folding the log would."""
    database = folder / "store.sqlite"
    copy = Path(shutil.copytree(folder, folder.with_name("folded")))
    connection = sqlite3.connect(copy / "store.sqlite")
    connection.execute("PRAGMA wal_checkpoint")
    connection.close()
    after = (copy / "store.sqlite").read_bytes()
    half = len(after) // 2 // PAGE_BYTES * PAGE_BYTES
    database.write_bytes(after[:half] + database.read_bytes()[half:])


def test_a_half_folded_log_must_be_whole(killed):
    folder = killed()
    half_folded(folder)
    assert count(Path(shutil.copytree(folder, folder.with_name("intact")))) == 3
    flip(folder / "store.sqlite-wal", 40)
    with pytest.raises(StoreCorruptError, match=r"-wal' is damaged: .* only 0 are whole"):
        count(folder)


def test_a_folded_log_may_be_gone_and_says_so_if_it_is_damaged(tmp_path, node, monkeypatch):
    copy = tmp_path / "copy"
    with FaissSQLiteVectorStore(tmp_path / "store") as store:
        store.add([node("a", [1, 0])])
        monkeypatch.setattr(log_guard, "_FOLD_FROM", 1)
        store.add([node("b", [0, 1])])
        shutil.copytree(store.path, copy)
    without = Path(shutil.copytree(copy, tmp_path / "without"))
    (without / "store.sqlite-wal").unlink()
    assert count(without) == 2
    assert count(Path(shutil.copytree(copy, tmp_path / "whole"))) == 2
    log = copy / "store.sqlite-wal"
    flip(log, log.stat().st_size - 10)
    with pytest.raises(StoreCorruptError, match="is in the database, too: delete"):
        count(copy)
    flip(log, 50)  # so that nothing in it is read
    assert count(copy) == 2
    log.unlink()
    assert count(copy) == 2


# The note of what was acknowledged


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_store_without_the_note_is_read_and_gets_one(killed, node, ending):
    """As an older version left it, or a copy that lacks the file."""
    folder = killed()
    if ending == "closed":
        assert count(folder) == 3
        with FaissSQLiteVectorStore(folder) as store:
            store.add([node("m", [0, 1])])
    expected = count(folder)
    note = folder / "store.acknowledged"
    note.unlink()
    assert count(folder) == expected
    assert not note.exists()
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("new", [0, 1])])
    assert note.stat().st_size == 1024
    assert count(folder) == expected + 1


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage" * 300, b"[" * 1024, b"00000000 {}", b"e7fe4ed4 {}", b"\0" * 1024],
    ids=["empty", "garbage", "deep", "wrong checksum", "nothing in it", "zeros"],
)
def test_a_damaged_note_leaves_the_store_readable(killed, node, caplog, content):
    folder = killed()
    (folder / "store.acknowledged").write_bytes(content)
    assert count(folder) == 3
    assert ("store.acknowledged' is damaged" in caplog.text) == bool(content)
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("new", [0, 1])])
    caplog.clear()
    assert count(folder) == 4
    assert caplog.text == ""


def test_a_note_that_is_cut_off_leaves_the_one_before(killed):
    folder = killed()
    file = AcknowledgedFile(folder)
    latest = file.read()
    assert latest is not None
    assert latest.generation == 3
    intact = file.path.read_bytes()
    places = [intact.index(b'"generation": %d' % generation) for generation in (2, 3)]
    for place, expected in zip(places, (3, 2), strict=True):
        flip(file.path, place)
        found = file.read()
        assert found is not None
        assert found.generation == expected
        assert count(folder, read_only=True) == 3
        file.path.write_bytes(intact)


@pytest.mark.parametrize("fold_from", [1, 1000])
@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_damaged_byte_in_the_note_of_a_good_store_does_no_harm(
    killed, monkeypatch, ending, fold_from
):
    monkeypatch.setattr(log_guard, "_FOLD_FROM", fold_from)
    folder = killed()
    if ending == "closed":
        folder = folder.with_name("killed-alive")
    file = folder / "store.acknowledged"
    intact = file.read_bytes()
    for place in range(5, len(intact), 97):
        flip(file, place)
        assert count(folder, read_only=True) == 3
        file.write_bytes(intact)
        file.write_bytes(intact[:place])
        assert count(folder, read_only=True) == 3
        file.write_bytes(intact)


def test_a_note_older_than_the_store_is_no_contradiction(killed, tmp_path, node, monkeypatch):
    """A death between commit and note leaves one; so does a reader that opens in between."""
    folder = killed()
    with FaissSQLiteVectorStore(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr(AcknowledgedFile, "write", lambda *_: None)
            store.add([node("new", [0, 1])])
        assert count(folder, read_only=True) == 4
        shutil.copytree(folder, tmp_path / "later")
    assert count(tmp_path / "later") == 4


def test_an_older_database_in_the_place_of_the_present_one_is_refused(tmp_path, node):
    folder = tmp_path / "store"
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("a", [1, 0])])
    shutil.copy(folder / "store.sqlite", tmp_path / "backup")
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("b", [0, 1])])
    backup = Path(shutil.copytree(folder, tmp_path / "whole"))
    shutil.copy(tmp_path / "backup", folder / "store.sqlite")
    with pytest.raises(
        StoreCorruptError,
        match=r"at change 1, and change 2 was acknowledged. .*delete '.*store\.acknowledged'",
    ):
        count(folder)
    (folder / "store.acknowledged").unlink()
    assert count(folder) == 1
    assert count(backup) == 2


def test_the_note_of_another_store_says_nothing(tmp_path, node):
    for name, changes in (("few", 1), ("many", 5)):
        with FaissSQLiteVectorStore(tmp_path / name) as store:
            for number in range(changes):
                store.add([node(f"n{number}", [1, number])])
    shutil.copy(tmp_path / "many" / "store.acknowledged", tmp_path / "few")
    assert count(tmp_path / "few") == 1


def test_a_change_whose_note_cannot_be_written_is_not_acknowledged(killed, node, monkeypatch):
    folder = killed()
    with FaissSQLiteVectorStore(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr(AcknowledgedFile, "write", fails)
            with pytest.raises(StoreError, match=r"Input/output error.*before is intact"):
                store.add([node("new", [0, 1])])
        store.add([node("new", [0, 1])])
    assert count(folder) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes are POSIX")
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_what_is_in_the_notes_place_is_neither_followed_nor_written_to(
    killed, tmp_path, node, kind
):
    folder, outside = killed(), tmp_path / "outside"
    outside.write_bytes(b"mine")
    note = folder / "store.acknowledged"
    note.unlink()
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: note.symlink_to(outside),
        "hard link": lambda: note.hardlink_to(outside),
        "pipe": lambda: os.mkfifo(note),
    }
    make[kind]()
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("new", [0, 1])])
    assert outside.read_bytes() == b"mine"
    assert count(folder) == 4
    assert note.stat().st_size == 1024


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_leaves_the_note_to_its_parent(tmp_path, node):
    with FaissSQLiteVectorStore(tmp_path / "store") as store:
        store.add([node("a", [1, 0])])
        before = (tmp_path / "store" / "store.acknowledged").read_bytes()
        child = os.fork()
        if child == 0:
            try:
                store.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / "store" / "store.acknowledged").read_bytes() == before
        store.add([node("b", [0, 1])])
    assert count(tmp_path / "store") == 2


# Folding the log


@pytest.mark.parametrize("at_close", ["works", "fails"])
def test_a_change_that_fails_leaves_the_log_of_a_killed_writer(killed, node, monkeypatch, at_close):
    folder = killed()
    store = FaissSQLiteVectorStore(folder)
    with pytest.raises(ValueError, match="is of the document 'd'"):
        store.replace_document("x", "hash", [node("a", [1, 0])])
    with pytest.raises(RuntimeError, match="gone"), store._transaction():
        raise RuntimeError("gone")
    if at_close == "fails":
        monkeypatch.setattr(AcknowledgedFile, "write", fails)
    store.close()
    monkeypatch.undo()
    assert (folder / "store.sqlite-wal").exists() == (at_close == "fails")
    assert count(folder) == 3


def test_a_log_that_is_damaged_while_a_reader_waits_is_found_when_it_writes(tmp_path, node):
    folder = tmp_path / "store"
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("a", [1, 0])])
        store.add([node("b", [1, 0])])
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with FaissSQLiteVectorStore(copy) as waiting:
        assert waiting.count == 2
        log = copy / "store.sqlite-wal"
        flip(log, log.stat().st_size - 10)
        with pytest.raises(StoreCorruptError, match="-wal' is damaged"):
            waiting.add([node("c", [1, 0])])


def test_who_has_not_written_leaves_the_log_as_it_is(killed):
    folder = killed()
    before = (folder / "store.sqlite-wal").read_bytes()
    assert count(folder) == 3
    assert (folder / "store.sqlite-wal").read_bytes() == before


def test_a_long_log_is_folded_and_shortened(tmp_path, node, monkeypatch):
    monkeypatch.setattr(log_guard, "_FOLD_FROM", 10)
    monkeypatch.setattr(log_guard, "_SHORTEN_FROM", 60)
    folder, sizes = tmp_path / "store", []
    with FaissSQLiteVectorStore(folder) as store:
        for number in range(30):
            store.add([node(f"n{number}", [1, number])])
            sizes.append((folder / "store.sqlite-wal").stat().st_size // FRAME_BYTES)
            killed = Path(shutil.copytree(folder, tmp_path / f"{number}"))
            assert count(killed) == number + 1
        assert max(sizes) < 40
        store.add([node(f"m{number}", [1, number], text="long " * 500) for number in range(300)])
        assert (folder / "store.sqlite-wal").stat().st_size == 0
        killed = Path(shutil.copytree(folder, tmp_path / "short"))
    assert count(killed) == 330


def test_readers_only_put_off_folding(tmp_path, node, monkeypatch):
    monkeypatch.setattr(log_guard, "_FOLD_FROM", 10)
    monkeypatch.setattr(log_guard, "_SHORTEN_FROM", 20)
    folder = tmp_path / "store"
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("first", [1, 0])])
        reader = FaissSQLiteVectorStore(folder, read_only=True)
        with reader._snapshot() as (_, meta):
            for number in range(20):
                store.add([node(f"n{number}", [1, number])])
            assert meta["count"] == 1
            assert reader.count == 1
            log = (folder / "store.sqlite-wal").stat().st_size
            assert log > 20 * FRAME_BYTES
        reader.close()
        store.add([node("last", [1, 0])])
        assert (folder / "store.sqlite-wal").stat().st_size == 0
    assert count(folder) == 22


# Reading a log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[sqlite3.Connection, Path]]:
    connection = sqlite3.connect(tmp_path / "any.sqlite", isolation_level=None)
    for setting in ("journal_mode = wal", "wal_autocheckpoint = 0", "cache_size = 10"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("CREATE TABLE numbers (value)")
    yield connection, tmp_path / "any.sqlite-wal"
    connection.close()


def insert(connection: sqlite3.Connection, rows: int, *, ending: str = "COMMIT") -> None:
    connection.execute("BEGIN")
    for _ in range(rows):
        connection.execute("INSERT INTO numbers VALUES (randomblob(900))")
    connection.execute(ending)


def as_sqlite_reads_it(log: Path, folder: Path) -> int:
    """How many pages SQLite finds in a copy of a log."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    database = log.with_name(log.name.removesuffix("-wal"))
    for path in (database, log):
        shutil.copy(path, folder)
    connection = sqlite3.connect(folder / database.name)
    try:
        _, pages, _ = connection.execute("PRAGMA wal_checkpoint").fetchone()
        return int(pages)
    finally:
        connection.close()


def test_the_end_of_a_log_is_where_sqlite_finds_it(log, tmp_path):
    connection, path = log
    known: LogPosition | None = None
    for rows, ending in [(1, "COMMIT"), (90, "COMMIT"), (200, "ROLLBACK"), (3, "COMMIT")]:
        insert(connection, rows, ending=ending)
        found = committed_part(path)
        assert found is not None
        assert found.frames == as_sqlite_reads_it(path, tmp_path / "copy")
        assert committed_part(path, after=known) == found
        known = found
    assert known is not None
    connection.execute("PRAGMA wal_checkpoint(RESTART)")
    insert(connection, 2)
    anew = committed_part(path, after=known)
    assert anew is not None
    assert anew.salt != known.salt
    assert anew.frames == as_sqlite_reads_it(path, tmp_path / "copy") < known.frames
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert committed_part(path, after=anew) is None
    assert committed_part(tmp_path / "none") is None


def test_damage_ends_a_log_where_it_does_for_sqlite(log, tmp_path):
    connection, path = log
    for rows in (1, 20, 3, 40):
        insert(connection, rows)
    copy = tmp_path / "damaged" / path.name
    copy.parent.mkdir()
    shutil.copy(path.with_name("any.sqlite"), copy.parent)
    intact, ends = path.read_bytes(), set()
    for place in range(40, len(intact), len(intact) // 23):
        copy.write_bytes(intact)
        flip(copy, place)
        found = committed_part(copy)
        assert found is not None
        assert found.frames == as_sqlite_reads_it(copy, tmp_path / "copy")
        ends.add(found.frames)
    assert len(ends) == 5
    for place in range(32):
        copy.write_bytes(intact)
        flip(copy, place)
        with pytest.raises(DamagedLogError):
            committed_part(copy)
        assert as_sqlite_reads_it(copy, tmp_path / "copy") == 0
