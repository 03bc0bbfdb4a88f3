"""A retriever that looks by meaning and by words, and weighs what speaks for each passage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any, Protocol

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from phi3_industry.retrievers.candidates import (
    Candidates,
    Found,
    document_of,
    gather,
    missing,
    names_of,
    text_of,
)
from phi3_industry.retrievers.corpus import corpus_nodes
from phi3_industry.retrievers.fitting import FitReport, Judged, fit_weights
from phi3_industry.retrievers.near_duplicates import Fingerprint, fingerprint, resemblance
from phi3_industry.retrievers.self_questions import self_questions
from phi3_industry.retrievers.weights import DEFAULT_WEIGHTS, FusionWeights

__all__ = ["HybridRetriever", "LabelledQuestion", "RetrievedNode"]

_logger = logging.getLogger(__name__)

# What stores of LlamaIndex call the switch of their hybrid mode: Qdrant, Milvus, pgvector.
_HYBRID_SWITCHES = ("enable_hybrid", "enable_sparse", "hybrid_search")
_WEIGHT_NAMES = tuple(field.name for field in fields(FusionWeights))


class LabelledQuestion(Protocol):
    """A question and the ids of the passages that answer it, as in a questions file."""

    @property
    def question(self) -> str:
        """Its text."""

    @property
    def gold_ids(self) -> Sequence[str]:
        """Node ids, ``source_id`` values or document ids."""


@dataclass(frozen=True, kw_only=True)
class RetrievedNode:
    """A node that was found, and how.

    Attributes:
        node: The node, as the store gave it.
        score: The weighted mean of the evidence, or the reranker's score; higher is better. The
            mean is comparable within one query only.
        dense_similarity: The store's similarity of the vectors; ``None`` if it is not known.
        dense_rank: Its place in the search by meaning, from 1; ``None`` if that did not find it.
        lexical_score: The store's score of the words; ``None`` if it has none of them, or the
            search by words did not find it and the store was not asked again.
        lexical_rank: Its place in the search by words, from 1.
        searches: The searches that were made: ``("dense", "lexical")``, or fewer if the store
            offers no search by words or the weights need none.
        evidence: What each kind of evidence adds to the mean, by the names of the weights.
        fused_score: With a reranker, the score before it; ``score`` is the reranker's then.
    """

    node: BaseNode
    score: float
    dense_similarity: float | None
    dense_rank: int | None
    lexical_score: float | None
    lexical_rank: int | None
    searches: tuple[str, ...]
    evidence: Mapping[str, float]
    fused_score: float | None = None


class HybridRetriever(BaseRetriever):
    """Dense and lexical search over one store, weighed by what finds answers in it.

    Each search brings candidates, and a weighted sum of evidence puts them in order: nearness of
    meaning, words, pieces of words, and what was found of the same document. How it is computed
    stands in :mod:`phi3_industry.retrievers.evidence`. No fixed weights are good everywhere, so
    that they can be fitted: to questions with known passages, or to the corpus alone.

    It works on any LlamaIndex vector store. Both searches obey the filters exactly; on our own
    store each round of searches sees one state of it. Where a store has a hybrid mode of its own
    (Qdrant, Milvus, pgvector), the sparse side of that is the search by words. A store without
    one is searched by meaning alone, and each :class:`RetrievedNode` says so; pieces of words
    then still help to order what was found. It needs no LLM, asks for no package of OpenAI's,
    and changes no node.

    Over any index::

        retriever = HybridRetriever(index, similarity_top_k=5)
        print(retriever.fit(questions))          # or retriever.fit(), where there are none
        retriever.weights.save("kb/fusion.json") # HybridRetriever(..., weights="kb/fusion.json")
        retriever.retrieve("What is the rated discharge pressure of P-4471?")

    Args:
        index_or_vector_store: A ``VectorStoreIndex``, or a vector store that keeps the text.
        embed_model: What embeds the questions; that of the index if ``None``.
        similarity_top_k: The most nodes to return.
        candidate_count: Nodes that each search contributes.
        filters: Metadata filters.
        doc_ids: The only documents to look into; ``None`` for all.
        weights: How much each kind of evidence counts, or the file that it was saved to. Dense
            and lexical weights alone may be given as a pair.
        per_source_cap: The most nodes of one document; ``None`` for any number.
        similarity_cutoff: The least similarity of a dense hit; ``None`` takes every nearest
            neighbour, however far it is.
        reranker: Orders the best ``candidate_count`` nodes anew before the cap and the final
            choice; those that its own ``top_n`` leaves out are out. Any postprocessor of
            LlamaIndex will do: :class:`~phi3_industry.retrievers.rerank.Phi3Rerank`, or a
            cross-encoder by ``SentenceTransformerRerank(model=..., top_n=30,
            trust_remote_code=False)``, whose default would run code that a model brings.
        duplicate_resemblance: Leave out a node that resembles a better one this much, from 0 to
            1, headers included: 1 where nothing but case, width and spacing differ, at the
            default a word in about sixty. Texts that differ in a number or code are never left
            out. ``None`` keeps all.
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
        candidate_count: int = 50,
        filters: MetadataFilters | None = None,
        doc_ids: Sequence[str] | None = None,
        weights: FusionWeights | tuple[float, float] | str | PathLike[str] = DEFAULT_WEIGHTS,
        per_source_cap: int | None = None,
        similarity_cutoff: float | None = None,
        reranker: BaseNodePostprocessor | None = None,
        duplicate_resemblance: float | None = 0.9,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        _check_numbers(similarity_top_k, candidate_count, duplicate_resemblance, per_source_cap)
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
        self.weights = _weights(weights)
        # the index's own attribute, and not Settings, which would ask for OpenAI's package
        self._embed_model: Any = embed_model or getattr(self._index, "_embed_model", None)
        if self._embed_model is None and "dense" in self.weights.searches:
            raise ValueError(
                "There is nothing to embed questions with. Pass embed_model=, or a "
                "VectorStoreIndex that has one."
            )
        self.similarity_top_k = similarity_top_k
        self.candidate_count = max(candidate_count, similarity_top_k)
        self.filters = filters
        self.doc_ids = None if doc_ids is None else list(doc_ids)
        self.per_source_cap = per_source_cap
        self.similarity_cutoff = similarity_cutoff
        self.reranker = reranker
        self.duplicate_resemblance = duplicate_resemblance
        super().__init__(
            callback_manager=callback_manager,
            object_map=getattr(self._index, "_object_map", None),
        )
        if "lexical" in self.weights.searches and not self.searches_text:
            _logger.warning(
                "%s offers no search by words; the retriever searches by meaning alone.",
                type(self._store).__name__,
            )

    @property
    def searches_text(self) -> bool:
        """Whether the store offers search by words.

        A store says so with ``supports_text_search``, or has its hybrid mode switched on.
        """
        return self._text_mode is not None

    def fit(
        self,
        questions: Iterable[LabelledQuestion | tuple[str, Sequence[str]]] | None = None,
        *,
        nodes: Sequence[BaseNode] | None = None,
        most: int = 400,
        seed: int = 0,
    ) -> FitReport:
        """Fit the weights to questions, or to the corpus alone.

        Args:
            questions: Questions with the passages that answer them: those of
                ``load_questions("questions.train.jsonl")``, or pairs of a text and ids of nodes,
                sources or documents. Those without ids are passed over. If ``None``, the corpus
                asks itself, as :mod:`phi3_industry.retrievers.self_questions` says.
            nodes: Without questions, the passages to make them of; those of the store or index
                if ``None``.
            most: The most questions to look at; of more, this many are drawn.
            seed: Draws questions and the folds of the cross-validation.

        Returns:
            What was found. If too few questions can tell, the weights stay as they are.
        """
        if questions is None:
            passages = corpus_nodes(self._store, self._index, most=most, seed=seed)
            drawn = self_questions(passages if nodes is None else nodes, most=most, seed=seed)
            judged = [self._judge(q.text, q.others, without=q.node_id) for q in drawn]
            free = [name in ("dense", "lexical") for name in _WEIGHT_NAMES]
        else:
            pairs = _labelled(questions)
            order = np.random.default_rng(seed).permutation(len(pairs))[:most]
            judged = [self._judge(*pairs[place]) for place in sorted(order)]
            free = [True] * len(_WEIGHT_NAMES)
        report = fit_weights(
            judged,
            self.weights,
            source="corpus" if questions is None else "questions",
            free=free,
            seed=seed,
        )
        self.weights = report.weights
        return report

    def _judge(self, text: str, gold_ids: Iterable[str], *, without: str | None = None) -> Judged:
        bundle, gold = QueryBundle(text), frozenset(gold_ids)
        embedding = None
        if self._searches("dense"):
            embedding = self._embed_model.get_agg_embedding_from_queries(bundle.embedding_strs)
        candidates = self._find(text, embedding)
        if without is not None:
            candidates = candidates.without(without)
        right = np.array([bool(names_of(node) & gold) for node in candidates.nodes], dtype=bool)
        # an id of a document means each of its passages
        return Judged(candidates.evidence(text), right, max(1, len(gold), int(right.sum())))

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
        ranked = self._rank(bundle.query_str, self._find(bundle.query_str, embedding))
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
        ranked = self._rank(bundle.query_str, await self._afind(bundle.query_str, embedding))
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

    @property
    def _text_mode(self) -> VectorStoreQueryMode | None:
        if getattr(self._store, "supports_text_search", False):
            return VectorStoreQueryMode.TEXT_SEARCH
        if any(getattr(self._store, switch, False) is True for switch in _HYBRID_SWITCHES):
            return VectorStoreQueryMode.SPARSE
        return None

    def _searches(self, name: str) -> bool:
        return name in self.weights.searches and (name == "dense" or self.searches_text)

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
                query_str=text,
                query_embedding=embedding,
                sparse_top_k=self.candidate_count,
                mode=self._text_mode or VectorStoreQueryMode.TEXT_SEARCH,
                **common,
            )
        return queries

    def _completing(
        self, queries: Mapping[str, VectorStoreQuery], found: Mapping[str, Found]
    ) -> dict[str, VectorStoreQuery]:
        """Ask each search about what only the other one found, of a store that can be asked."""
        if not hasattr(self._store, "query_many"):
            return {}
        return {
            name: replace(queries[name], node_ids=ids, similarity_top_k=len(ids))
            for name, ids in missing(found).items()
        }

    def _find(self, text: str, embedding: list[float] | None) -> Candidates:
        if not self._store.stores_text:
            hits = self._dense_retriever().retrieve(QueryBundle(text, embedding=embedding))
            return self._joined({"dense": [(hit.node, hit.get_score()) for hit in hits]}, {})
        queries = self._queries(text, embedding)
        found = self._near(self._ask(queries))
        return self._joined(found, self._ask(self._completing(queries, found)))

    async def _afind(self, text: str, embedding: list[float] | None) -> Candidates:
        if not self._store.stores_text:
            hits = await self._dense_retriever().aretrieve(QueryBundle(text, embedding=embedding))
            return self._joined({"dense": [(hit.node, hit.get_score()) for hit in hits]}, {})
        queries = self._queries(text, embedding)
        found = self._near(await self._aask(queries))
        return self._joined(found, await self._aask(self._completing(queries, found)))

    def _ask(self, queries: Mapping[str, VectorStoreQuery]) -> dict[str, Found]:
        if queries and hasattr(self._store, "query_many"):
            results = self._store.query_many(list(queries.values()))
        else:
            results = [self._store.query(query) for query in queries.values()]
        return {name: _pairs(result) for name, result in zip(queries, results, strict=True)}

    async def _aask(self, queries: Mapping[str, VectorStoreQuery]) -> dict[str, Found]:
        if queries and hasattr(self._store, "aquery_many"):
            results = await self._store.aquery_many(list(queries.values()))
        else:
            results = [await self._store.aquery(query) for query in queries.values()]
        return {name: _pairs(result) for name, result in zip(queries, results, strict=True)}

    def _near(self, found: dict[str, Found]) -> dict[str, Found]:
        if self.similarity_cutoff is None or "dense" not in found:
            return found
        near = [hit for hit in found["dense"] if hit[1] >= self.similarity_cutoff]
        return {**found, "dense": near}

    def _joined(self, found: dict[str, Found], completed: dict[str, Found]) -> Candidates:
        return gather(self._near(found), completed, depth=self.candidate_count)

    def _dense_retriever(self) -> BaseRetriever:
        # the index's own retriever knows how to get the nodes from its document store
        retriever: BaseRetriever = self._index.as_retriever(
            similarity_top_k=self.candidate_count,
            filters=self.filters,
            doc_ids=self.doc_ids,
            embed_model=self._embed_model,
        )
        return retriever

    # The order

    def _rank(self, text: str, candidates: Candidates) -> list[RetrievedNode]:
        weights = np.array(self.weights.values)
        shares = candidates.evidence(text) * (weights / weights.sum())
        ranked = []
        for place in np.argsort(-shares.sum(axis=1), kind="stable"):
            node = candidates.nodes[place]
            known = {name: candidates.scores.get(name, {}) for name in ("dense", "lexical")}
            ranks = {name: candidates.ranks.get(name, {}) for name in ("dense", "lexical")}
            ranked.append(
                RetrievedNode(
                    node=node,
                    score=float(shares[place].sum()),
                    dense_similarity=known["dense"].get(node.node_id),
                    dense_rank=ranks["dense"].get(node.node_id),
                    lexical_score=known["lexical"].get(node.node_id),
                    lexical_rank=ranks["lexical"].get(node.node_id),
                    searches=tuple(candidates.scores),
                    evidence=dict(zip(_WEIGHT_NAMES, shares[place].tolist(), strict=True)),
                )
            )
        return ranked

    def _candidates(self, ranked: list[RetrievedNode]) -> list[RetrievedNode]:
        """Choose what the reranker looks at: the cap is for what comes out of it."""
        return self._select(ranked, most=self.candidate_count, cap=None)

    def _select(
        self, ranked: list[RetrievedNode], *, most: int, cap: int | None
    ) -> list[RetrievedNode]:
        chosen: list[RetrievedNode] = []
        seen: list[Fingerprint] = []
        sources: dict[str, int] = {}
        for entry in ranked:
            if len(chosen) == most:
                break
            source = document_of(entry.node)
            if cap is not None and sources.get(source, 0) >= cap:
                continue
            if self.duplicate_resemblance is not None:
                own = fingerprint(text_of(entry.node))
                if any(resemblance(own, other) >= self.duplicate_resemblance for other in seen):
                    continue
                seen.append(own)
            sources[source] = sources.get(source, 0) + 1
            chosen.append(entry)
        return chosen


def _bundle(query: str | QueryBundle) -> QueryBundle:
    return QueryBundle(query) if isinstance(query, str) else query


def _asks(bundle: QueryBundle) -> bool:
    return bool(bundle.query_str.strip()) or bundle.embedding is not None


def _pairs(result: Any) -> Found:
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


def _weights(
    given: FusionWeights | tuple[float, float] | str | PathLike[str],
) -> FusionWeights:
    if isinstance(given, FusionWeights):
        return given
    if isinstance(given, tuple):
        if len(given) != 2:
            raise ValueError(f"weights is {given}; a pair of dense and lexical, or FusionWeights.")
        return FusionWeights(dense=given[0], lexical=given[1])
    return FusionWeights.load(given)


def _labelled(
    questions: Iterable[LabelledQuestion | tuple[str, Sequence[str]]],
) -> list[tuple[str, Sequence[str]]]:
    pairs = [
        given if isinstance(given, tuple) else (given.question, given.gold_ids)
        for given in questions
    ]
    return [(text, gold_ids) for text, gold_ids in pairs if gold_ids]


def _check_numbers(
    similarity_top_k: int,
    candidate_count: int,
    duplicate_resemblance: float | None,
    per_source_cap: int | None,
) -> None:
    numbers = {"similarity_top_k": similarity_top_k, "candidate_count": candidate_count}
    if per_source_cap is not None:
        numbers["per_source_cap"] = per_source_cap
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1.")
    if duplicate_resemblance is not None and not 0 < duplicate_resemblance <= 1:
        raise ValueError(
            f"duplicate_resemblance is {duplicate_resemblance}; it must be above 0 and at most 1."
        )
