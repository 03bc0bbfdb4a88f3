from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from engine_parts import FixedRetriever, ScriptedLLM, engine, found

from phi3_industry import Phi3LLM
from phi3_industry.errors import ConfigurationError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.query_engine.provenance import trace_answer

QUESTION = "What is the discharge pressure of P-4471?"
ROWS = (
    "Tag: P-4472; Kind: pump; Discharge pressure: 31 bar",
    "Tag: P-4471; Kind: pump; Discharge pressure: 38.2 bar",
    "Tag: V-9; Kind: valve; Oil: Tovex 32",
)


class Weighing:
    """Gives one token whose log probability is the sum of what the passages add."""

    def __init__(self, base: float, **added: float) -> None:
        self.base = base
        self.added = added
        self.batches: list[int] = []

    def score(
        self, prompt: Sequence[Mapping[str, str]], continuations: Sequence[str]
    ) -> list[list[float]]:
        return self.score_batch([prompt], continuations)[0]

    def score_batch(
        self, prompts: Sequence[Sequence[Mapping[str, str]]], continuations: Sequence[str]
    ) -> list[list[list[float]]]:
        self.batches.append(len(prompts))
        totals = [
            self.base + sum(v for name, v in self.added.items() if name in prompt[-1]["content"])
            for prompt in prompts
        ]
        return [[[total / 2, total / 2] for _ in continuations] for total in totals]


def trace(llm: Weighing, *passages: str, base_llm: Weighing | None = None) -> dict[str, Any]:
    return trace_answer(
        "answer",
        question="?",
        passages=passages,
        node_ids=[f"n{number}" for number in range(len(passages))],
        prompt=DEFAULT_PROMPT,
        llm=llm,
        base_llm=base_llm,
    )


def test_each_passage_gets_the_nats_that_it_gives() -> None:
    llm = Weighing(-6.0, alpha=4.0, beta=1.0)
    traced = trace(llm, "alpha", "beta", "gamma")
    assert [part["nats"] for part in traced["passages"]] == pytest.approx([4.0, 1.0, 0.0])
    assert (traced["log_probability"], traced["without_passages"]) == (-1.0, -6.0)
    weights = math.exp(-5.0 / 2)
    assert traced["weights"]["share"] == pytest.approx(weights)
    shares = [part["share"] for part in traced["passages"]]
    assert shares == pytest.approx([0.8 * (1 - weights), 0.2 * (1 - weights), 0.0])
    assert sum(shares) + traced["weights"]["share"] == pytest.approx(1.0)
    assert llm.batches == [8]  # all, none, three without, three alone: one batch


def test_two_passages_that_say_the_same_share_what_they_give() -> None:
    class Either(Weighing):
        def score_batch(self, prompts: Any, continuations: Any) -> list[list[list[float]]]:
            return [[[-1.0 if "same" in p[-1]["content"] else -5.0]] for p in prompts]

    traced = trace(Either(0.0), "same thing", "the same")
    assert [part["nats"] for part in traced["passages"]] == pytest.approx([2.0, 2.0])


def test_the_weights_are_parted_into_base_and_adapter() -> None:
    traced = trace(Weighing(-1.0, alpha=0.5), "alpha", base_llm=Weighing(-9.0, alpha=1.0))
    weights = traced["weights"]
    assert traced["without_adapter"] == -8.0
    assert weights["share"] == pytest.approx(math.exp(-0.25))
    assert weights["base_share"] == pytest.approx(math.exp(-0.25) * math.exp(-4.0))
    assert weights["base_share"] + weights["adapter_share"] == pytest.approx(weights["share"])


def test_an_answer_without_passages_is_all_weights() -> None:
    traced = trace(Weighing(-1.0), base_llm=Weighing(-1.0))
    assert traced["passages"] == []
    assert traced["weights"] == {"share": 1.0, "base_share": 1.0, "adapter_share": 0.0}


def test_a_passage_that_hinders_has_no_share() -> None:
    traced = trace(Weighing(-3.0, bad=-2.0), "bad")
    assert traced["passages"][0]["nats"] == pytest.approx(-2.0)
    assert traced["passages"][0]["share"] == 0.0
    assert traced["weights"]["share"] == 1.0


def test_the_passage_that_holds_the_answer_gets_most(embedded_llm: Phi3LLM) -> None:
    asked = engine(
        retriever=FixedRetriever(found(*ROWS)), llm=embedded_llm, strategy="rag", provenance=True
    )
    for question, number, answer in (
        (QUESTION, 2, "[2] 38.2 bar"),
        ("What is the oil of V-9?", 3, "[3] Tovex 32"),
        ("What is the discharge pressure of P-4472?", 1, "[1] 31 bar"),
    ):
        response = asked.query(question)
        assert response.response == answer
        traced = response.metadata["provenance"]
        assert json.loads(json.dumps(traced)) == traced
        best = max(traced["passages"], key=lambda part: part["share"])
        assert (best["marker"], best["node_id"]) == (number, f"n{number}")
        assert best["share"] > 0.5
        assert best["nats"] > 1.0
        shares = [part["share"] for part in traced["passages"]]
        assert sum(shares) + traced["weights"]["share"] == pytest.approx(1.0)


def test_streams_and_abstentions_are_traced_too(embedded_llm: Phi3LLM) -> None:
    parts = {"retriever": FixedRetriever(found(*ROWS)), "llm": embedded_llm, "provenance": True}
    stream = engine(**parts, strategy="rag", streaming=True).query(QUESTION)
    str(stream)
    assert stream.metadata is not None
    assert len(stream.metadata["provenance"]["passages"]) == 3
    silent = engine(**parts).query("What is the colour of X-1?")
    assert silent.metadata["abstained"]


def test_provenance_needs_an_llm_that_scores() -> None:
    with pytest.raises(ConfigurationError, match="Provenance was asked of ScriptedLLM"):
        engine(llm=ScriptedLLM(), provenance=True)
