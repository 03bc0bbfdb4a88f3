"""What a folder remembers of nodes that lie in another vector store.

A LlamaIndex vector store keeps nodes and finds them. It does not tell which documents it holds,
with which content, and which embedding made its vectors. That stands here, in a small SQLite
database: a few hundred bytes for each node.

A change is announced before the store is asked for it and confirmed after, so that whatever is
interrupted can be seen, and can be done once more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import StoreCorruptError, StoreError
from phi3_industry.vector_stores.lock import WriterLock
from phi3_industry.vector_stores.schema import sync_folder

__all__ = ["REGISTER_NAME", "Register", "registered_properties"]

REGISTER_NAME = "register.sqlite"

_APPLICATION_ID = 0x50686952  # "PhiR"
_FORMAT = 1
# nodes.row keeps the order in which nodes came. A node is written once the store has confirmed it.
# A document is whole while its nodes are those that its hash was recorded with; one that is not
# was being replaced or deleted.
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
    ref_doc_id TEXT PRIMARY KEY,
    content_hash TEXT NOT NULL,
    whole INTEGER NOT NULL
);
CREATE TABLE nodes (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT NOT NULL UNIQUE,
    ref_doc_id TEXT,
    written INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX nodes_by_document ON nodes (ref_doc_id);
"""
_OF_DOCUMENT = "SELECT node_id FROM nodes WHERE ref_doc_id IS ? ORDER BY row"


class Register:
    """The documents, node ids and properties of one vector store.

    One process writes at a time; it takes the writer's lock with its first change and gives it
    back with :meth:`close`. Not safe to use from several threads at once; the store sees to that.

    Args:
        folder: Where it lies; made at the first change.
        read_only: Never write.

    Raises:
        StoreError: There is none to read.
        StoreCorruptError: It is damaged.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        self.folder = folder
        self.path = folder / REGISTER_NAME
        self.read_only = read_only
        self._lock = WriterLock(folder)
        self._connection: sqlite3.Connection | None = None
        if read_only and not self.path.exists():
            raise StoreError(
                f"There is no knowledge base in '{folder}'. Check the path, or open it with "
                "read_only=False and add documents to it."
            )
        with self._plain_errors():
            self._open()

    @property
    def properties(self) -> dict[str, Any]:
        """What was set with :meth:`set_properties`."""
        return {name: json.loads(value) for name, value in self._rows("SELECT * FROM meta")}

    @property
    def count(self) -> int:
        """The number of nodes that the store has confirmed."""
        for (count,) in self._rows("SELECT count(*) FROM nodes WHERE written"):
            return int(count)
        return 0

    @property
    def has_nodes(self) -> bool:
        """Whether the store has confirmed any node."""
        return bool(self._rows("SELECT 1 FROM nodes WHERE written LIMIT 1"))

    def hashes(self) -> dict[str, str]:
        """Return the content hash of each document, whole or not."""
        return dict(self._rows("SELECT ref_doc_id, content_hash FROM documents"))

    def unfinished(self) -> set[str]:
        """Return the documents whose replacement or deletion was interrupted."""
        return {name for (name,) in self._rows("SELECT ref_doc_id FROM documents WHERE NOT whole")}

    def documents(self) -> dict[str | None, str | None]:
        """Return each document with its content hash, ``None`` if it is not known to be whole.

        They come in the order of their first nodes; ``None`` is the document of nodes without one.
        """
        return dict(
            self._rows(
                "SELECT ref_doc_id, iif(whole, content_hash, NULL) FROM (SELECT ref_doc_id, "
                "min(row) AS first FROM nodes GROUP BY ref_doc_id) LEFT JOIN documents USING "
                "(ref_doc_id) ORDER BY first"
            )
            + self._rows(
                "SELECT ref_doc_id, iif(whole, content_hash, NULL) FROM documents WHERE "
                "ref_doc_id NOT IN (SELECT ref_doc_id FROM nodes WHERE ref_doc_id IS NOT NULL)"
            )
        )

    def node_ids(self, ref_doc_id: str | None) -> list[str]:
        """Return the ids of a document's nodes, oldest first, confirmed or not."""
        return [node_id for (node_id,) in self._rows(_OF_DOCUMENT, ref_doc_id)]

    def all_node_ids(self) -> list[str]:
        """Return every id, oldest first, confirmed or not."""
        return [node_id for (node_id,) in self._rows("SELECT node_id FROM nodes ORDER BY row")]

    def rows(self, node_ids: Iterable[str]) -> dict[str, int]:
        """Return the row numbers of those of some ids that are here, confirmed or not."""
        return dict(
            self._rows(
                "SELECT node_id, row FROM nodes WHERE node_id IN (SELECT value FROM json_each(?))",
                json.dumps(list(node_ids)),
            )
        )

    def sample(self, most: int) -> list[str]:
        """Return a few ids that the store has confirmed, the first and the last among them."""
        rows = self._rows(
            "SELECT node_id FROM (SELECT node_id, row FROM nodes WHERE written ORDER BY row LIMIT "
            "?) UNION SELECT node_id FROM (SELECT node_id, row FROM nodes WHERE written ORDER BY "
            "row DESC LIMIT ?)",
            most // 2,
            most // 2,
        )
        return [node_id for (node_id,) in rows]

    # Changes

    def set_properties(self, **properties: object) -> None:
        """Set some properties, as JSON values."""
        with self._change() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in properties.items()],
            )

    def announce(self, nodes: Iterable[tuple[str, str | None]]) -> None:
        """Say which nodes will be written, each with its document.

        The documents of these nodes, and those that they were of before, lose their hashes.
        """
        with self._change() as connection:
            _put(connection, nodes)

    def announce_document(
        self, ref_doc_id: str, content_hash: str, node_ids: Iterable[str]
    ) -> None:
        """Say that a document will be replaced, by which content and which nodes."""
        with self._change() as connection:
            _put(connection, [(node_id, ref_doc_id) for node_id in node_ids])
            connection.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, 0)", (ref_doc_id, content_hash)
            )

    def announce_removal(self, ref_doc_id: str) -> None:
        """Say that a document is about to be deleted."""
        with self._change() as connection:
            connection.execute("UPDATE documents SET whole = 0 WHERE ref_doc_id = ?", (ref_doc_id,))

    def confirm(self, node_ids: Iterable[str]) -> None:
        """Say that the store has nodes that were announced."""
        with self._change() as connection:
            connection.executemany(
                "UPDATE nodes SET written = 1 WHERE node_id = ?", [(i,) for i in node_ids]
            )

    def forget(self, node_ids: Iterable[str]) -> None:
        """Say that nodes are gone; their documents lose their hashes."""
        with self._change() as connection:
            for node_id in node_ids:
                connection.execute(
                    "DELETE FROM documents WHERE ref_doc_id = "
                    "(SELECT ref_doc_id FROM nodes WHERE node_id = ?)",
                    (node_id,),
                )
                connection.execute("DELETE FROM nodes WHERE node_id = ?", (node_id,))

    def forget_document(self, ref_doc_id: str) -> None:
        """Say that a document is gone with all its nodes."""
        with self._change() as connection:
            for table in ("documents", "nodes"):
                connection.execute(
                    f"DELETE FROM {table} WHERE ref_doc_id = ?",  # noqa: S608 - names of ours
                    (ref_doc_id,),
                )

    def finish_document(self, ref_doc_id: str, *, gone: Iterable[str]) -> None:
        """Say that a document that was announced is whole.

        Args:
            ref_doc_id: The document.
            gone: Ids that were its nodes and are no longer in the store.
        """
        with self._change() as connection:
            connection.executemany("DELETE FROM nodes WHERE node_id = ?", [(i,) for i in gone])
            connection.execute("UPDATE nodes SET written = 1 WHERE ref_doc_id = ?", (ref_doc_id,))
            connection.execute("UPDATE documents SET whole = 1 WHERE ref_doc_id = ?", (ref_doc_id,))

    def clear(self) -> None:
        """Forget everything."""
        with self._change() as connection:
            for table in ("meta", "documents", "nodes"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours

    def close(self) -> None:
        """Give up the file and the writer's lock; it is opened again if it is used."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            self._lock.release()

    # Inside

    def _rows(self, sql: str, *parameters: object) -> list[Any]:
        with self._plain_errors():
            connection = self._open()
            return [] if connection is None else connection.execute(sql, parameters).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        if self.read_only:
            raise StoreError(
                f"The knowledge base '{self.folder}' was opened read-only. Open it with "
                "read_only=False to change it."
            )
        with self._plain_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            connection = self._open() or self._create()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection | None:
        if self._connection is None and self.path.exists():
            mode = "ro" if self.read_only else "rw"
            connection = self._connect(f"{self.path.absolute().as_uri()}?mode={mode}")
            try:
                self._check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _create(self) -> sqlite3.Connection:
        """Make it under another name first: one that is there is complete."""
        unfinished = self.path.with_name(self.path.name + ".new")
        unfinished.unlink(missing_ok=True)
        connection = self._connect(unfinished.absolute().as_uri())
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.executescript(_TABLES)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        unfinished.replace(self.path)
        sync_folder(self.folder)
        opened = self._open()
        assert opened is not None  # noqa: S101 - it was made above
        return opened

    @staticmethod
    def _connect(uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=30.0, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application_id != _APPLICATION_ID:
            raise sqlite3.DatabaseError("it is no register")
        if version != _FORMAT:
            raise StoreError(
                f"The register '{self.path}' has the format {version} and this phi3-industry "
                f"works with {_FORMAT}. Use the version that wrote it."
            )

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"The register '{self.path}' cannot be read or written: {error}. What was "
                "acknowledged before is intact. Free some space or correct the permissions, and "
                "try again."
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorruptError(
                self.path,
                problem=str(error),
                advice="Restore the folder from a backup, or empty the vector store, delete the "
                "folder, and add the documents again.",
            ) from error


def _put(connection: sqlite3.Connection, nodes: Iterable[tuple[str, str | None]]) -> None:
    for node_id, ref_doc_id in nodes:
        connection.execute(
            "DELETE FROM documents WHERE ref_doc_id IN "
            "(?, (SELECT ref_doc_id FROM nodes WHERE node_id = ?))",
            (ref_doc_id, node_id),
        )
        # a node that is there moves behind the others, as it does in a store that replaces it
        connection.execute(
            "INSERT OR REPLACE INTO nodes (node_id, ref_doc_id) VALUES (?, ?)",
            (node_id, ref_doc_id),
        )


def registered_properties(folder: str | PathLike[str]) -> dict[str, Any]:
    """Return what a folder's register knows of its store; nothing if there is no register.

    Returns:
        Values by name: ``place``, what of the store the nodes lie in, and ``dimensions``, the
        length of the vectors, among them. A register without nodes has none.
    """
    if not (Path(folder) / REGISTER_NAME).exists():
        return {}
    register = Register(Path(folder), read_only=True)
    try:
        return register.properties
    finally:
        register.close()
