"""Compressed vectors for large stores, used only where they were measured to find what is near.

Vectors are cut into pairs of numbers of which 4 bits each are kept (FAISS's ``PQ..x4fs``, which
scans them in registers). That is 1/16 of the memory and 20 times the speed of comparing all
vectors, but only roughly right, so it proposes candidates and the exact vectors from the database
decide among them. How many candidates that takes depends on the data. It is measured when the
index is built: against an exact search, for vectors of the store itself.

Source: André, Kermarrec and Le Scouarnec, "Quicker ADC: Unlocking the Hidden Potential of Product
Quantization with SIMD", IEEE TPAMI 2019.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from phi3_industry._optional import import_optional
from phi3_industry.vector_stores.nodes import load_vectors, vectors_after
from phi3_industry.vector_stores.schema import DamagedContentError
from phi3_industry.vector_stores.similarity import Metric, Vector

__all__ = ["Compressed", "Rows", "compress"]

_logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]

# 0.98 is promised; what is measured on a sample of this size is off by up to 0.01.
_WANTED_RECALL = 0.99
_QUESTIONS = 256
# 16 centroids for each pair of numbers need no more to learn from.
_TRAINING_ROWS = 16_384
# Candidates are measured for these numbers of results, and in between are interpolated.
_MEASURED_K = (10, 100)
# Tried in turn: candidates for each result. Beyond the last, comparing all vectors is as good.
_FACTORS = (2, 4, 8, 16, 32, 64)


class Compressed:
    """An index of compressed vectors that proposes candidates; it never changes.

    Args:
        faiss_index: An ``IndexIDMap`` over an ``IndexPQFastScan``; its ids are row numbers.
        depths: For each of some numbers of results, how many candidates were enough.
        recalls: For each of them, the share of the nearest that were among the candidates.
    """

    kind = "pq_fastscan"

    def __init__(
        self, faiss_index: Any, *, depths: Mapping[int, int], recalls: Mapping[int, float]
    ) -> None:
        self.faiss_index = faiss_index
        self.depths = dict(depths)
        self.recalls = dict(recalls)

    def __len__(self) -> int:
        return int(self.faiss_index.ntotal)

    @property
    def is_good_enough(self) -> bool:
        """Whether it finds so much of what is near that it may be used."""
        return min(self.recalls.values()) >= _WANTED_RECALL

    @property
    def recall(self) -> float:
        """The measured recall@10."""
        return self.recalls[_MEASURED_K[0]]

    def depth(self, k: int) -> int:
        """Return how many candidates it takes to have the ``k`` nearest among them."""
        few, many = _MEASURED_K
        if k > many:
            return -(-self.depths[many] * k // many)
        return int(np.interp(k, _MEASURED_K, (self.depths[few], self.depths[many])))

    def candidates(self, vector: Vector, count: int) -> Rows:
        """Return the rows that seem nearest, best first."""
        padded = _padded(vector[np.newaxis], self.faiss_index.d)
        rows = self.faiss_index.search(padded, min(count, len(self)))[1][0]
        return cast("Rows", rows[rows >= 0])


def compress(connection: sqlite3.Connection, *, dimensions: int, metric: Metric) -> Compressed:
    """Compress all vectors of a snapshot and measure how well they are found.

    Memory is bounded by the compressed vectors, ``dimensions / 4`` bytes each, and a sample.

    Args:
        connection: A connection inside the snapshot.
        dimensions: Length of the vectors.
        metric: How they are compared.

    Returns:
        The index; to be used only if it ``is_good_enough``.
    """
    faiss: Any = import_optional("faiss", package="faiss-cpu", purpose="search vectors")
    rows = np.fromiter((row for (row,) in connection.execute("SELECT row FROM nodes")), np.int64)
    drawn = np.random.default_rng(0).permutation(rows)[: _TRAINING_ROWS + _QUESTIONS]
    sample = load_vectors(connection, drawn.tolist(), dimensions=dimensions)
    questions, asked = sample[:_QUESTIONS], drawn[:_QUESTIONS]
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    pairs = -(-dimensions // 2)
    index = faiss.IndexIDMap(faiss.IndexPQFastScan(2 * pairs, pairs, 4, measure))
    index.train(_padded(sample[_QUESTIONS:], 2 * pairs))
    nearest = _Nearest(questions, asked, measure=measure)
    for numbers, vectors in vectors_after(connection, 0, dimensions=dimensions):
        index.add_with_ids(_padded(vectors, 2 * pairs), numbers)
        nearest.see(numbers, vectors)
    if index.ntotal != len(rows):
        raise DamagedContentError(f"it has {len(rows)} nodes and {index.ntotal} vectors")
    deepest = min(_FACTORS[-1] * _MEASURED_K[-1] + 1, len(rows))
    proposed = index.search(_padded(questions, 2 * pairs), deepest)[1]
    depths: dict[int, int] = {}
    recalls: dict[int, float] = {}
    for k in _MEASURED_K:
        depths[k], recalls[k] = _enough(proposed, nearest.rows[:, :k])
    _logger.info("%d vectors compressed: candidates %s, recall %s", len(rows), depths, recalls)
    return Compressed(index, depths=depths, recalls=recalls)


class _Nearest:
    """The nearest rows of some questions, kept while all vectors pass by."""

    def __init__(self, questions: Vector, asked: Rows, *, measure: int) -> None:
        self._questions, self._asked, self._measure = questions, asked, measure
        self.rows = np.full((len(questions), _MEASURED_K[-1]), -1, dtype=np.int64)
        self._values = np.full(self.rows.shape, np.inf, dtype=np.float32)

    def see(self, rows: Rows, vectors: Vector) -> None:
        faiss: Any = import_optional("faiss", package="faiss-cpu", purpose="search vectors")
        k = min(self.rows.shape[1] + 1, len(rows))  # one more: the question itself is among them
        values, places = faiss.knn(self._questions, vectors, k, metric=self._measure)
        if self._measure != faiss.METRIC_L2:
            values = -values
        found = rows[places]
        values = np.where(found == self._asked[:, np.newaxis], np.inf, values)
        all_rows = np.hstack([self.rows, found])
        all_values = np.hstack([self._values, values])
        best = np.argsort(all_values, axis=1, kind="stable")[:, : self.rows.shape[1]]
        self.rows = np.take_along_axis(all_rows, best, axis=1)
        self._values = np.take_along_axis(all_values, best, axis=1)


def _enough(proposed: Rows, nearest: Rows) -> tuple[int, float]:
    """Return the least number of candidates that was enough, and the recall that it had."""
    k, recall, depth = nearest.shape[1], 0.0, 0
    for factor in _FACTORS:
        depth = min(factor * k + 1, proposed.shape[1])  # one more: the question itself
        found = [
            len(np.intersect1d(rows[:depth], wanted)) / k
            for rows, wanted in zip(proposed, nearest, strict=True)
        ]
        recall = float(np.mean(found))
        if recall >= _WANTED_RECALL:
            break
    return depth, recall


def _padded(vectors: Vector, width: int) -> Vector:
    missing = width - vectors.shape[1]
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, missing))) if missing else vectors)
