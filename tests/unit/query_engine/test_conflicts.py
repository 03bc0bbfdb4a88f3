"""Passages that answer a question differently."""

from __future__ import annotations

import re
from typing import Any

import pytest
from engine_parts import QUESTION, FixedRetriever, ScriptedLLM, engine, found
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import NodeWithScore, TextNode

from phi3_industry.grounding.citations import renumber


class FirstReader(ScriptedLLM):
    """Answers from the first passage that names a pressure of P-4471."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        said = re.search(r"^\[(\d)\] .*P-4471.* is (.*)\.$", prompt, re.MULTILINE)
        text = f"[{said[1]}] {said[2]}" if said else "[0] I don't know."
        return CompletionResponse(text=text, raw={"usage": {"prompt_tokens": 10}})


def says(pressure: str, name: str = "n", **metadata: Any) -> NodeWithScore:
    text = f"The pressure of P-4471 is {pressure}."
    node = TextNode(id_=name, text=text, metadata=metadata, excluded_llm_metadata_keys=[*metadata])
    return NodeWithScore(node=node, score=0.5)


OTHER = NodeWithScore(node=TextNode(id_="b", text="The pressure of P-9 is 7 bar."), score=0.4)
DIFFERENT = [says("36 bar", "a"), OTHER, says("38.2 bar", "c")]


def ask(nodes: list[NodeWithScore], **settings: Any) -> tuple[Any, FirstReader]:
    llm = FirstReader(prompts=[])
    asked = engine(llm=llm, retriever=FixedRetriever(nodes), strategy="rag", **settings)
    return asked.query(QUESTION), llm


def test_conflicts_are_not_looked_for_unless_asked() -> None:
    response, llm = ask(DIFFERENT)
    assert str(response) == "[1] 36 bar"
    assert len(llm.prompts) == 1
    assert "conflict" not in response.metadata


@pytest.mark.parametrize(
    ("conflicts", "answer"),
    [
        ("mark", "[1] 36 bar"),
        ("show", "[1] 36 bar\n[3] 38.2 bar"),
        ("abstain", "[0] I don't know."),
    ],
)
def test_passages_that_answer_differently_are_said_and_cited(conflicts: str, answer: str) -> None:
    response, llm = ask(DIFFERENT, conflicts=conflicts)
    assert str(response) == answer
    assert response.metadata["abstained"] is (conflicts == "abstain")
    first, second = response.metadata["conflict"]
    assert (first["answer"], second["answer"]) == ("[1] 36 bar", "[3] 38.2 bar")
    assert first["citations"][0]["node_id"] == "a"
    assert second["citations"] == [
        {"marker": 3, "node_id": "c", "quote": "38.2 bar", "verified": True}
    ]
    assert response.metadata["reason"].endswith(
        "The passages answer differently: 36 bar by passage 1, 38.2 bar by passage 3."
    )
    assert "36 bar" not in llm.prompts[1]
    assert response.metadata["usage"]["prompt_tokens"] == 20
    assert len(response.metadata["citations"]) == (1 if conflicts == "mark" else 2)


@pytest.mark.parametrize(
    "nodes",
    [
        [says("36 bar", "a"), says("36 bar", "c")],
        [says("36 bar", "a"), OTHER],
        [says("36 bar", "a"), says("36 bar at 20 °C", "c")],
        [says("36 bar (2021)", "a"), says("36 bar", "c")],
    ],
    ids=["the same", "another thing", "more of it", "less of it"],
)
def test_what_does_not_contradict_is_no_conflict(nodes: list[NodeWithScore]) -> None:
    response, _ = ask(nodes, conflicts="show")
    assert str(response).startswith("[1] 36 bar")
    assert "\n" not in str(response)
    assert "conflict" not in response.metadata


def test_the_model_is_not_asked_again_where_nothing_is_left() -> None:
    response, llm = ask([says("36 bar", "a"), says("36 bar", "c")], conflicts="show")
    assert len(llm.prompts) == 1
    response, llm = ask([OTHER], conflicts="show")
    assert response.metadata["abstained"]
    assert len(llm.prompts) == 1


@pytest.mark.parametrize(
    ("first", "second", "preferred"),
    [
        ({"date": "2021-03-01"}, {"date": "2024-05-31"}, "38.2 bar"),
        ({"date": "2024-05-31"}, {"date": "2021-03-01"}, "36 bar"),
        ({}, {"date": "2024-05-31"}, "36 bar"),
        ({"date": "2024-05-31", "trust": 0}, {"date": "2021-03-01", "trust": 1}, "38.2 bar"),
        ({"date": "2021-03-01", "trust": 1}, {"date": "2024-05-31"}, "36 bar"),
    ],
    ids=["newer", "older", "no date", "trusted", "less trusted"],
)
def test_the_more_trusted_then_the_newer_document_comes_first(
    first: dict[str, Any], second: dict[str, Any], preferred: str
) -> None:
    nodes = [says("36 bar", "a", **first), says("38.2 bar", "c", **second)]
    response, _ = ask(nodes, conflicts="mark")
    assert str(response).endswith(preferred)
    assert len(response.metadata["conflict"]) == 2


@pytest.mark.parametrize("streaming", [False, True])
async def test_asynchronous_answers_are_compared_too(streaming: bool) -> None:
    asked = engine(
        llm=FirstReader(answer="[1] 36 bar", prompts=[]),  # what it streams
        retriever=FixedRetriever(DIFFERENT),
        strategy="rag",
        streaming=streaming,
        conflicts="show",
    )
    response = await asked.aquery(QUESTION)
    if streaming:
        assert "".join([piece async for piece in response.response_gen])
    answer = response.metadata["answer"] if streaming else str(response)
    assert answer == "[1] 36 bar\n[3] 38.2 bar"


def test_a_sentence_is_compared_as_a_whole() -> None:
    """What two sentences share beside their numbers does not make them agree."""
    llm = ScriptedLLM(answer="[1] The discharge pressure is 36 bar.", prompts=[])
    nodes = found("The discharge pressure is 36 bar.", "The discharge pressure is 38 bar.")
    asked = engine(llm=llm, retriever=FixedRetriever(nodes), strategy="rag", conflicts="mark")
    asked.query(QUESTION)
    assert len(llm.prompts) == 2
    assert "36 bar" not in llm.prompts[1]


def test_no_other_way_is_known() -> None:
    with pytest.raises(ValueError, match="one of ignore, mark, show, abstain"):
        engine(conflicts="vote")


def test_renumbering_leaves_zero_and_unknown_numbers() -> None:
    assert renumber("[0] a [1] b [2] c [9] d", [3, 1]) == "[0] a [3] b [1] c [9] d"
