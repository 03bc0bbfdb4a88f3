"""Stores that are damaged, mixed up or made by an enemy, and what is answered from them."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores import FaissSQLiteVectorStore, accelerator, vector_index
from phi3_industry.vector_stores.schema import checksum

Outcomes = Counter[str]
DIMENSIONS = 8
PAGE_BYTES = 16384
NODES = 960


def small_is_large() -> None:
    """Let a store of some hundred nodes be searched in compressed form."""
    for module in (accelerator, vector_index):
        module.FLAT_UP_TO = 700


def version_of(number: int, *, document: str = "d", count: int = 12) -> list[TextNode]:
    """The nodes of one version of a document; no two versions have an answer in common."""
    return [
        TextNode(
            id_=f"{document}-{place}",
            text=f"version{number} part{place} of {document}",
            embedding=[math.sin(number + 1 + place * (axis + 1)) for axis in range(DIMENSIONS)],
            metadata={"version": number, "place": place},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
        )
        for place in range(count)
    ]


def answers(folder: Path) -> list[Any]:
    """Everything that a reader can learn, in all modes."""
    vector = [math.sin(axis + 1.5) for axis in range(DIMENSIONS)]
    words = {"query_str": "part3 version1", "similarity_top_k": 20}
    with FaissSQLiteVectorStore(folder, read_only=True) as store:
        results = store.query_many(
            [
                VectorStoreQuery(vector, similarity_top_k=20),
                VectorStoreQuery(vector, similarity_top_k=5, doc_ids=["d"]),
                VectorStoreQuery(mode="text_search", **words),
                VectorStoreQuery(vector, mode="hybrid", **words),
                VectorStoreQuery(vector, mode="mmr", similarity_top_k=5),
            ]
        )
        found = [(result.ids, result.similarities) for result in results]
        texts = [[node.to_json() for node in result.nodes] for result in results]
        return [*found, *texts, store.document_hashes(), store.count]


def outcome(folder: Path, expected: list[Any]) -> str:
    """Open a store and ask it: what is expected, a typed error, or something wrong."""
    try:
        found = answers(folder)
    except StoreError as error:
        return "typed error" if str(folder) in str(error) else f"WRONG: names no file: {error}"
    except Exception as error:
        return f"WRONG: {error!r}"
    return "old state" if found == expected else "WRONG: another answer"


def damaged_files(folder: Path, *, steps: int) -> Iterator[tuple[str, Outcomes]]:
    """Flip a byte at ``steps`` places of each file, and cut it off at an eighth as many lengths."""
    small_is_large()
    closed, killed = folder / "closed", folder / "killed"
    with FaissSQLiteVectorStore(closed) as store:
        store.replace_document("d", "h", version_of(1, count=NODES))
    yield from _damage_each(closed, folder / "damaged", answers(closed), steps=steps)
    _leave_a_log(killed)
    half_folded = folder / "half-folded"
    _fold_half(killed, half_folded)
    for source in (killed, half_folded):
        expected = answers(_copy(source, folder / "intact"))
        for only in ("store.sqlite-wal", "store.acknowledged"):
            damaged = _damage_each(source, folder / "damaged", expected, steps=steps, only=only)
            yield from ((f"{title}, {source.name}", counts) for title, counts in damaged)


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def _leave_a_log(folder: Path) -> None:
    """Make what a writer leaves that is killed after three changes."""
    with FaissSQLiteVectorStore(folder.with_name("open")) as store:
        for number in (1, 2, 3):
            store.replace_document("d", f"h{number}", version_of(number))
        _copy(Path(store.path), folder)


def _fold_half(source: Path, target: Path) -> None:
    """Make what is left when the log was half-way folded into the database at that moment."""
    database = _copy(source, target) / "store.sqlite"
    before = database.read_bytes()
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint")
    connection.close()
    after, half = database.read_bytes(), len(before) // 2 // PAGE_BYTES * PAGE_BYTES
    _copy(source, target)
    database.write_bytes(after[:half] + before[half:])


def _damage_each(
    source: Path, target: Path, expected: list[Any], *, steps: int, only: str = ""
) -> Iterator[tuple[str, Outcomes]]:
    for path in sorted(source.iterdir()):
        if only not in ("", path.name) or path.name.endswith("-shm"):
            continue
        intact, counts = path.read_bytes(), Counter[str]()
        if not intact:
            continue
        flips = [position * len(intact) // steps for position in range(steps)]
        cuts = [position * len(intact) // (steps // 8) for position in range(steps // 8)]
        for kind, positions in (("flip", flips), ("cut", cuts)):
            for position in dict.fromkeys(positions):
                _copy(source, target)
                data = bytearray(intact)
                if kind == "flip":
                    data[position] ^= 0x55
                else:
                    del data[position:]
                (target / path.name).write_bytes(data)
                for leftover in target.glob("*-shm"):
                    leftover.unlink()
                counts[_allow(outcome(target, expected), f"{kind} at {position}")] += 1
        yield f"damaged: {path.name}", counts


def _allow(found: str, place: str) -> str:
    return f"{found} ({place})" if found.startswith("WRONG") else found


def swapped_files(folder: Path) -> Iterator[tuple[str, Outcomes]]:
    """Put each file of one store into another: answers are those of the database that is there."""
    small_is_large()
    first, second, mixed = folder / "first", folder / "second", folder / "mixed"
    for number, path in enumerate((first, second), start=1):
        with FaissSQLiteVectorStore(path) as store:
            store.replace_document("d", f"h{number}", version_of(number, count=NODES))
    counts: Outcomes = Counter()
    expected = {path: answers(path) for path in (first, second)}
    for host, guest in ((first, second), (second, first)):
        for file in sorted(guest.iterdir()):
            shutil.rmtree(mixed, ignore_errors=True)
            shutil.copytree(host, mixed)
            shutil.copy(file, mixed / file.name)
            database = guest if file.name == "store.sqlite" else host
            counts[_allow(outcome(mixed, expected[database]), file.name)] += 1
    yield "files swapped between stores", counts


class Bomb:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def malicious_stores(folder: Path) -> Iterator[tuple[str, Outcomes]]:
    """Nothing is run, nothing outside the folder is read or written, each ends in a typed error."""
    source, target = folder / "source", folder / "target"
    mark, outside = folder / "mark", folder / "outside"
    with FaissSQLiteVectorStore(source) as store:
        store.replace_document("d", "h", version_of(1))
    expected = answers(source)
    shutil.copytree(source, outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    (index_name,) = (path.name for path in source.glob("vectors.*"))
    names = [
        "store.sqlite",
        "store.acknowledged",
        "store.sqlite-wal",
        "store.sqlite-shm",
        "writer.lock",
        index_name,
    ]
    names += [f"{index_name}.new", "store.sqlite.new", "vectors.9.faiss"]
    crafts: list[tuple[str, Callable[[], None]]] = []
    for name in names:
        data = pickle.dumps(Bomb(mark))
        crafts.append((f"pickle as {name}", lambda n=name, d=data: _replace(target / n, d)))
        crafts.append((f"link as {name}", lambda n=name: _link(target / n, outside / n)))
        crafts.append((f"hard link as {name}", lambda n=name: _hard_link(target / n, outside / n)))
        crafts.append((f"pipe as {name}", lambda n=name: _pipe(target / n)))
    for title, statement in _SQL.items():
        crafts.append((title, lambda s=statement: _execute(target / "store.sqlite", s, index_name)))
    counts: Outcomes = Counter()
    events: list[str] = []
    _watch(events)
    for title, craft in crafts:
        for writes in (False, True):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
            craft()
            events.clear()
            found = outcome(target, expected) if not writes else _write_to(target)
            after = {path.name: path.read_bytes() for path in outside.iterdir()}
            if mark.exists() or events:
                found = f"WRONG: something was run: {events}"
            elif after != before:
                changed = [n for n in {*before, *after} if before.get(n) != after.get(n)]
                found = f"WRONG: outside was changed: {changed}"
                _restore(outside, before)
            counts[_allow(found, title)] += 1
    yield "malicious files", counts


def _restore(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _write_to(folder: Path) -> str:
    try:
        with FaissSQLiteVectorStore(folder) as store:
            store.replace_document("e", "new", version_of(2, document="e"))
            store.rebuild()
            return "new state" if store.verify().count == 24 else "WRONG: another count"
    except StoreError:
        return "typed error"
    except Exception as error:
        return f"WRONG: {error!r}"


def _watch(events: list[str]) -> None:
    watched = ("pickle.find_class", "os.system", "os.exec", "os.spawn", "subprocess.Popen")

    def hook(event: str, _: tuple[Any, ...]) -> None:
        if event.startswith(watched):
            events.append(event)

    sys.addaudithook(hook)


def _replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _link(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(outside)


def _hard_link(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    if outside.exists():
        path.hardlink_to(outside)


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _meta(name: str, value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    quoted, right = text.replace("'", "''"), checksum(name, text)
    return f"UPDATE meta SET value = '{quoted}', checksum = {right} WHERE name = '{name}'"  # noqa: S608 - ours


def _record(**changes: object) -> dict[str, object]:
    record = {"kind": "flat", "generation": 1, "last_row": 12, "count": 12, "sha256": ""}
    return {**record, **changes}


_DEEP = "[" * 100_000 + "]" * 100_000
_SQL = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON nodes BEGIN DELETE FROM nodes; END",
    "a view": "CREATE VIEW v AS SELECT 1",
    "a path as generation": _meta("accelerator", _record(generation="../../outside/x")),
    "an unknown kind": _meta("accelerator", _record(kind="pickle")),
    "2^62 vectors": _meta("accelerator", _record(count=2**62)),
    "2^40 dimensions": _meta("dimensions", 2**40),
    "dimensions as text": _meta("dimensions", "eight"),
    "another metric": _meta("metric", "pickle"),
    "deep properties": _meta("identity", _DEEP),
    "deep content": f"UPDATE nodes SET content = '{_DEEP}'",  # noqa: S608 - ours
    "a class to import": "UPDATE nodes SET node_type = 'os.system'",
    "another schema version": "PRAGMA user_version = 2147483647",
    "a table that is missing": "DROP TABLE passages",
    "an index that says 2^62 vectors": "",
}


def _execute(database: Path, statement: str, index_name: str) -> None:
    connection = sqlite3.connect(database)
    if not statement:  # a header that asks for all memory, vouched for by the database
        import hashlib

        path = database.with_name(index_name)
        data = bytearray(path.read_bytes())
        data[8:16] = (2**62).to_bytes(8, "little")
        path.write_bytes(data)
        statement = _meta("accelerator", _record(sha256=hashlib.sha256(data).hexdigest()))
    connection.execute(statement)
    if "content" in statement or "node_type" in statement:  # rows that look right
        connection.create_function("checked", -1, checksum)
        connection.execute(
            "UPDATE nodes SET checksum = checked(node_id, ref_doc_id, node_type, content, metadata)"
        )
    connection.commit()
    connection.close()
