"""The accelerator: a FAISS index of the vectors in the database, in memory and as a file."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from phi3_industry._optional import import_optional
from phi3_industry.vector_stores.nodes import vectors_after
from phi3_industry.vector_stores.rows import Vector
from phi3_industry.vector_stores.schema import DamagedContentError, sync_folder

__all__ = ["VectorIndex", "index_path", "remove_other_files"]

_logger = logging.getLogger(__name__)


class VectorIndex:
    """Unit vectors in FAISS, searched exactly by inner product, which is their cosine.

    Args:
        dimensions: Length of the vectors.

    Attributes:
        dimensions: Length of the vectors.
        generation: The state of the database that the index shows.
        last_row: The largest row number that it has taken in.
    """

    kind = "flat"

    def __init__(self, dimensions: int) -> None:
        faiss = _faiss()
        self.dimensions = dimensions
        self.generation = 0
        self.last_row = 0
        self.faiss_index: Any = faiss.IndexIDMap(faiss.IndexFlatIP(dimensions))

    def __len__(self) -> int:
        return int(self.faiss_index.ntotal)

    def search(
        self, vector: Vector, k: int, *, rows: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """Find the nearest rows.

        Args:
            vector: A unit vector ``(dimensions,)``.
            k: The most rows to return.
            rows: The only rows to look at; ``None`` for all.

        Returns:
            ``(row, cosine)`` by falling cosine; equal cosines by rising row.
        """
        k = min(k, len(self) if rows is None else len(rows))
        if k < 1:
            return []
        parameters = None
        if rows is not None:
            faiss = _faiss()
            selector = faiss.IDSelectorBatch(np.asarray(rows, dtype=np.int64))
            parameters = faiss.SearchParameters(sel=selector)
        cosines, ids = self.faiss_index.search(vector[np.newaxis], k, params=parameters)
        found = zip(ids[0].tolist(), cosines[0].tolist(), strict=True)
        return sorted(
            ((row, cosine) for row, cosine in found if row >= 0), key=lambda hit: (-hit[1], hit[0])
        )

    def catch_up(self, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
        """Follow the database to the state of a snapshot.

        Args:
            connection: A connection inside that snapshot.
            meta: The store's properties in it. For an index that is not empty,
                ``deletions_since`` is not above the index's generation.

        Raises:
            DamagedContentError: A vector is damaged, or some are missing.
        """
        if self.generation == meta["generation"]:
            return
        gone = connection.execute(
            "SELECT row FROM deletions WHERE generation > ? AND row <= ?",
            (self.generation, self.last_row),
        ).fetchall()
        if gone:
            self.faiss_index.remove_ids(np.array(gone, dtype=np.int64).reshape(-1))
        for rows, vectors in vectors_after(connection, self.last_row, dimensions=self.dimensions):
            self.faiss_index.add_with_ids(vectors, rows)
            self.last_row = int(rows[-1])
        (count,) = connection.execute("SELECT count(*) FROM nodes").fetchone()
        if len(self) != count:
            raise DamagedContentError(f"it has {count} nodes and its index {len(self)}")
        self.generation = int(meta["generation"])

    def write(self, path: Path) -> dict[str, Any]:
        """Write the index, complete and on disk from the moment that its name exists.

        Returns:
            What the database must know to trust the file.

        Raises:
            OSError: The file cannot be written; nothing is left of it.
        """
        unfinished = path.with_name(path.name + ".new")
        try:
            _write_index(self.faiss_index, unfinished)
            digest = _sha256(unfinished)
            os.replace(unfinished, path)
            sync_folder(path.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        return {
            "kind": self.kind,
            "generation": self.generation,
            "last_row": self.last_row,
            "count": len(self),
            "sha256": digest,
        }

    @classmethod
    def read(cls, folder: Path, meta: Mapping[str, Any]) -> VectorIndex | None:
        """Read the file that the database vouches for.

        Returns:
            The index, or ``None`` if there is no such file or it is damaged.
        """
        record = meta["accelerator"]
        if record is None or record["kind"] != cls.kind or meta["dimensions"] is None:
            return None
        path = index_path(folder, record["generation"])
        try:
            if _sha256(path) != record["sha256"]:
                _logger.warning("The index '%s' is damaged. It is rebuilt from the database.", path)
                return None
            loaded = _faiss().read_index(str(path))
        except FileNotFoundError:
            return None
        if loaded.d != meta["dimensions"] or loaded.ntotal != record["count"]:
            return None
        index = cls(int(meta["dimensions"]))
        index.faiss_index = loaded
        index.generation = int(record["generation"])
        index.last_row = int(record["last_row"])
        return index


def index_path(folder: Path, generation: int) -> Path:
    """Return the name of the index file of a generation."""
    return folder / f"vectors.{generation}.faiss"


def remove_other_files(folder: Path, *, keep: Path | None) -> None:
    """Remove the index files of older generations and what an interrupted write has left."""
    for path in folder.glob("vectors.*.faiss*"):
        if path != keep:
            path.unlink(missing_ok=True)


def _write_index(index: Any, path: Path) -> None:
    try:
        _faiss().write_index(index, str(path))
    except RuntimeError as error:  # FAISS words a short write as the failed C++ assertion
        raise OSError(errno.ENOSPC, f"FAISS could not write it ({error})", str(path)) from error
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _faiss() -> ModuleType:
    return import_optional("faiss", package="faiss-cpu", purpose="search vectors")
