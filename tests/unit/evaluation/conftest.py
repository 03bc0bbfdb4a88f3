"""A small plant, its questions, and a query engine that answers them by rule."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from llama_index.core.base.response.schema import Response
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.result import ComparisonResult
from phi3_industry.grounding.questions import Question

Reply = Callable[[Question], str]


class ScriptedEngine(CustomQueryEngine):
    """Answers with what its script says for a strategy; keeps our metadata contract."""

    script: Mapping[str, Reply]
    questions: Mapping[str, Question]
    strategy: str = "auto"
    bare: bool = False  # leave the metadata out, as an engine that is not ours does

    def with_strategy(self, strategy: str) -> "ScriptedEngine":
        if strategy not in self.script:
            raise ValueError(f"no strategy {strategy!r}")
        return self.model_copy(update={"strategy": strategy})

    def custom_query(self, query_str: str) -> Response:
        question = self.questions[query_str]
        answer = self.script[self.strategy](question)
        reads = self.strategy.startswith("rag")
        nodes = passages_of(question) if reads else []
        if self.bare:
            return Response(answer, nodes)
        cites = answer.startswith("[1]")
        metadata = {
            "strategy": self.strategy,
            "reason": f"asked for {self.strategy}",
            "abstained": "I don't know" in answer,
            "citations": [
                {"marker": 1, "node_id": nodes[0].node_id, "quote": "bar", "verified": True}
            ]
            if cites and nodes
            else [],
            "usage": {"prompt_tokens": 90 if reads else 12, "completion_tokens": 6},
            "model": "scripted",
            "adapter": "pumps" if "fine_tuned" in self.strategy else None,
        }
        return Response(answer, nodes, metadata)


def passage(key: str, text: str) -> TextNode:
    return TextNode(
        id_=f"node-{key}",
        text=text,
        metadata={"source_id": f"pumps.csv#{key}", "context_header": "Pumps"},
        metadata_template="{value}",
        excluded_llm_metadata_keys=["source_id"],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="pumps.csv")},
    )


def passages_of(question: Question) -> list[NodeWithScore]:
    key = str(question.metadata["key"])
    value = question.answers[0] if question.answers else "9 bar"
    nodes = [passage(key, f"Pump {key}: pressure {value}"), passage("P-0", "Pump P-0: 1 bar")]
    return [NodeWithScore(node=node, score=1.0 / rank) for rank, node in enumerate(nodes, start=1)]


def make_questions(count: int, *, unanswerable: int = 0) -> list[Question]:
    return [
        Question(
            id=f"q{number}",
            question=f"What is the pressure of P-{number}?",
            answers=(f"{number}.5 bar",) if number <= count else (),
            gold_ids=(f"pumps.csv#P-{number}",) if number <= count else (),
            reference=f"{number}.5 bar | PDIS" if number <= count else None,
            metadata={"key": f"P-{number}"},
        )
        for number in range(1, count + unanswerable + 1)
    ]


def abstain(question: Question) -> str:
    return "[0] I don't know."


def value_only(question: Question) -> str:
    return f"[1] {question.answers[0]}" if question.answers else abstain(question)


def house(question: Question) -> str:
    return f"[1] {question.reference}" if question.answers else abstain(question)


def habit(question: Question) -> str:
    return "7 bar | PDIS"


SCRIPT: Mapping[str, Reply] = {
    "base": abstain,
    "rag": value_only,
    "fine_tuned": habit,
    "rag_fine_tuned": house,
    "auto": house,
}


@pytest.fixture
def scripted() -> Callable[..., ScriptedEngine]:
    def build(
        questions: list[Question], script: Mapping[str, Reply] | None = None, **settings: Any
    ) -> ScriptedEngine:
        return ScriptedEngine(
            script={**SCRIPT, **(script or {})},
            questions={question.question: question for question in questions},
            **settings,
        )

    return build


@pytest.fixture
def compared(scripted: Callable[..., ScriptedEngine]) -> Callable[..., ComparisonResult]:
    """Compare on generated questions with some of the four replies replaced."""

    def run(
        count: int = 40, *, unanswerable: int = 0, script: Mapping[str, Reply] | None = None
    ) -> ComparisonResult:
        questions = make_questions(count, unanswerable=unanswerable)
        engine = scripted(questions, script)
        return compare_strategies(engine, questions=questions, show_progress=False)

    return run


@pytest.fixture
def questions() -> Callable[..., list[Question]]:
    return make_questions


@pytest.fixture
def replies() -> Mapping[str, Reply]:
    return {"abstain": abstain, "value_only": value_only, "house": house, "habit": habit}
