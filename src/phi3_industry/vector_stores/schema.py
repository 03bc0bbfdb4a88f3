"""What ``store.sqlite`` holds, and how a new one is born."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi3_industry.vector_stores.lexical import LEXICAL_VERSION, TOKENIZER

__all__ = [
    "APPLICATION_ID",
    "DATABASE_NAME",
    "LEXICAL_COLUMNS",
    "LEXICAL_TABLES",
    "SCHEMA_VERSION",
    "DamagedContentError",
    "checksum",
    "create_database",
    "lexical_checksum",
    "read_meta",
    "read_properties",
    "sync_folder",
    "write_meta",
]

DATABASE_NAME = "store.sqlite"
#: Written into the file's header: tells our databases from others ("Phi3").
APPLICATION_ID = 0x50686933
#: Raised with each change of the tables, together with a step in `migrations`.
SCHEMA_VERSION = 3

# A passage with its vector takes 3 to 5 kB, of which SQLite's usual page of 4 kB wastes a part.
_PAGE_BYTES = 16384
# nodes.row is the vector's id in FAISS. AUTOINCREMENT never gives a number twice, so that an
# accelerator of an older state can never show one node's vector under another node's name.
# Filters read nodes_by_metadata, which is a tenth of the table.
# deletions lists the rows that left since the accelerator was written, so that an older index
# can follow. A document's hash stands only while its nodes are those that it was recorded with.
_TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE nodes (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT NOT NULL UNIQUE,
    ref_doc_id TEXT,
    node_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    vector_checksum INTEGER NOT NULL,
    content TEXT NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX nodes_of_document ON nodes (ref_doc_id);
CREATE INDEX nodes_by_metadata ON nodes (metadata);
CREATE TABLE documents (
    ref_doc_id TEXT PRIMARY KEY,
    content_hash TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE deletions (
    row INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL
);
"""
#: The columns of lexical search, which `rows.passage_of` fills in this order, and its tables.
#: Whoever changes them raises LEXICAL_VERSION.
LEXICAL_COLUMNS = ("header", "body")
LEXICAL_TABLES = (
    f"CREATE VIRTUAL TABLE passages USING fts5 "
    f'({", ".join(LEXICAL_COLUMNS)}, tokenize = "{TOKENIZER}")',
    "CREATE VIRTUAL TABLE terms USING fts5vocab (passages, row)",
)


class DamagedContentError(Exception):
    """A row of the database does not hold what was written; becomes a StoreCorruptError."""


_KINDS = {bytes: b"b", str: b"s", int: b"i", float: b"f", type(None): b"n"}


def checksum(*fields: object) -> int:
    """Return the CRC-32 of a row's fields, by which damage to their bytes is found."""
    value = 0
    for field in fields:
        if isinstance(field, bytes):
            data = field
        else:
            data = field.encode() if isinstance(field, str) else repr(field).encode()
        value = zlib.crc32(data, zlib.crc32(b"%s%d" % (_KINDS[type(field)], len(data)), value))
    return value


def lexical_checksum(connection: sqlite3.Connection) -> int:
    """Return the checksum of all that FTS5 keeps, which has none of its own."""
    value = 0
    for table in ("data", "idx", "content", "docsize", "config"):
        # the names are ours; the order is that of each table's key
        for row in connection.execute(f"SELECT * FROM passages_{table} ORDER BY 1, 2"):  # noqa: S608
            value = checksum(value, *row)
    return value


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Read the properties of a store of the present format.

    Raises:
        DamagedContentError: A property is damaged or missing.
    """
    meta = read_properties(connection)
    if missing := _NEW_META.keys() - meta.keys():
        raise DamagedContentError(f"the properties {sorted(missing)} are missing")
    if wrong := [name for name, is_right in _RIGHT.items() if not is_right(meta[name])]:
        raise DamagedContentError(f"the properties {wrong} have impossible values")
    return meta


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_record(value: object) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(_is_count(value.get(name)) for name in ("generation", "last_row", "count"))
        and all(isinstance(value.get(name), str) for name in ("kind", "sha256"))
    )


# The values decide which files are read and how much is allocated, so a crafted store is refused.
_RIGHT: dict[str, Callable[[Any], bool]] = {
    "generation": _is_count,
    "count": _is_count,
    "deletions_since": _is_count,
    "dimensions": lambda value: value is None or (_is_count(value) and 0 < value <= 2**20),
    "metric": lambda value: value in (None, "cosine", "ip", "l2"),
    "identity": lambda value: value is None or isinstance(value, dict),
    "accelerator": _is_record,
    "lexical_seal": lambda value: value is None or isinstance(value, dict),
}


def read_properties(connection: sqlite3.Connection) -> dict[str, Any]:
    """Read what properties there are, of a store of any format.

    Raises:
        DamagedContentError: A property is damaged.
    """
    meta: dict[str, Any] = {}
    for name, value, stored in connection.execute("SELECT name, value, checksum FROM meta"):
        if checksum(name, value) != stored:
            raise DamagedContentError(f"the property '{name}' does not match its checksum")
        try:
            meta[name] = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DamagedContentError(f"the property '{name}' is no JSON: {error}") from error
    return meta


def write_meta(connection: sqlite3.Connection, **properties: object) -> None:
    """Set some of the store's properties, inside the caller's transaction."""
    rows = [(name, json.dumps(value)) for name, value in properties.items()]
    connection.executemany(
        "INSERT OR REPLACE INTO meta (name, value, checksum) VALUES (?, ?, ?)",
        [(name, value, checksum(name, value)) for name, value in rows],
    )


_NEW_META: dict[str, Any] = {
    "store_id": None,
    "lexical_version": LEXICAL_VERSION,
    "generation": 0,  # counts the transactions that changed nodes
    "count": 0,  # of the nodes
    "metric": None,  # how vectors are compared; given by the first writer
    "dimensions": None,  # of the vectors; learned from the first
    "identity": None,  # what made the vectors; given by the first writer
    "accelerator": None,  # generation, last_row, count, sha256 of the FAISS file
    "deletions_since": 0,  # the generation from which on `deletions` is complete
    "lexical_seal": None,  # generation and checksum of the FTS5 tables when last closed
}


def create_database(path: Path) -> None:
    """Make an empty store's database, complete from the moment that its name exists.

    It is built under another name and renamed, so that a database that is empty or has no tables
    is always a damaged one and never one that was just being born.

    Args:
        path: The database; its folder exists and the caller holds the writer's lock.
    """
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    connection = sqlite3.connect(unfinished, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.executescript(f"BEGIN;\n{_TABLES}\nCOMMIT;")
        connection.execute("BEGIN")
        for statement in LEXICAL_TABLES:
            connection.execute(statement)
        write_meta(connection, **{**_NEW_META, "store_id": uuid.uuid4().hex})
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    os.replace(unfinished, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
