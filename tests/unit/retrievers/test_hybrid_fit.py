"""The retriever fits its weights, and uses the hybrid mode of other stores."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from phi3_industry.retrievers import FusionWeights, HybridRetriever
from phi3_industry.vector_stores import FaissSQLiteVectorStore

TOPICS = 26


class TopicEmbedding(BaseEmbedding):
    """Knows a topic by the letters, in any order, of the word after ``about`` or ``concerning``."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.01] * TOPICS
        words = text.split()
        for place, word in enumerate(words[:-1]):
            if word in ("about", "concerning"):
                vector[sum(map(ord, words[place + 1])) % TOPICS] += 1.0
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@dataclass
class Labelled:
    question: str
    gold_ids: tuple[str, ...]


def name(topic: int, turn: int = 0) -> str:
    """Give one of a topic's names, which share their letters and no piece of four."""
    letters = "topica" + chr(97 + topic)
    return (letters, letters[::-1], letters[::2] + letters[1::2], letters[1::2] + letters[::2])[
        turn
    ]


def corpus() -> list[TextNode]:
    """Passages by topic; the filler words of a question stand in passages of other topics."""
    draw = random.Random(0)
    nodes = []
    for topic in range(TOPICS):
        for part in range(3):
            filler = " ".join(draw.choices(["valve", "motor", "shaft", "gasket", "rotor"], k=6))
            nodes.append(
                TextNode(
                    id_=f"{topic}.{part}",
                    text=f"text about {name(topic, part)} with {filler} {part}",
                    metadata={"half": topic % 2, "source_id": f"sheet#{topic}.{part}"},
                    excluded_embed_metadata_keys=["half", "source_id"],
                    excluded_llm_metadata_keys=["half", "source_id"],
                    relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"d{topic}")},
                )
            )
    embed = TopicEmbedding()
    for node in nodes:
        node.embedding = embed.get_text_embedding(node.text)
    return nodes


QUESTIONS = [
    Labelled(f"motor shaft gasket rotor concerning {name(topic, 3)}", (f"d{topic}",))
    for topic in range(TOPICS)
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FaissSQLiteVectorStore]:
    with FaissSQLiteVectorStore(tmp_path / "store") as opened:
        opened.add(corpus())
        yield opened


def first_right(retriever: HybridRetriever) -> float:
    found = [(retriever.retrieve(q.question)[0].node.ref_doc_id, q.gold_ids) for q in QUESTIONS]
    return sum(document in gold for document, gold in found) / len(found)


@pytest.fixture
def misled(store) -> HybridRetriever:
    """A retriever that trusts words although the questions' words are everywhere."""
    weights = FusionWeights(dense=0.01, lexical=1, letters=1)
    return HybridRetriever(store, embed_model=TopicEmbedding(), weights=weights)


def test_labelled_questions_teach_what_finds_their_passages(misled):
    report = misled.fit(QUESTIONS)
    assert report.adopted, report
    assert (report.source, report.questions, report.usable) == ("questions", TOPICS, TOPICS)
    assert misled.weights == report.weights
    assert report.gain_low > 0
    assert first_right(misled) == 1.0
    assert report.weights.dense > 10 * 0.01 * report.weights.lexical


def test_pairs_and_source_ids_serve_as_well_and_unlabelled_questions_are_passed_over(store):
    def fitted(questions: Any) -> Any:
        weights = FusionWeights(dense=0.01, lexical=1, letters=1)
        retriever = HybridRetriever(store, embed_model=TopicEmbedding(), weights=weights)
        return retriever.fit(questions).weights

    pairs = [(q.question, q.gold_ids) for q in QUESTIONS]
    assert fitted([*pairs, ("motor", ())]) == fitted(QUESTIONS)
    sources = [(f"valve about {name(t, 3)}", (f"sheet#{t}.1",)) for t in range(TOPICS)]
    assert fitted(sources) is not None


def test_the_corpus_alone_teaches_it_as_well(misled):
    report = misled.fit(seed=3)
    assert report.source == "corpus"
    assert report.questions == 3 * TOPICS
    assert report.adopted, report
    assert report.weights.dense > 10 * 0.01 * report.weights.lexical


def test_no_questions_and_lone_passages_change_nothing(store, misled):
    weights = misled.weights
    assert not misled.fit([]).adopted
    assert not misled.fit(QUESTIONS[:5]).adopted
    lone = TextNode(id_="lone", text="alone " * 9)
    assert "usable questions to tell" in misled.fit(nodes=[lone]).reason
    assert misled.weights == weights


def test_weights_are_loaded_from_where_they_were_saved(store, misled, tmp_path):
    misled.fit(QUESTIONS)
    misled.weights.save(tmp_path / "fusion.json")
    again = HybridRetriever(store, embed_model=TopicEmbedding(), weights=tmp_path / "fusion.json")
    assert again.weights == misled.weights
    assert first_right(again) == first_right(misled)


def test_an_index_of_llamaindex_is_fitted_over_its_document_store():
    index = VectorStoreIndex(corpus(), embed_model=TopicEmbedding())
    assert isinstance(index.vector_store, SimpleVectorStore)
    retriever = HybridRetriever(index, weights=FusionWeights(dense=0.01, letters=1))
    assert retriever.fit(QUESTIONS).adopted
    assert retriever.fit().questions == 3 * TOPICS


def test_a_document_s_other_passages_lift_a_passage_by_their_weight(store):
    store.add(
        [
            TextNode(
                id_=f"{doc}{n}",
                text=text,
                embedding=[1.0] + [0.0] * (TOPICS - 1),
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)},
            )
            for doc, texts in {
                "acme": ["zebra contract of the Acme company", "termination clause"],
                "beta": ["okapi contract of the Beta company", "termination clause too"],
            }.items()
            for n, text in enumerate(texts)
        ]
    )

    def order(weights: FusionWeights, question: str) -> list[str]:
        retriever = HybridRetriever(
            store, embed_model=TopicEmbedding(), weights=weights, similarity_top_k=9
        )
        found = [hit.node.node_id for hit in retriever.retrieve(question)]
        return [node_id for node_id in found if node_id in ("acme1", "beta1")]

    question = "termination clause of the {} contract of the {} company"
    acme, beta = question.format("zebra", "Acme"), question.format("okapi", "Beta")
    words, documents = (FusionWeights(lexical=1, document_lexical=w) for w in (0, 1))
    assert order(words, acme) == order(words, beta) == ["acme1", "beta1"]
    assert order(documents, acme) == ["acme1", "beta1"]
    assert order(documents, beta) == ["beta1", "acme1"]


class HybridStore:
    """Stands for a store of LlamaIndex whose hybrid mode is switched on."""

    stores_text = True
    enable_hybrid = True

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.nodes = {node.node_id: node for node in corpus()}

    def query(self, query: Any, **_: Any) -> VectorStoreQueryResult:
        self.asked.append(query)
        chosen = ["0.0", "1.0"] if query.mode == VectorStoreQueryMode.DEFAULT else ["2.0"]
        nodes = [self.nodes[node_id] for node_id in chosen]
        return VectorStoreQueryResult(nodes=nodes, similarities=[0.9, 0.1][: len(nodes)])

    async def aquery(self, query: Any, **_: Any) -> VectorStoreQueryResult:
        return self.query(query)


async def test_the_sparse_side_of_a_store_s_own_hybrid_mode_is_the_search_by_words():
    store = HybridStore()
    filters = MetadataFilters(filters=[MetadataFilter(key="half", value=0)])
    retriever = HybridRetriever(
        store,  # type: ignore[arg-type]
        embed_model=TopicEmbedding(),
        filters=filters,
        weights=(1, 2),
    )
    found = retriever.retrieve_with_details("motor about topicab")
    assert [entry.node.node_id for entry in found] == ["2.0", "0.0", "1.0"]
    assert {entry.searches for entry in found} == {("dense", "lexical")}
    assert [query.mode for query in store.asked] == ["default", "sparse"]
    assert all(query.filters is filters for query in store.asked)
    assert await retriever.aretrieve_with_details("motor about topicab") == found
    store.enable_hybrid = False
    assert not retriever.searches_text


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_qdrant_s_hybrid_mode_is_used_with_its_filters():
    import qdrant_client
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    nodes = [
        node.model_copy(update={"id_": str(uuid.UUID(int=n))}) for n, node in enumerate(corpus())
    ]
    words = sorted({word for node in nodes for word in node.text.split()})

    def sparse(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        known = [[words.index(word) for word in {*text.split()} & {*words}] for text in texts]
        return known, [[1.0] * len(places) for places in known]

    store = QdrantVectorStore(
        "passages",
        client=qdrant_client.QdrantClient(":memory:"),
        enable_hybrid=True,
        sparse_doc_fn=sparse,
        sparse_query_fn=sparse,
    )
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, embed_model=TopicEmbedding(), storage_context=context)
    filters = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
    retriever = HybridRetriever(index, filters=filters, weights=(1, 2))
    found = retriever.retrieve_with_details(f"{name(7, 1)} gasket")
    assert found[0].node.ref_doc_id == "d7"
    assert found[0].lexical_rank == 1
    assert {entry.node.metadata["half"] for entry in found} == {1}
