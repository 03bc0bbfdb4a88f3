"""Keeps a FAISS index in memory at the state of the database, and its file up to date."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_industry.vector_stores.schema import DamagedContentError, write_meta
from phi3_industry.vector_stores.vector_index import VectorIndex, index_path, remove_other_files

__all__ = ["Accelerator"]

_logger = logging.getLogger(__name__)

# Changed rows after which the file is worth writing without waiting for the store to be closed.
_MANY_CHANGES = 50_000


class Accelerator:
    """The index of one store object, loaded when it is first needed.

    Args:
        folder: The store's folder.

    Attributes:
        index: The index in memory; ``None`` before it is needed.
        unsaved: Rows that came or went since the file was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: VectorIndex | None = None
        self.unsaved = 0

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
            index = VectorIndex(int(meta["dimensions"]))
            index.catch_up(connection, meta)
        self.index = index
        return index

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
        record, path = meta["accelerator"], index_path(self.folder, meta["generation"])
        if record is None or record["generation"] != meta["generation"] or not path.exists():
            record = self.at(connection, meta).write(path)
            write_meta(connection, accelerator=record, deletions_since=record["generation"])
            connection.execute("DELETE FROM deletions")
        return path

    def tidy(self, keep: Path | None) -> None:
        """Remove the files of other states and what an interrupted write has left."""
        remove_other_files(self.folder, keep=keep)
        self.unsaved = 0

    def is_worth_writing(self, count: Callable[[], int], *, closing: bool) -> bool:
        """Whether enough has changed since the file was written.

        Args:
            count: Returns the number of nodes; called only if it matters.
            closing: Whether this is the last occasion for now.
        """
        if closing:
            return self.unsaved > 0 and self.unsaved * 20 >= count()
        return self.unsaved >= _MANY_CHANGES and self.unsaved >= count() // 2


def _can_follow(index: VectorIndex, meta: Mapping[str, Any]) -> bool:
    if index.dimensions != meta["dimensions"] or index.generation > meta["generation"]:
        return False
    return bool(index.generation >= meta["deletions_since"])
