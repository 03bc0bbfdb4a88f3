"""A query in the words of another store, and what two searches found as one answer."""

from __future__ import annotations

from dataclasses import replace

from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from phi3_industry.vector_stores.fusion import reciprocal_rank_fusion
from phi3_industry.vector_stores.others.dialect import StoreDialect
from phi3_industry.vector_stores.others.nodes import NODE_ID_KEY
from phi3_industry.vector_stores.search import FUSION_DEPTH, TEXT_MODES
from phi3_industry.vector_stores.similarity import prepared

__all__ = ["fused", "hybrid_arms", "translated"]


def translated(
    query: VectorStoreQuery, dialect: StoreDialect, *, dimensions: int | None
) -> VectorStoreQuery:
    """Ask for the same in a store's own words, with ids as metadata like all else.

    Args:
        query: A query by vector or by words.
        dialect: The store's ways.
        dimensions: Length of the store's vectors; ``None`` if it is not known.

    Raises:
        ValueError: The store cannot filter like that, or the vector cannot be compared.
    """
    embedding = query.query_embedding
    if embedding is not None:
        what = "The query's embedding"
        unit = prepared(embedding, metric="cosine", dimensions=dimensions, what=what)
        embedding = unit.tolist()
    filters = _all_filters(query)
    return VectorStoreQuery(
        query_embedding=embedding,
        query_str=query.query_str,
        similarity_top_k=query.similarity_top_k,
        sparse_top_k=query.similarity_top_k,
        filters=None if filters is None else dialect.filters(filters),
        mode=VectorStoreQueryMode.SPARSE if query.mode in TEXT_MODES else query.mode,
    )


def hybrid_arms(query: VectorStoreQuery) -> tuple[VectorStoreQuery, VectorStoreQuery]:
    """Part a hybrid query into one by vector and one by words."""
    depth = max(query.similarity_top_k, FUSION_DEPTH)
    return (
        replace(query, mode=VectorStoreQueryMode.DEFAULT, similarity_top_k=depth),
        replace(
            query,
            mode=VectorStoreQueryMode.SPARSE,
            similarity_top_k=query.sparse_top_k or depth,
        ),
    )


def fused(
    query: VectorStoreQuery, dense: VectorStoreQueryResult, lexical: VectorStoreQueryResult
) -> VectorStoreQueryResult:
    """Fuse what the two arms of a hybrid query found, by rank."""
    alpha = 0.5 if query.alpha is None else query.alpha
    nodes = {node.node_id: node for found in (dense, lexical) for node in found.nodes or []}
    hits = reciprocal_rank_fusion(
        [dense.ids or [], lexical.ids or []], weights=[2 * alpha, 2 * (1 - alpha)]
    )
    hits = hits[: query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k]
    return VectorStoreQueryResult(
        nodes=[nodes[node_id] for node_id, _ in hits],
        similarities=[score for _, score in hits],
        ids=[node_id for node_id, _ in hits],
    )


def _all_filters(query: VectorStoreQuery) -> MetadataFilters | None:
    ids = [
        MetadataFilter(key=key, value=list(wanted), operator=FilterOperator.IN)
        for key, wanted in (("ref_doc_id", query.doc_ids), (NODE_ID_KEY, query.node_ids))
        if wanted
    ]
    if not ids:
        return query.filters
    given = [] if query.filters is None else [query.filters]
    return MetadataFilters(filters=[*given, *ids])
