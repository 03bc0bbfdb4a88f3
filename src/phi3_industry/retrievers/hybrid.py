"""A retriever that looks by meaning and by words, and fuses what it finds."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from phi3_industry.retrievers.fusion import reciprocal_rank_fusion

__all__ = ["HybridRetriever", "RetrievedNode"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetrievedNode:
    """A node that was found, and how.

    Attributes:
        node: The node, as the store gave it.
        score: The fused score, or the reranker's; higher is better. A fused score is comparable
            within one query only.
        dense_similarity: The store's similarity of the vectors; ``None`` if the search by meaning
            did not find it.
        dense_rank: Its place in the search by meaning, from 1.
        lexical_score: The store's score of the words; ``None`` if the search by words did not
            find it.
        lexical_rank: Its place in the search by words, from 1.
        searches: The searches that were made: ``("dense", "lexical")``, or fewer if the store
            offers no search by words or a weight is 0.
        fused_score: With a reranker, the score before it; ``score`` is the reranker's then.
    """

    node: BaseNode
    score: float
    dense_similarity: float | None
    dense_rank: int | None
    lexical_score: float | None
    lexical_rank: int | None
    searches: tuple[str, ...]
    fused_score: float | None = None


#: What one search has found: nodes and scores, best first.
_Found = list[tuple[BaseNode, float]]


DEFAULT_WEIGHTS = (0.5, 1.0)
"""Dense and lexical. Source: ``benchmarks/fusion_weights.py``; its table is in
``docs/benchmarks.md``. On the sets there words found more than meaning did."""


class HybridRetriever(BaseRetriever):
    """Dense and lexical search over one store, fused by reciprocal rank.

    Ranks are fused and not scores, so it works on any LlamaIndex vector store, whatever its
    scores mean. Both searches obey the filters exactly; on our own store both see one and the
    same state of it. A store that offers no search by words is searched by meaning alone, and
    each :class:`RetrievedNode` says so. It needs no LLM, asks for no package of OpenAI's, and
    changes no node.

    Over any index::

        retriever = HybridRetriever(index, similarity_top_k=5)
        retriever.retrieve("What is the rated discharge pressure of P-4471?")

    Args:
        index_or_vector_store: A ``VectorStoreIndex``, or a vector store that keeps the text.
        embed_model: What embeds the questions; that of the index if ``None``.
        similarity_top_k: The most nodes to return.
        candidate_count: Nodes that each search contributes.
        filters: Metadata filters.
        doc_ids: The only documents to look into; ``None`` for all.
        weights: How much dense and lexical ranks count. With a weight of 0 that search is not
            made.
        per_source_cap: The most nodes of one document; ``None`` for any number.
        similarity_cutoff: The least similarity of a dense hit; ``None`` takes every nearest
            neighbour, however far it is.
        reranker: Orders the best ``candidate_count`` nodes anew before the cap and the final
            choice; those that its own ``top_n`` leaves out are out. Any postprocessor of
            LlamaIndex will do: :class:`~phi3_industry.retrievers.rerank.Phi3Rerank`, or a
            cross-encoder by ``SentenceTransformerRerank(model=..., top_n=30,
            trust_remote_code=False)``, whose default would run code that a model brings.
        remove_duplicates: Leave out a node whose text, its header included, differs from that
            of a better one in nothing but case, width and spacing.
        callback_manager: LlamaIndex's.

    Raises:
        ValueError: A number is out of range, or there is nothing to embed questions with.
    """

    def __init__(
        self,
        index_or_vector_store: VectorStoreIndex | BasePydanticVectorStore,
        *,
        embed_model: BaseEmbedding | None = None,
        similarity_top_k: int = 5,
        candidate_count: int = 30,
        filters: MetadataFilters | None = None,
        doc_ids: Sequence[str] | None = None,
        weights: tuple[float, float] = DEFAULT_WEIGHTS,
        per_source_cap: int | None = None,
        similarity_cutoff: float | None = None,
        reranker: BaseNodePostprocessor | None = None,
        remove_duplicates: bool = True,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        _check_numbers(similarity_top_k, candidate_count, weights, per_source_cap)
        self._index: Any = None
        self._store: Any = index_or_vector_store
        if isinstance(index_or_vector_store, VectorStoreIndex):
            self._index = index_or_vector_store
            self._store = index_or_vector_store.vector_store
        if self._index is None and not self._store.stores_text:
            raise ValueError(
                f"{type(self._store).__name__} does not keep the text of nodes. Pass the "
                "VectorStoreIndex that it belongs to."
            )
        # the index's own attribute, and not Settings, which would ask for OpenAI's package
        self._embed_model: Any = embed_model or getattr(self._index, "_embed_model", None)
        if self._embed_model is None and weights[0] > 0:
            raise ValueError(
                "There is nothing to embed questions with. Pass embed_model=, or a "
                "VectorStoreIndex that has one."
            )
        self.similarity_top_k = similarity_top_k
        self.candidate_count = max(candidate_count, similarity_top_k)
        self.filters = filters
        self.doc_ids = None if doc_ids is None else list(doc_ids)
        self.weights = weights
        self.per_source_cap = per_source_cap
        self.similarity_cutoff = similarity_cutoff
        self.reranker = reranker
        self.remove_duplicates = remove_duplicates
        super().__init__(
            callback_manager=callback_manager,
            object_map=getattr(self._index, "_object_map", None),
        )
        if weights[1] > 0 and not self.searches_text:
            _logger.warning(
                "%s offers no search by words; the retriever searches by meaning alone.",
                type(self._store).__name__,
            )

    @property
    def searches_text(self) -> bool:
        """Whether the store offers search by words, as one says with ``supports_text_search``."""
        return bool(getattr(self._store, "supports_text_search", False))

    def retrieve_with_details(self, query: str | QueryBundle) -> list[RetrievedNode]:
        """Find nodes and tell how each was found.

        Args:
            query: A question. The embedding of a bundle that has one is used as it is.

        Returns:
            At most ``similarity_top_k`` nodes, best first; none if nothing was found.
        """
        bundle = _bundle(query)
        if not _asks(bundle):
            return []
        embedding = self._known_embedding(bundle)
        if embedding is None and self._searches("dense"):
            embedding = self._embed_model.get_agg_embedding_from_queries(bundle.embedding_strs)
        ranked = self._fuse(self._search(bundle.query_str, embedding))
        if self.reranker is not None:
            candidates = self._candidates(ranked)
            nodes = self.reranker.postprocess_nodes(_scored(candidates), query_bundle=bundle)
            ranked = _in_new_order(candidates, nodes)
        return self._select(ranked, most=self.similarity_top_k, cap=self.per_source_cap)

    async def aretrieve_with_details(self, query: str | QueryBundle) -> list[RetrievedNode]:
        """Do :meth:`retrieve_with_details` without blocking the event loop."""
        bundle = _bundle(query)
        if not _asks(bundle):
            return []
        embedding = self._known_embedding(bundle)
        if embedding is None and self._searches("dense"):
            embedding = await self._embed_model.aget_agg_embedding_from_queries(
                bundle.embedding_strs
            )
        ranked = self._fuse(await self._asearch(bundle.query_str, embedding))
        if self.reranker is not None:
            candidates = self._candidates(ranked)
            nodes = await self.reranker.apostprocess_nodes(_scored(candidates), query_bundle=bundle)
            ranked = _in_new_order(candidates, nodes)
        return self._select(ranked, most=self.similarity_top_k, cap=self.per_source_cap)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=found.node, score=found.score)
            for found in self.retrieve_with_details(query_bundle)
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=found.node, score=found.score)
            for found in await self.aretrieve_with_details(query_bundle)
        ]

    # The searches

    def _searches(self, name: str) -> bool:
        if name == "dense":
            return self.weights[0] > 0
        return self.weights[1] > 0 and self.searches_text

    def _known_embedding(self, bundle: QueryBundle) -> list[float] | None:
        return bundle.embedding if self._searches("dense") else None

    def _queries(self, text: str, embedding: list[float] | None) -> dict[str, VectorStoreQuery]:
        common: dict[str, Any] = {
            "similarity_top_k": self.candidate_count,
            "filters": self.filters,
            "doc_ids": self.doc_ids,
        }
        queries = {}
        if self._searches("dense"):
            queries["dense"] = VectorStoreQuery(query_embedding=embedding, **common)
        if self._searches("lexical"):
            queries["lexical"] = VectorStoreQuery(
                query_str=text, mode=VectorStoreQueryMode.TEXT_SEARCH, **common
            )
        return queries

    def _search(self, text: str, embedding: list[float] | None) -> dict[str, _Found]:
        if not self._store.stores_text:
            hits = self._dense_retriever().retrieve(QueryBundle(text, embedding=embedding))
            return {"dense": [(hit.node, hit.get_score()) for hit in hits]}
        queries = self._queries(text, embedding)
        if hasattr(self._store, "query_many"):
            results = self._store.query_many(list(queries.values()))
        else:
            results = [self._store.query(query) for query in queries.values()]
        return {name: _pairs(result) for name, result in zip(queries, results, strict=True)}

    async def _asearch(self, text: str, embedding: list[float] | None) -> dict[str, _Found]:
        if not self._store.stores_text:
            hits = await self._dense_retriever().aretrieve(QueryBundle(text, embedding=embedding))
            return {"dense": [(hit.node, hit.get_score()) for hit in hits]}
        queries = self._queries(text, embedding)
        if hasattr(self._store, "aquery_many"):
            results = await self._store.aquery_many(list(queries.values()))
        else:
            results = [await self._store.aquery(query) for query in queries.values()]
        return {name: _pairs(result) for name, result in zip(queries, results, strict=True)}

    def _dense_retriever(self) -> BaseRetriever:
        # the index's own retriever knows how to get the nodes from its document store
        retriever: BaseRetriever = self._index.as_retriever(
            similarity_top_k=self.candidate_count,
            filters=self.filters,
            doc_ids=self.doc_ids,
            embed_model=self._embed_model,
        )
        return retriever

    # The fusion

    def _fuse(self, found: dict[str, _Found]) -> list[RetrievedNode]:
        dense, lexical = found.get("dense", []), found.get("lexical", [])
        if self.similarity_cutoff is not None:
            dense = [hit for hit in dense if hit[1] >= self.similarity_cutoff]
        nodes = {node.node_id: node for node, _ in [*lexical, *dense]}
        places = [
            {node.node_id: (rank, score) for rank, (node, score) in enumerate(hits, start=1)}
            for hits in (dense, lexical)
        ]
        fused = reciprocal_rank_fusion([list(place) for place in places], weights=self.weights)
        details = []
        for node_id, score in fused:
            dense_rank, similarity = places[0].get(node_id, (None, None))
            lexical_rank, words = places[1].get(node_id, (None, None))
            details.append(
                RetrievedNode(
                    node=nodes[node_id],
                    score=score,
                    dense_similarity=similarity,
                    dense_rank=dense_rank,
                    lexical_score=words,
                    lexical_rank=lexical_rank,
                    searches=tuple(found),
                )
            )
        return details

    def _candidates(self, ranked: list[RetrievedNode]) -> list[RetrievedNode]:
        """Choose what the reranker looks at: the cap is for what comes out of it."""
        return self._select(ranked, most=self.candidate_count, cap=None)

    def _select(
        self, ranked: list[RetrievedNode], *, most: int, cap: int | None
    ) -> list[RetrievedNode]:
        chosen: list[RetrievedNode] = []
        texts: set[str] = set()
        sources: dict[str, int] = {}
        for entry in ranked:
            if len(chosen) == most:
                break
            text = _folded(entry.node)
            source = entry.node.ref_doc_id or entry.node.node_id
            if self.remove_duplicates and text in texts:
                continue
            if cap is not None and sources.get(source, 0) >= cap:
                continue
            texts.add(text)
            sources[source] = sources.get(source, 0) + 1
            chosen.append(entry)
        return chosen


def _bundle(query: str | QueryBundle) -> QueryBundle:
    return QueryBundle(query) if isinstance(query, str) else query


def _asks(bundle: QueryBundle) -> bool:
    return bool(bundle.query_str.strip()) or bundle.embedding is not None


def _pairs(result: Any) -> _Found:
    nodes = list(result.nodes or [])
    scores = result.similarities or [0.0] * len(nodes)
    return [(node, float(score)) for node, score in zip(nodes, scores, strict=True)]


def _scored(entries: list[RetrievedNode]) -> list[NodeWithScore]:
    return [NodeWithScore(node=entry.node, score=entry.score) for entry in entries]


def _in_new_order(
    entries: list[RetrievedNode], reranked: list[NodeWithScore]
) -> list[RetrievedNode]:
    known = {entry.node.node_id: entry for entry in entries}
    found = [(known[hit.node.node_id], hit.get_score()) for hit in reranked]
    return [replace(entry, score=float(score), fused_score=entry.score) for entry, score in found]


def _folded(node: BaseNode) -> str:
    text = node.get_content(metadata_mode=MetadataMode.LLM)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _check_numbers(
    similarity_top_k: int,
    candidate_count: int,
    weights: tuple[float, float],
    per_source_cap: int | None,
) -> None:
    numbers = {"similarity_top_k": similarity_top_k, "candidate_count": candidate_count}
    if per_source_cap is not None:
        numbers["per_source_cap"] = per_source_cap
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1.")
    if len(weights) != 2 or not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"weights is {weights}; it must be two numbers of at least 0.")
    if not any(weights):
        raise ValueError("Both weights are 0; at least one search must count.")
