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
from phi3_industry.vector_stores.compressed import Compressed, Rows, compress
from phi3_industry.vector_stores.nodes import load_vectors, vectors_after
from phi3_industry.vector_stores.schema import DamagedContentError, sync_folder
from phi3_industry.vector_stores.similarity import Metric, Vector, from_faiss, similarities

__all__ = ["FLAT_UP_TO", "VectorIndex", "index_path", "is_intact", "remove_other_files"]

_logger = logging.getLogger(__name__)

#: Up to this many vectors comparing all of them takes less than two milliseconds.
FLAT_UP_TO = 20_000


class VectorIndex:
    """The vectors of one state of the database, ready to be searched.

    A small store's are all in a flat FAISS index, which compares with every vector, exactly. Of a
    large store most are compressed (:mod:`phi3_industry.vector_stores.compressed`); that part
    never changes, rows that came later are in the flat index, and rows of it that are gone are
    passed over. What the index costs to follow the database is therefore small at any size.

    Args:
        dimensions: Length of the vectors.
        metric: How they are compared.
        compressed: The compressed part, if there is one.

    Attributes:
        generation: The state of the database that the index shows.
        last_row: The largest row number that it has taken in.
        flat: The FAISS index of the vectors that are not compressed.
    """

    def __init__(
        self, dimensions: int, metric: Metric, *, compressed: Compressed | None = None
    ) -> None:
        faiss = _faiss()
        self.dimensions = dimensions
        self.metric = metric
        self.generation = 0
        self.last_row = 0
        self.compressed = compressed
        measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.flat: Any = faiss.IndexIDMap(faiss.IndexFlat(dimensions, measure))
        self._last_compressed = 0
        self._gone: set[int] = set()

    @classmethod
    def build(cls, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> VectorIndex:
        """Build the index of a snapshot, of the kind that its size and its vectors call for."""
        dimensions, metric, compressed = int(meta["dimensions"]), meta["metric"], None
        if meta["count"] > FLAT_UP_TO:
            compressed = compress(connection, dimensions=dimensions, metric=metric)
            if not compressed.is_good_enough:
                _logger.warning(
                    "Compressed vectors find only %s of the nearest: all are compared instead.",
                    compressed.recalls,
                )
                compressed = None
        index = cls(dimensions, metric, compressed=compressed)
        if compressed is not None:
            (index.last_row,) = connection.execute("SELECT max(row) FROM nodes").fetchone()
            index._last_compressed = index.last_row
            index.generation = int(meta["generation"])
        index.catch_up(connection, meta)
        return index

    @property
    def kind(self) -> str:
        """``"flat"`` or ``"pq_fastscan"``."""
        return "flat" if self.compressed is None else self.compressed.kind

    @property
    def uncompressed(self) -> int:
        """How many rows came after the compressed part, or left it."""
        return 0 if self.compressed is None else int(self.flat.ntotal) + len(self._gone)

    def __len__(self) -> int:
        compressed = 0 if self.compressed is None else len(self.compressed)
        return compressed - len(self._gone) + int(self.flat.ntotal)

    def search(
        self,
        connection: sqlite3.Connection,
        vector: Vector,
        k: int,
        *,
        rows: Sequence[int] | None = None,
    ) -> list[tuple[int, float]]:
        """Find the nearest rows.

        Args:
            connection: A connection inside the snapshot that the index shows.
            vector: A vector as the store keeps it ``(dimensions,)``.
            k: The most rows to return.
            rows: The only rows to look at, ascending; ``None`` for all.

        Returns:
            ``(row, similarity)`` by falling similarity; equal ones by rising row.
        """
        k = min(k, len(self) if rows is None else len(rows))
        if k < 1:
            return []
        allowed = None if rows is None else np.asarray(rows, dtype=np.int64)
        found = self._search_flat(vector, k, allowed)
        if self.compressed is not None:
            near = self._candidates(self.compressed, vector, k, allowed)
            exact = load_vectors(connection, near, dimensions=self.dimensions)
            values = similarities(exact, vector, metric=self.metric)
            found += zip(near, values.tolist(), strict=True)
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]

    def _search_flat(self, vector: Vector, k: int, allowed: Rows | None) -> list[tuple[int, float]]:
        k = min(k, int(self.flat.ntotal))
        if k < 1:
            return []
        parameters = None
        if allowed is not None:
            faiss = _faiss()
            allowed = allowed[np.searchsorted(allowed, self._last_compressed, side="right") :]
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))
        values, ids = self.flat.search(vector[np.newaxis], k, params=parameters)
        values = from_faiss(values, metric=self.metric)
        found = zip(ids[0].tolist(), values[0].tolist(), strict=True)
        return [(row, value) for row, value in found if row >= 0]

    def _candidates(
        self, compressed: Compressed, vector: Vector, k: int, allowed: Rows | None
    ) -> list[int]:
        """Propose rows of the compressed part that are there and allowed."""
        wanted = compressed.depth(k)
        share = 1.0 if allowed is None else max(len(allowed), 1) / max(len(self), 1)
        depth = int(min(wanted / share, len(compressed))) + len(self._gone)
        while True:
            proposed = compressed.candidates(vector, depth)
            if allowed is not None:
                places = np.minimum(np.searchsorted(allowed, proposed), len(allowed) - 1)
                proposed = proposed[allowed[places] == proposed]
            rows = [row for row in proposed.tolist() if row not in self._gone]
            if len(rows) >= wanted or depth >= len(compressed):
                return rows[:wanted]
            depth = min(4 * depth, len(compressed))

    def catch_up(self, connection: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
        """Follow the database to the state of a snapshot.

        Args:
            connection: A connection inside that snapshot.
            meta: The store's properties in it. For an index that is not empty,
                ``deletions_since`` is not above the index's generation.

        Raises:
            DamagedContentError: A vector is damaged, or some are missing.
        """
        if self.generation < meta["generation"]:
            gone = connection.execute(
                "SELECT row FROM deletions WHERE generation > ? AND row <= ?",
                (self.generation, self.last_row),
            ).fetchall()
            self._remove([row for (row,) in gone])
            for rows, vectors in vectors_after(
                connection, self.last_row, dimensions=self.dimensions
            ):
                self.flat.add_with_ids(vectors, rows)
                self.last_row = int(rows[-1])
        if len(self) != meta["count"]:
            raise DamagedContentError(f"it has {meta['count']} nodes and its index {len(self)}")
        self.generation = int(meta["generation"])

    def _remove(self, rows: Sequence[int]) -> None:
        self._gone.update(row for row in rows if row <= self._last_compressed)
        later = [row for row in rows if row > self._last_compressed]
        if later:
            self.flat.remove_ids(np.array(later, dtype=np.int64))

    def write(self, path: Path) -> dict[str, Any]:
        """Write the index, complete and on disk from the moment that its name exists.

        Returns:
            What the database must know to trust the file.

        Raises:
            OSError: The file cannot be written; nothing is left of it.
        """
        unfinished = path.with_name(path.name + ".new")
        try:
            unfinished.unlink(missing_ok=True)
            part = self.flat if self.compressed is None else self.compressed.faiss_index
            _write_index(part, unfinished)
            digest = _sha256(unfinished)
            os.replace(unfinished, path)
            sync_folder(path.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        record = {
            "kind": self.kind,
            "generation": self.generation,
            "last_row": self.last_row,
            "count": len(self),
            "sha256": digest,
        }
        if self.compressed is not None:
            record["depths"] = list(self.compressed.depths.items())
            record["recalls"] = list(self.compressed.recalls.items())
        return record

    @classmethod
    def read(cls, folder: Path, meta: Mapping[str, Any]) -> VectorIndex | None:
        """Read the file that the database vouches for.

        Returns:
            The index, or ``None`` if there is no such file or it is damaged.
        """
        record = meta["accelerator"]
        if record is None or meta["dimensions"] is None:
            return None
        path = index_path(folder, record["generation"])
        try:
            if not path.exists():
                return None
            if not is_intact(path, record):
                _logger.warning("The index '%s' is damaged. It is rebuilt from the database.", path)
                return None
            loaded = _faiss().read_index(str(path))
        except (OSError, RuntimeError, MemoryError) as error:
            _logger.warning("The index '%s' cannot be read (%s). It is rebuilt.", path, error)
            return None
        if loaded.ntotal != record["count"]:
            return None
        index = cls(int(meta["dimensions"]), meta["metric"])
        if record["kind"] == "flat":
            if loaded.d != meta["dimensions"]:
                return None
            index.flat = loaded
        else:
            index.compressed = Compressed(
                loaded, depths=dict(record["depths"]), recalls=dict(record["recalls"])
            )
            index._last_compressed = int(record["last_row"])
        index.generation = int(record["generation"])
        index.last_row = int(record["last_row"])
        return index


def index_path(folder: Path, generation: int) -> Path:
    """Return the name of the index file of a generation."""
    return folder / f"vectors.{generation:d}.faiss"


def is_intact(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether an index file is a file of its own, and the one that the database vouches for."""
    return path.is_file() and not path.is_symlink() and _sha256(path) == record["sha256"]


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
