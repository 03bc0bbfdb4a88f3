"""An older store is brought to the present format whole, or not at all; a newer one is refused."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.errors import StoreCorruptError, StoreError, StoreLockedError
from phi3_industry.vector_stores import FaissSQLiteVectorStore, migrations
from phi3_industry.vector_stores.lexical import LEXICAL_VERSION
from phi3_industry.vector_stores.lock import WriterLock
from phi3_industry.vector_stores.schema import SCHEMA_VERSION

# Format 1, as phi3-industry 0.1 and 0.2 wrote it. Frozen: never changed together with the code.
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE nodes (
    row INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL UNIQUE, ref_doc_id TEXT,
    node_type TEXT NOT NULL, metadata TEXT NOT NULL, checksum INTEGER NOT NULL,
    vector_checksum INTEGER NOT NULL, content TEXT NOT NULL, vector BLOB NOT NULL
);
CREATE INDEX nodes_of_document ON nodes (ref_doc_id);
CREATE TABLE documents (
    ref_doc_id TEXT PRIMARY KEY, content_hash TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE deletions (row INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE VIRTUAL TABLE passages USING fts5 (header, body, tokenize = "ascii tokenchars '.,-/:+'");
CREATE VIRTUAL TABLE terms USING fts5vocab (passages, row);
"""
TEXTS = {"a": "the pump P-4471 leaks", "b": "the valve closes"}
TERMS = {"a": "the pump p4471 p 4471 leaks", "b": "the valve closes"}
VECTORS = {"a": [0.6, 0.8], "b": [1.0, 0.0]}


def crc(*fields: bytes | str) -> int:
    value = 0
    for field in fields:
        kind = b"s" if isinstance(field, str) else b"b"
        data = field.encode() if isinstance(field, str) else field
        value = zlib.crc32(data, zlib.crc32(b"%s%d" % (kind, len(data)), value))
    return value


def write_version_1(folder: Path, *, damaged: bool = False) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / "store.sqlite", isolation_level=None)
    connection.executescript(TABLES)
    connection.execute(f"PRAGMA application_id = {0x50686933}")
    connection.execute("PRAGMA user_version = 1")
    meta = {
        "store_id": "0" * 32,
        "lexical_version": 1,
        "generation": 1,
        "dimensions": 2,
        "identity": {"embedding_model": "m"},
        "accelerator": None,
        "deletions_since": 0,
        "lexical_seal": None,
    }
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?, ?)",
        [(name, json.dumps(v), crc(name, json.dumps(v))) for name, v in meta.items()],
    )
    for node_id, text in TEXTS.items():
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d")}
        node = TextNode(id_=node_id, text=text, metadata={"n": 1}, relationships=source)
        content = json.dumps(node.model_dump(mode="json"))
        metadata = json.dumps({"ref_doc_id": "d", "doc_id": "d", "document_id": "d", "n": 1})
        stored = (node_id, "d", "TextNode", content, metadata)
        vector = np.array(VECTORS[node_id], dtype=np.float32).tobytes()
        cursor = connection.execute(
            "INSERT INTO nodes (node_id, ref_doc_id, node_type, content, metadata, checksum, "
            "vector, vector_checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*stored, crc(*stored) ^ damaged, vector, crc(vector)),
        )
        connection.execute(
            "INSERT INTO passages (rowid, header, body) VALUES (?, 'n 1', ?)",
            (cursor.lastrowid, TERMS[node_id]),
        )
    connection.execute("INSERT INTO documents VALUES ('d', 'hash', ?)", (crc("d", "hash"),))
    connection.close()


def state(folder: Path) -> tuple[int, dict[str, str]]:
    connection = sqlite3.connect(folder / "store.sqlite")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    connection.close()
    return version, meta


@pytest.fixture
def old(folder: Path) -> Path:
    write_version_1(folder)
    return folder


def test_there_is_a_step_from_every_version():
    assert sorted(migrations._STEPS) == list(range(1, SCHEMA_VERSION))


def test_a_writer_brings_a_version_1_store_up_to_date(old):
    with FaissSQLiteVectorStore(old, identity={"embedding_model": "m"}) as store:
        by_vector = store.query(VectorStoreQuery([3.0, 4.0], similarity_top_k=1))
        assert (by_vector.ids, by_vector.similarities) == (["a"], pytest.approx([1.0]))
        assert by_vector.nodes[0].get_content() == TEXTS["a"]
        for words, found in (("p-4471", ["a"]), ("valve", ["b"])):
            query = VectorStoreQuery(query_str=words, mode="text_search")
            assert store.query(query).ids == found
        assert store.document_hashes() == {"d": "hash"}
        assert store.metric == "cosine"
        assert store.verify().count == 2
    version, meta = state(old)
    assert (version, int(meta["lexical_version"])) == (SCHEMA_VERSION, LEXICAL_VERSION)
    with FaissSQLiteVectorStore(old, read_only=True) as reader:
        assert reader.count == 2


def test_a_reader_refuses_an_older_store_and_leaves_it_alone(old):
    before = (old / "store.sqlite").read_bytes()
    with pytest.raises(StoreError, match=r"format \(1, 1\).*Open it once with read_only=False"):
        FaissSQLiteVectorStore(old, read_only=True)
    assert (old / "store.sqlite").read_bytes() == before


def test_an_older_store_that_another_process_writes_is_not_touched(old):
    lock = WriterLock(old)
    lock.acquire()
    try:
        with pytest.raises(StoreLockedError):
            FaissSQLiteVectorStore(old)
    finally:
        lock.release()
    assert state(old)[0] == 1
    with FaissSQLiteVectorStore(old) as first, FaissSQLiteVectorStore(old) as second:
        second.delete("d")  # opening alone does not keep the writer's lock
        assert first.count == 0


@pytest.mark.parametrize("newer", ["format", "lexical"])
def test_a_newer_store_is_refused(folder, node, newer):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("n", [1, 0])])
    connection = sqlite3.connect(folder / "store.sqlite")
    if newer == "format":
        connection.execute("PRAGMA user_version = 99")
    else:
        row = ("lexical_version", "99", crc("lexical_version", "99"))
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", row)
    connection.commit()
    connection.close()
    for read_only in (True, False):
        with pytest.raises(StoreError, match=r"has the format .*99.* Use the version that wrote"):
            FaissSQLiteVectorStore(folder, read_only=read_only)


def test_texts_are_cut_anew_when_the_lexical_version_changes(folder, node, monkeypatch):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("n", [1, 0], text="impeller")])
    monkeypatch.setattr(migrations, "LEXICAL_VERSION", LEXICAL_VERSION + 1)
    monkeypatch.setattr(migrations, "passage_of", lambda _: ("", "cut otherwise"))
    with pytest.raises(StoreError, match="Open it once with read_only=False"):
        FaissSQLiteVectorStore(folder, read_only=True)
    with FaissSQLiteVectorStore(folder) as store:
        for words, found in (("otherwise", ["n"]), ("impeller", [])):
            query = VectorStoreQuery(query_str=words, mode="text_search")
            assert store.query(query).ids == found
        assert store.verify().count == 1


def test_a_step_that_fails_changes_nothing(old, monkeypatch):
    def fail(_: sqlite3.Connection) -> None:
        raise RuntimeError("power cut")

    def change_and_fail(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM nodes")
        fail(connection)

    monkeypatch.setitem(migrations._STEPS, 1, change_and_fail)
    before = state(old)
    with pytest.raises(RuntimeError, match="power cut"):
        FaissSQLiteVectorStore(old)
    assert state(old) == before
    monkeypatch.undo()
    with FaissSQLiteVectorStore(old) as store:
        assert store.verify().count == 2


def test_a_damaged_older_store_is_named(folder):
    write_version_1(folder, damaged=True)
    with pytest.raises(StoreCorruptError, match="row 1 does not match its checksum"):
        FaissSQLiteVectorStore(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks")
def test_a_migration_that_is_killed_leaves_the_old_store(old, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    child = os.fork()
    if child == 0:
        # dies with everything changed and nothing committed
        migrations._STEPS[1] = lambda connection: (
            connection.execute("DELETE FROM nodes"),
            os._exit(7),
        )
        FaissSQLiteVectorStore(copy)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert state(copy)[0] == 1
    with FaissSQLiteVectorStore(copy) as store:
        assert store.verify().count == 2
