"""Exact comparison of a vector with some rows, straight from the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

from phi3_industry.vector_stores.nodes import load_vectors
from phi3_industry.vector_stores.similarity import Metric, Vector, similarities

__all__ = ["Hit", "diversified", "scan"]

#: A row number and its score, higher is better.
Hit = tuple[int, float]


def scan(
    connection: sqlite3.Connection, vector: Vector, k: int, *, rows: Sequence[int], metric: Metric
) -> list[Hit]:
    """Compare a vector with those of some rows.

    Args:
        connection: A connection inside a snapshot.
        vector: A vector as the store keeps it ``(dimensions,)``.
        k: The most rows to return.
        rows: Row numbers, ascending.
        metric: How to compare.

    Returns:
        The nearest rows by falling similarity; equal ones by rising row.
    """
    if not rows:
        return []
    vectors = load_vectors(connection, rows, dimensions=len(vector))
    values = similarities(vectors, vector, metric=metric)
    best = np.argsort(-values, kind="stable")[:k]
    return [(rows[position], float(values[position])) for position in best]


def diversified(
    connection: sqlite3.Connection,
    vector: Vector,
    k: int,
    *,
    rows: Sequence[int],
    threshold: float,
    metric: Metric,
) -> list[Hit]:
    """Choose rows by maximal marginal relevance, each with its similarity to the query.

    Each choice maximises ``threshold * similarity to the query - (1 - threshold) * largest
    similarity to those chosen before``.

    Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.

    Args:
        connection: A connection inside a snapshot.
        vector: A vector as the store keeps it ``(dimensions,)``.
        k: The most rows to return.
        rows: The candidates, best first.
        threshold: From 0 (only diversity) to 1 (only similarity).
        metric: How to compare.
    """
    if not rows:
        return []
    vectors = load_vectors(connection, rows, dimensions=len(vector))
    relevance = similarities(vectors, vector, metric=metric)
    overlap = np.full(len(rows), -np.inf, dtype=np.float32)
    worth = relevance.copy()  # the first choice has nothing to differ from
    chosen: list[int] = []
    for _ in range(min(k, len(rows))):
        best = int(np.argmax(worth))
        chosen.append(best)
        overlap = np.maximum(overlap, similarities(vectors, vectors[best], metric=metric))
        worth = threshold * relevance - (1 - threshold) * overlap
        worth[chosen] = -np.inf
    return [(rows[position], float(relevance[position])) for position in chosen]
