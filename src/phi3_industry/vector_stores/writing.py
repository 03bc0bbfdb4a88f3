"""What a transaction changes: nodes that come, nodes that go, documents that are whole."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from phi3_industry.vector_stores.filters import is_among
from phi3_industry.vector_stores.nodes import choice, matching_rows
from phi3_industry.vector_stores.rows import NodeRow, Passage
from phi3_industry.vector_stores.schema import LEXICAL_COLUMNS, checksum, write_meta
from phi3_industry.vector_stores.similarity import Metric

__all__ = ["Change", "insert_passage"]

_INSERT_PASSAGE = (
    f"INSERT INTO passages (rowid, {', '.join(LEXICAL_COLUMNS)}) "  # noqa: S608 - names of ours
    f"VALUES (?{', ?' * len(LEXICAL_COLUMNS)})"
)


class Change:
    """The changes of one transaction, which are the store's next generation.

    Args:
        connection: A connection inside a transaction.
        meta: The store's properties before the change.
    """

    def __init__(self, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
        self._connection = connection
        self._meta = meta
        self._dimensions: int | None = meta["dimensions"]
        self._count = int(meta["count"])
        self.generation = int(meta["generation"]) + 1

    def put(self, rows: Sequence[NodeRow]) -> None:
        """Put rows in the place of those with the same node ids.

        Args:
            rows: New rows, each node id once.

        Raises:
            ValueError: A vector has another length than those of the store.
        """
        self.delete(matching_rows(self._connection, choice([row.node_id for row in rows], None)))
        documents, ids = is_among("ref_doc_id", [row.ref_doc_id for row in rows if row.ref_doc_id])
        self._connection.execute(f"DELETE FROM documents WHERE {documents}", ids)  # noqa: S608 - no values
        for row in rows:
            self._dimensions = self._dimensions or len(row.vector) // 4
            if len(row.vector) != 4 * self._dimensions:
                raise ValueError(
                    f"The node '{row.node_id}' has {len(row.vector) // 4} dimensions; another "
                    f"process has just put vectors of {self._dimensions} dimensions into the store."
                )
            _insert(self._connection, row)
        self._count += len(rows)

    def delete(self, rows: Sequence[int]) -> None:
        """Delete rows, keep note of them, and forget the hashes of the documents they were of.

        Args:
            rows: Numbers of rows that are there.
        """
        if not rows:
            return
        self._connection.execute(
            "DELETE FROM documents WHERE ref_doc_id IN (SELECT ref_doc_id FROM nodes "
            "WHERE row IN (SELECT value FROM json_each(?)))",
            (json.dumps(list(rows)),),
        )
        each = [(row,) for row in rows]
        self._connection.executemany("DELETE FROM passages WHERE rowid = ?", each)
        self._connection.executemany("DELETE FROM nodes WHERE row = ?", each)
        self._connection.executemany(
            "INSERT INTO deletions (row, generation) VALUES (?, ?)",
            [(row, self.generation) for row in rows],
        )
        self._count -= len(rows)

    def forget_document(self, ref_doc_id: str | None) -> None:
        """Forget a document's hash."""
        self._connection.execute("DELETE FROM documents WHERE ref_doc_id = ?", (ref_doc_id,))

    def record_document(self, ref_doc_id: str, content_hash: str) -> None:
        """Keep a document's hash; it is forgotten when any of its nodes changes."""
        self._connection.execute(
            "INSERT OR REPLACE INTO documents (ref_doc_id, content_hash, checksum) "
            "VALUES (?, ?, ?)",
            (ref_doc_id, content_hash, checksum(ref_doc_id, content_hash)),
        )

    def finish(self, *, identity: Mapping[str, Any] | None, metric: Metric) -> None:
        """Make it the store's next generation.

        Args:
            identity: The store's identity, if it has none yet.
            metric: How its vectors are compared, if that is not settled yet.
        """
        write_meta(
            self._connection,
            generation=self.generation,
            count=self._count,
            dimensions=self._dimensions,
            identity=self._meta["identity"] or identity,
            metric=self._meta["metric"] or metric,
        )


def _insert(connection: sqlite3.Connection, row: NodeRow) -> None:
    stored = (row.node_id, row.ref_doc_id, row.node_type, row.content, row.metadata)
    cursor = connection.execute(
        "INSERT INTO nodes (node_id, ref_doc_id, node_type, content, metadata, checksum, "
        "vector, vector_checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*stored, checksum(*stored), row.vector, checksum(row.vector)),
    )
    insert_passage(connection, int(cursor.lastrowid or 0), row.passage)


def insert_passage(connection: sqlite3.Connection, row: int, passage: Passage) -> None:
    """Let lexical search find a row by the terms of its passage."""
    connection.execute(_INSERT_PASSAGE, (row, *passage))
