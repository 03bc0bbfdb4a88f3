"""Keeps a FAISS index in memory at the state of the database, and its file up to date."""

from __future__ import annotations

import json
import logging
import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_industry.vector_stores.filters import Condition
from phi3_industry.vector_stores.nodes import matching_rows
from phi3_industry.vector_stores.report import IndexFileState
from phi3_industry.vector_stores.schema import DamagedContentError, write_meta
from phi3_industry.vector_stores.vector_index import (
    FLAT_UP_TO,
    VectorIndex,
    index_path,
    is_intact,
    remove_other_files,
)

__all__ = ["Accelerator", "recorded_path"]

_logger = logging.getLogger(__name__)

# Changed rows after which the file is worth writing without waiting for the store to be closed.
_MANY_CHANGES = 50_000
# Rows of former filters that are remembered; eight bytes each.
_KEPT_ROWS = 2_000_000


class Accelerator:
    """The index of one store object, loaded when it is first needed.

    Args:
        folder: The store's folder.

    Attributes:
        index: The index in memory; ``None`` before it is needed.
        file_is_of_no_use: Whether the file was damaged or missing when it was needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: VectorIndex | None = None
        self.file_is_of_no_use = False
        self._matching: dict[tuple[str, str], Sequence[int]] = {}
        self._matching_generation = -1

    def at(self, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> VectorIndex:
        """Return the index at the state of a snapshot.

        It follows from where it is; if it cannot, it is read from its file and follows from
        there; if that is missing, damaged or of no use, it is built from the database.

        Args:
            connection: A connection inside the snapshot.
            meta: The store's properties in it; they name the dimensions.
        """
        index = self.index
        if index is None or not _can_follow(index, meta):
            index = VectorIndex.read(self.folder, meta)
            self.file_is_of_no_use = index is None and meta["accelerator"] is not None
        self.index = None  # were it to fail half-way, the next query starts from the file
        if index is not None and _can_follow(index, meta):
            try:
                index.catch_up(connection, meta)
            except DamagedContentError as error:
                _logger.warning(
                    "The index of '%s' cannot follow its database (%s). It is rebuilt.",
                    self.folder,
                    error,
                )
                index = None
        else:
            index = None
        if index is None:
            index = VectorIndex.build(connection, meta)
        self.index = index
        return index

    def rows_matching(
        self, connection: sqlite3.Connection, meta: Mapping[str, Any], condition: Condition
    ) -> Sequence[int]:
        """Return the rows that meet a condition, from memory if it was asked of this state before.

        Applications ask many questions under few filters, such as one for each of their users.
        """
        if self._matching_generation != meta["generation"]:
            self._matching_generation = int(meta["generation"])
            self._matching.clear()
        key = (condition[0], json.dumps(condition[1]))
        rows = self._matching.pop(key, None)
        if rows is None:
            rows = array("q", matching_rows(connection, condition))
        self._matching[key] = rows  # the latest at the end
        while len(self._matching) > 1 and sum(map(len, self._matching.values())) > _KEPT_ROWS:
            del self._matching[next(iter(self._matching))]
        return rows

    def write(self, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> Path | None:
        """Write the file of the present state and have the database vouch for it.

        Args:
            connection: A connection inside a transaction.
            meta: The store's properties.

        Returns:
            The file, or ``None`` if there are no vectors. Once the transaction is committed,
            :meth:`tidy` removes the others.
        """
        if meta["dimensions"] is None:
            return None
        path = recorded_path(self.folder, meta)
        if path is not None and path.exists() and not self._deserves_a_file(connection, meta):
            return path
        index = self.at(connection, meta) if meta["count"] <= FLAT_UP_TO else self.index
        if index is None or index.uncompressed or index.generation != meta["generation"]:
            self.index = index = None  # two would need twice the memory
            self.index = index = VectorIndex.build(connection, meta)
        path = index_path(self.folder, meta["generation"])
        record = index.write(path)
        write_meta(connection, accelerator=record, deletions_since=record["generation"])
        connection.execute("DELETE FROM deletions")
        self.file_is_of_no_use = False
        return path

    def kind_and_recall(self, meta: Mapping[str, Any]) -> tuple[str, float]:
        """Return the kind of the index and its measured recall@10, of the file if none is open."""
        if self.index is not None:
            compressed = self.index.compressed
            return self.index.kind, 1.0 if compressed is None else compressed.recall
        record = meta.get("accelerator")
        if record is None or "recalls" not in record:
            return "flat", 1.0
        return str(record["kind"]), float(dict(record["recalls"])[10])

    def file_state(self, meta: Mapping[str, Any]) -> IndexFileState:
        """Compare the file with what the database knows of it."""
        path = recorded_path(self.folder, meta)
        if path is None or not path.exists():
            return "none"
        return "intact" if is_intact(path, meta["accelerator"]) else "damaged"

    def tidy(self, keep: Path | None) -> None:
        """Remove the files of other states and what an interrupted write has left."""
        remove_other_files(self.folder, keep=keep)

    def is_worth_writing(
        self, connection: sqlite3.Connection, meta: Mapping[str, Any], *, closing: bool
    ) -> bool:
        """Whether enough has changed since the file was written.

        Args:
            connection: A connection inside a snapshot.
            meta: The store's properties in it.
            closing: Whether this is the last occasion for now.
        """
        changes = unwritten_changes(connection, meta)
        if closing and self.file_is_of_no_use:
            return True
        if closing:
            return changes > 0 and int(meta["count"]) <= changes * 10
        return changes >= _MANY_CHANGES and int(meta["count"]) <= changes * 3

    def _deserves_a_file(self, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> bool:
        # a compressed index is built as a whole, which takes a minute for a million vectors
        if self.file_is_of_no_use:
            return True
        if meta["accelerator"]["kind"] == "flat":
            return bool(meta["accelerator"]["generation"] != meta["generation"])
        return int(meta["count"]) <= unwritten_changes(connection, meta) * 10


def unwritten_changes(connection: sqlite3.Connection, meta: Mapping[str, Any]) -> int:
    """Return about how many rows came and went since the index file was written."""
    (last_row,) = connection.execute("SELECT coalesce(max(row), 0) FROM nodes").fetchone()
    (gone,) = connection.execute("SELECT count(*) FROM deletions").fetchone()
    record = meta["accelerator"]
    return int(gone) + max(0, int(last_row) - (0 if record is None else int(record["last_row"])))


def recorded_path(folder: Path, meta: Mapping[str, Any]) -> Path | None:
    """Return the index file that the database vouches for, if there is one."""
    record = meta.get("accelerator")
    return None if record is None else index_path(folder, record["generation"])


def _can_follow(index: VectorIndex, meta: Mapping[str, Any]) -> bool:
    if index.dimensions != meta["dimensions"] or index.generation > meta["generation"]:
        return False
    return bool(index.generation >= meta["deletions_since"])
