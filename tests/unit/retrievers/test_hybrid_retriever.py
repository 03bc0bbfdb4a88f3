"""The hybrid retriever finds by meaning and by words, and tells how."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import (
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from phi3_industry.retrievers import HybridRetriever
from phi3_industry.vector_stores import FaissSQLiteVectorStore

MEANINGS = {"fast": [1.0, 0.0, 0.0], "quick": [0.95, 0.1, 0.0], "slow": [0.0, 1.0, 0.0]}


class MeaningEmbedding(BaseEmbedding):
    """Knows a few words and counts how often it is asked."""

    asked: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.0, 0.0, 0.05]
        for word in text.lower().split():
            vector = [a + b for a, b in zip(vector, MEANINGS.get(word, [0, 0, 0]), strict=True)]
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        self.asked += 1
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        await asyncio.sleep(0)
        return self._get_query_embedding(query)


def passage(node_id: str, text: str, *, doc: str = "", **metadata: Any) -> TextNode:
    source = RelatedNodeInfo(node_id=doc or f"doc of {node_id}")
    return TextNode(
        id_=node_id,
        text=text,
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: source},
        embedding=MeaningEmbedding()._get_text_embedding(text),
    )


PASSAGES = [
    passage("meaning", "a quick fan", site="Oslo", doc="fans"),
    passage("words", "the fast P-4471 turns slow slow slow slow", site="Rome", doc="pumps"),
    passage("neither", "slow valve", site="Oslo", doc="valves"),
]


@pytest.fixture
def embed_model() -> MeaningEmbedding:
    return MeaningEmbedding()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FaissSQLiteVectorStore]:
    with FaissSQLiteVectorStore(tmp_path / "store") as opened:
        opened.add(PASSAGES)
        yield opened


@pytest.fixture(autouse=True)
def no_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving LlamaIndex's default models would ask for OpenAI's package and key."""

    def refuse(*_: Any) -> None:
        raise AssertionError("LlamaIndex's default model was asked for")

    monkeypatch.setattr(type(Settings), "llm", property(refuse))
    monkeypatch.setattr(type(Settings), "embed_model", property(refuse))


def ids(hits: list[Any]) -> list[str]:
    return [hit.node.node_id for hit in hits]


def test_both_searches_are_fused_and_told_apart(store, embed_model):
    retriever = HybridRetriever(store, embed_model=embed_model)
    found = {entry.node.node_id: entry for entry in retriever.retrieve_with_details("fast P-4471")}
    assert found["words"].lexical_rank == 1
    assert found["words"].lexical_score > 0
    assert found["meaning"].dense_rank == 1
    assert found["meaning"].dense_similarity == pytest.approx(0.99, abs=0.01)
    assert (found["meaning"].lexical_rank, found["meaning"].lexical_score) == (None, None)
    assert found["words"].searches == ("dense", "lexical")
    assert found["words"].score == pytest.approx(sum(found["words"].evidence.values()))
    # the only passage with the words has all the evidence that words can be
    weights = retriever.weights
    words = weights.lexical + weights.document_lexical
    evidence = found["words"].evidence
    assert evidence["lexical"] + evidence["document_lexical"] == pytest.approx(
        words / sum(weights.values)
    )


def test_scores_fall_and_higher_is_better(store, embed_model):
    hits = HybridRetriever(store, embed_model=embed_model).retrieve("fast P-4471")
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is float for score in scores)
    assert scores[0] > scores[-1]


async def test_sync_and_async_find_the_same_from_store_and_index(store, embed_model):
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    expected = HybridRetriever(store, embed_model=embed_model).retrieve("fast P-4471")
    for retriever in (
        HybridRetriever(store, embed_model=embed_model),
        HybridRetriever(index),
    ):
        assert ids(retriever.retrieve("fast P-4471")) == ids(expected)
        assert ids(await retriever.aretrieve("fast P-4471")) == ids(expected)


def test_a_question_is_embedded_once_or_not_at_all(store, embed_model):
    retriever = HybridRetriever(store, embed_model=embed_model)
    retriever.retrieve("fast")
    assert embed_model.asked == 1
    bundle = QueryBundle("fast", embedding=[0.0, 1.0, 0.0])
    found = retriever.retrieve_with_details(bundle)
    assert embed_model.asked == 1
    assert min(found, key=lambda entry: entry.dense_rank).node.node_id == "neither"
    words = HybridRetriever(store, weights=(0, 1))
    assert ids(words.retrieve("P-4471")) == ["words"]


async def test_a_bundle_is_not_changed(store, embed_model):
    retriever = HybridRetriever(store, embed_model=embed_model)
    bundle = QueryBundle("fast")
    retriever.retrieve(bundle)
    await retriever.aretrieve(bundle)
    assert bundle.embedding is None


def test_filters_and_documents_are_exact_in_both_searches(store, embed_model):
    oslo = MetadataFilters(filters=[MetadataFilter(key="site", value="Oslo")])
    retriever = HybridRetriever(store, embed_model=embed_model, filters=oslo)
    assert set(ids(retriever.retrieve("fast P-4471"))) == {"meaning", "neither"}
    retriever = HybridRetriever(store, embed_model=embed_model, doc_ids=["valves"])
    assert ids(retriever.retrieve("fast P-4471")) == ["neither"]
    retriever = HybridRetriever(store, embed_model=embed_model, doc_ids=[])
    assert retriever.retrieve("fast P-4471") == []


async def test_no_evidence_is_an_empty_list(tmp_path, store, embed_model):
    with FaissSQLiteVectorStore(tmp_path / "empty") as empty:
        retriever = HybridRetriever(empty, embed_model=embed_model)
        assert retriever.retrieve("anything") == []
        assert await retriever.aretrieve("anything") == []
    assert HybridRetriever(store, weights=(0, 1)).retrieve("turbine") == []
    retriever = HybridRetriever(store, embed_model=embed_model)
    for blank in ("", " \n"):
        assert retriever.retrieve(blank) == []
        assert await retriever.aretrieve(blank) == []
    assert embed_model.asked == 2


def test_a_cutoff_leaves_out_far_neighbours(store, embed_model):
    retriever = HybridRetriever(store, embed_model=embed_model, similarity_cutoff=0.9)
    assert set(ids(retriever.retrieve("fast"))) == {"meaning", "words"}
    assert retriever.retrieve("unheard of") == []


def test_no_more_nodes_of_one_source_than_its_cap(store, embed_model):
    store.add([passage(f"p{i}", f"fast pump {i}", doc="pumps") for i in range(6)])
    retriever = HybridRetriever(
        store, embed_model=embed_model, per_source_cap=2, similarity_top_k=4
    )
    sources = [hit.node.ref_doc_id for hit in retriever.retrieve("fast pump")]
    assert sources.count("pumps") == 2
    assert {"fans", "valves"} <= set(sources)


def test_the_same_text_comes_once_and_other_numbers_are_other_texts(store, embed_model):
    store.add(
        [
            passage("copy1", "Fast  pump: 38.2 bar"),
            passage("copy2", "fast pump: 38.2 ｂａｒ"),
            passage("other", "fast pump: 38.3 bar"),
            passage("other head", "fast pump: 38.2 bar", context_header="P-9"),
        ]
    )
    retriever = HybridRetriever(store, embed_model=embed_model, similarity_top_k=9)
    found = ids(retriever.retrieve("fast pump 38.2 bar"))
    assert len({"copy1", "copy2"} & set(found)) == 1
    assert {"other", "other head"} <= set(found)
    retriever = HybridRetriever(
        store, embed_model=embed_model, similarity_top_k=9, duplicate_resemblance=None
    )
    assert {"copy1", "copy2"} <= set(ids(retriever.retrieve("fast pump 38.2 bar")))


def test_a_store_without_text_search_is_searched_by_meaning_and_says_so(embed_model, caplog):
    caplog.set_level(logging.WARNING)
    index = VectorStoreIndex(
        PASSAGES, embed_model=embed_model, storage_context=None, show_progress=False
    )
    assert isinstance(index.vector_store, SimpleVectorStore)
    retriever = HybridRetriever(index)
    assert not retriever.searches_text
    assert "SimpleVectorStore offers no search by words" in caplog.text
    found = retriever.retrieve_with_details("fast")
    assert {entry.node.node_id: entry.dense_rank for entry in found}["meaning"] == 1
    assert {entry.searches for entry in found} == {("dense",)}
    assert {entry.lexical_rank for entry in found} == {None}


async def test_shared_nodes_are_not_changed(embed_model):
    index = VectorStoreIndex(PASSAGES, embed_model=embed_model)
    before = {key: node.to_json() for key, node in index.docstore.docs.items()}
    retriever = HybridRetriever(index)
    hits = retriever.retrieve("fast")
    hits[0].score = -1.0
    assert retriever.retrieve("fast")[0].score > 0
    assert (await retriever.aretrieve("fast"))[0].score > 0
    assert {key: node.to_json() for key, node in index.docstore.docs.items()} == before


def test_a_store_without_text_needs_its_index(embed_model):
    with pytest.raises(ValueError, match="SimpleVectorStore does not keep the text of nodes"):
        HybridRetriever(SimpleVectorStore(), embed_model=embed_model)


def test_a_store_alone_needs_an_embedding_model(store):
    with pytest.raises(ValueError, match=r"nothing to embed questions with\. Pass"):
        HybridRetriever(store)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity_top_k": 0}, "similarity_top_k is 0"),
        ({"candidate_count": 0}, "candidate_count is 0"),
        ({"per_source_cap": 0}, "per_source_cap is 0"),
        ({"weights": (1, -1)}, "lexical is -1; it must be a number of at least 0"),
        ({"weights": (1, 1, 1)}, "a pair of dense and lexical"),
        ({"weights": (0, 0)}, "No search would be made"),
        ({"duplicate_resemblance": 0}, "duplicate_resemblance is 0"),
    ],
)
def test_wrong_settings_are_refused(store, embed_model, settings, message):
    with pytest.raises(ValueError, match=message):
        HybridRetriever(store, embed_model=embed_model, **settings)
