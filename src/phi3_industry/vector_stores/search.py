"""How a query is answered from one snapshot of the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from phi3_industry.vector_stores.accelerator import Accelerator
from phi3_industry.vector_stores.dense import Hit, diversified, scan
from phi3_industry.vector_stores.filters import Condition, filters_to_sql, is_among
from phi3_industry.vector_stores.fusion import reciprocal_rank_fusion
from phi3_industry.vector_stores.lexical import match_expression, query_terms
from phi3_industry.vector_stores.similarity import prepared

__all__ = ["FUSION_DEPTH", "TEXT_MODES", "check_query", "search"]

#: The modes that search by words alone.
TEXT_MODES = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_MODES = (
    VectorStoreQueryMode.DEFAULT,
    *TEXT_MODES,
    VectorStoreQueryMode.HYBRID,
    VectorStoreQueryMode.MMR,
)
# A filter that lets this many rows through, or fewer, is answered by scanning just those.
_SCANNED_ROWS = 512
#: Each arm of a hybrid query looks this deep at least, so that ranks have something to agree on.
FUSION_DEPTH = 50
# Candidates of MMR: all of a small store, the best of a large one.
_MMR_CANDIDATES = 200
# FTS5's BM25 multiplies the count of a word by its column's weight, which is to divide k1, fixed at
# 1.2, by it: 3 makes k1 0.4. A word's being there says most, and its being there often little more.
# Chosen while looking at medical and financial development questions; docs/benchmarks.md says how
# to read what they give. A word of a header counts as two of the text.
_HEADER_WEIGHT = 6.0
_BODY_WEIGHT = 3.0
# With fewer nodes than this, a word in most of them may still be what is asked for.
_COUNTABLE_NODES = 10


def check_query(
    query: VectorStoreQuery,
    *,
    mmr_threshold: float | None = None,
    offered: Sequence[VectorStoreQueryMode] = _MODES,
    store: str = "FaissSQLiteVectorStore",
) -> None:
    """Refuse a query that cannot be answered, saying what it lacks.

    Args:
        query: The query.
        mmr_threshold: From 0 to 1.
        offered: The modes that there are.
        store: Who offers them.

    Raises:
        ValueError: The mode is not offered, or the query lacks what its mode needs.
    """
    if query.mode not in offered:
        modes = ", ".join(mode.value for mode in offered)
        raise ValueError(
            f"The query mode '{VectorStoreQueryMode(query.mode).value}' is not offered by "
            f"{store}; it offers: {modes}."
        )
    if query.similarity_top_k < 0:
        raise ValueError(f"similarity_top_k is {query.similarity_top_k}; it must be at least 0.")
    if query.mode not in TEXT_MODES and query.query_embedding is None:
        raise ValueError(
            f"A query in mode '{query.mode.value}' needs query_embedding, and it is None."
        )
    if query.mode in (*TEXT_MODES, VectorStoreQueryMode.HYBRID) and query.query_str is None:
        raise ValueError(f"A query in mode '{query.mode.value}' needs query_str, and it is None.")
    if query.alpha is not None and not 0 <= query.alpha <= 1:
        raise ValueError(f"alpha is {query.alpha}; it must be from 0 (words) to 1 (vectors).")
    if mmr_threshold is not None and not 0 <= mmr_threshold <= 1:
        raise ValueError(
            f"mmr_threshold is {mmr_threshold}; it must be from 0 (diverse) to 1 (similar)."
        )


def search(
    connection: sqlite3.Connection,
    meta: Mapping[str, Any],
    query: VectorStoreQuery,
    *,
    accelerator: Accelerator,
    mmr_threshold: float | None,
) -> list[Hit]:
    """Answer a query that :func:`check_query` has passed.

    Args:
        connection: A connection inside a snapshot.
        meta: The store's properties in it.
        query: The query.
        accelerator: Gives the FAISS index at that snapshot, and the rows of filters.
        mmr_threshold: From 0 (only diversity) to 1 (only similarity).

    Returns:
        Rows and scores, best first; of MMR in the order of choice.

    Raises:
        ValueError: The query's embedding cannot be compared with the store's.
    """
    condition, k, mode = _restriction(query), query.similarity_top_k, query.mode
    text = query.query_str or ""
    if mode in TEXT_MODES:
        return _lexical(connection, text, k, condition=condition)
    metric, dimensions = meta["metric"], meta["dimensions"]
    what = "The query's embedding"
    vector = prepared(query.query_embedding or [], metric=metric, dimensions=dimensions, what=what)
    if dimensions is None:
        return []
    rows = condition and accelerator.rows_matching(connection, meta, condition)

    def nearest(depth: int) -> list[Hit]:
        if rows is not None and len(rows) <= _SCANNED_ROWS:
            return scan(connection, vector, depth, rows=rows, metric=metric)
        return accelerator.at(connection, meta).search(connection, vector, depth, rows=rows)

    if mode == VectorStoreQueryMode.DEFAULT:
        return nearest(k)
    if mode == VectorStoreQueryMode.MMR:
        hits = nearest(max(_MMR_CANDIDATES, 10 * k))
        threshold = 0.5 if mmr_threshold is None else mmr_threshold
        near = [row for row, _ in hits]
        return diversified(connection, vector, k, rows=near, threshold=threshold, metric=metric)
    dense = nearest(max(k, FUSION_DEPTH))
    depth = query.sparse_top_k or max(k, FUSION_DEPTH)
    lexical = _lexical(connection, text, depth, condition=condition)
    alpha = 0.5 if query.alpha is None else query.alpha
    fused = reciprocal_rank_fusion(
        [[row for row, _ in dense], [row for row, _ in lexical]],
        weights=[2 * alpha, 2 * (1 - alpha)],
    )
    return fused[: k if query.hybrid_top_k is None else query.hybrid_top_k]


def _restriction(query: VectorStoreQuery) -> Condition | None:
    # doc_ids=[] lets nothing through. node_ids=[] is no restriction, since that is what
    # VectorStoreIndex.as_retriever passes for a store that keeps the text itself.
    parts: list[Condition] = []
    if query.filters is not None:
        parts.append(filters_to_sql(query.filters))
    if query.doc_ids is not None:
        parts.append(is_among("ref_doc_id", query.doc_ids))
    if query.node_ids:
        parts.append(is_among("node_id", query.node_ids))
    if not parts:
        return None
    return " AND ".join(sql for sql, _ in parts), [value for _, given in parts for value in given]


def _lexical(
    connection: sqlite3.Connection, text: str, k: int, *, condition: Condition | None
) -> list[Hit]:
    """Find the rows that hold a query's words, by BM25 over headers and texts.

    A word in more than half of the nodes is no evidence (its weight in BM25 is zero) and finds
    nothing by itself; a query of which no other word occurs has an empty result. A condition on
    rows leaves the words' weights as they are in the whole store.
    """
    terms = _telling_terms(connection, query_terms(text))
    if not terms or k < 1:
        return []
    sql = "SELECT rowid, -bm25(passages, ?, ?) AS score FROM passages WHERE passages MATCH ?"
    parameters: list[object] = [_HEADER_WEIGHT, _BODY_WEIGHT, match_expression(terms)]
    if condition is not None:
        # the plus sign keeps SQLite from looking up each row by itself
        sql += f" AND +rowid IN (SELECT row FROM nodes WHERE {condition[0]})"  # noqa: S608 - no values
        parameters += condition[1]
    sql += " ORDER BY score DESC, rowid LIMIT ?"
    return connection.execute(sql, [*parameters, min(k, 2**31)]).fetchall()


def _telling_terms(connection: sqlite3.Connection, terms: Sequence[str]) -> list[str]:
    (count,) = connection.execute("SELECT count(*) FROM nodes").fetchone()
    most = count / 2 if count >= _COUNTABLE_NODES else count
    telling = []
    for term in terms:
        found = connection.execute("SELECT doc FROM terms WHERE term = ?", (term,)).fetchone()
        if found is not None and found[0] <= most:
            telling.append(term)
    return telling
