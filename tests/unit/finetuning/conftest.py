"""A plant of eight pumps: its passages, a real retriever over them, and questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from phi3_industry.finetuning.dataset import TrainingSetBuilder
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.grounding.questions import Question

PUMPS = range(1, 9)


class WordRetriever(BaseRetriever):
    """Ranks nodes by the words they share with the query."""

    def __init__(self, nodes: Sequence[TextNode], *, similarity_top_k: int = 12) -> None:
        super().__init__()
        self.nodes = list(nodes)
        self.similarity_top_k = similarity_top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        words = _words(query_bundle.query_str)
        scored = [
            NodeWithScore(node=node, score=float(len(words & _words(node.get_content()))))
            for node in self.nodes
        ]
        ranked = sorted(scored, key=lambda item: -(item.score or 0.0))
        return ranked[: self.similarity_top_k]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text.casefold()))


def make_node(name: str, document: str, text: str) -> TextNode:
    """Build a node as ingestion does: a header, a source id, a document."""
    node = TextNode(
        id_=f"node-{name}",
        text=text,
        metadata={"context_header": document, "source_id": name},
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
        excluded_llm_metadata_keys=["source_id"],
        excluded_embed_metadata_keys=["source_id"],
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return node


def pressure(number: int) -> str:
    return f"{30 + number}.5 bar"


@pytest.fixture
def retriever_over() -> Callable[..., WordRetriever]:
    """Make a retriever over other nodes."""
    return WordRetriever


@pytest.fixture
def node() -> Callable[[str, str, str], TextNode]:
    """Make a node from its name, its document and its text."""
    return make_node


@pytest.fixture
def nodes() -> list[TextNode]:
    """One passage a pump, each in a document of its own."""
    return [
        make_node(
            f"pump-{n}.md#Data",
            f"pump-{n}.md",
            f"The discharge pressure of pump P-{n} is {pressure(n)}.",
        )
        for n in PUMPS
    ]


@pytest.fixture
def retriever(nodes: list[TextNode]) -> WordRetriever:
    return WordRetriever(nodes)


@pytest.fixture
def questions() -> list[Question]:
    """Eight answerable questions in a house format, and two that nothing answers."""
    answerable = [
        Question(
            id=f"q{n}",
            question=f"What is the discharge pressure of pump P-{n}?",
            answers=(pressure(n),),
            gold_ids=(f"pump-{n}.md#Data",),
            reference=f"{pressure(n)} | PDIS",
        )
        for n in PUMPS
    ]
    missing = [
        Question(id=f"u{n}", question=f"What is the net weight of pump P-{n}?", answers=())
        for n in (1, 2)
    ]
    return answerable + missing


@pytest.fixture
def train_set(retriever: WordRetriever, questions: list[Question]) -> TrainingSet:
    return TrainingSetBuilder(retriever, num_passages=(1, 2)).build(
        questions, rows_per_question=2, validation_share=0.2
    )
