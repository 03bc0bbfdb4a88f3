"""The rows of the tables of nodes: found, read and checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from phi3_industry.vector_stores.filters import Condition, filters_to_sql, is_among
from phi3_industry.vector_stores.schema import DamagedContentError, checksum
from phi3_industry.vector_stores.similarity import Vector

__all__ = [
    "all_nodes",
    "check_all_rows",
    "choice",
    "has_document",
    "load_nodes",
    "load_vectors",
    "matching_rows",
    "vectors_after",
]

_CHUNK = 4096


def choice(node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Condition:
    """Return the condition of having one of the ids and passing the filters; ``None`` for all."""
    sql, parameters = ("1", []) if filters is None else filters_to_sql(filters)
    if node_ids is None:
        return sql, parameters
    among, ids = is_among("node_id", node_ids)
    return f"{sql} AND {among}", [*parameters, *ids]


def matching_rows(connection: sqlite3.Connection, condition: Condition) -> list[int]:
    """Return the numbers of the rows that meet a condition, ascending."""
    sql = f"SELECT row FROM nodes WHERE {condition[0]}"  # noqa: S608 - no values in it
    # sorted here, for SQLite would read the whole table to have them in order
    return sorted(row for (row,) in connection.execute(sql, condition[1]))


def has_document(connection: sqlite3.Connection, ref_doc_id: str | None) -> bool:
    """Whether a document's hash is known."""
    found = connection.execute("SELECT 1 FROM documents WHERE ref_doc_id = ?", (ref_doc_id,))
    return found.fetchone() is not None


def load_nodes(connection: sqlite3.Connection, rows: Sequence[int]) -> list[BaseNode]:
    """Read nodes in the order of their row numbers as given.

    Raises:
        DamagedContentError: A node is damaged or not there.
    """
    wanted: Condition = ("row IN (SELECT value FROM json_each(?))", [json.dumps(list(rows))])
    found = dict(all_nodes(connection, wanted))
    if missing := [row for row in rows if row not in found]:
        raise DamagedContentError(f"the node of row {missing[0]} is missing")
    return [found[row] for row in rows]


def all_nodes(
    connection: sqlite3.Connection, condition: Condition = ("1", [])
) -> Iterator[tuple[int, BaseNode]]:
    """Read the nodes that meet a condition, one by one, each with its row number, ascending.

    Raises:
        DamagedContentError: A node is damaged.
    """
    query = (
        "SELECT row, node_id, ref_doc_id, node_type, content, metadata, checksum FROM nodes "  # noqa: S608 - no values in it
        f"WHERE {condition[0]} ORDER BY row"
    )
    for row, *stored, written in connection.execute(query, condition[1]):
        if checksum(*stored) != written:
            raise _damaged_row(row)
        try:
            node = metadata_dict_to_node({"_node_type": stored[2], "_node_content": stored[3]})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedContentError(f"the node of row {row} is no node: {error}") from error
        yield row, node


def load_vectors(connection: sqlite3.Connection, rows: Sequence[int], *, dimensions: int) -> Vector:
    """Read vectors in the order of their row numbers as given, as ``(len(rows), dimensions)``."""
    found: dict[int, bytes] = {}
    query = (
        "SELECT row, vector, vector_checksum FROM nodes "
        "WHERE row IN (SELECT value FROM json_each(?))"
    )
    for row, vector, written in connection.execute(query, (json.dumps(list(rows)),)):
        found[row] = _checked_vector(row, vector, written, dimensions=dimensions)
    if missing := [row for row in rows if row not in found]:
        raise DamagedContentError(f"the vector of row {missing[0]} is missing")
    joined = b"".join(found[row] for row in rows)
    return np.frombuffer(joined, dtype=np.float32).reshape(len(rows), dimensions)


def vectors_after(
    connection: sqlite3.Connection, last_row: int, *, dimensions: int
) -> Iterator[tuple[npt.NDArray[np.int64], Vector]]:
    """Read the vectors of the rows behind one, in chunks of bounded size.

    Yields:
        Row numbers ``(count,)``, ascending, and their vectors ``(count, dimensions)``.
    """
    cursor = connection.execute(
        "SELECT row, vector, vector_checksum FROM nodes WHERE row > ? ORDER BY row", (last_row,)
    )
    while chunk := cursor.fetchmany(_CHUNK):
        joined = b"".join(_checked_vector(*entry, dimensions=dimensions) for entry in chunk)
        vectors = np.frombuffer(joined, dtype=np.float32).reshape(len(chunk), dimensions)
        yield np.array([row for row, _, _ in chunk], dtype=np.int64), vectors


def check_all_rows(connection: sqlite3.Connection) -> int:
    """Compare every row with its checksum.

    Returns:
        The number of nodes.

    Raises:
        DamagedContentError: A row is damaged.
    """
    count = 0
    for row, *stored, written, vector, vector_written in connection.execute(
        "SELECT row, node_id, ref_doc_id, node_type, content, metadata, checksum, "
        "vector, vector_checksum FROM nodes"
    ):
        if checksum(*stored) != written or checksum(vector) != vector_written:
            raise _damaged_row(row)
        count += 1
    for ref_doc_id, content_hash, written in connection.execute(
        "SELECT ref_doc_id, content_hash, checksum FROM documents"
    ):
        if checksum(ref_doc_id, content_hash) != written:
            raise DamagedContentError(f"the record of document '{ref_doc_id}' is damaged")
    return count


def _checked_vector(row: int, vector: bytes, written: int, *, dimensions: int) -> bytes:
    if checksum(vector) != written or len(vector) != 4 * dimensions:
        raise _damaged_row(row)
    return vector


def _damaged_row(row: int) -> DamagedContentError:
    return DamagedContentError(f"the node of row {row} does not match its checksum")
