"""A judge reads the answers: any LlamaIndex evaluator."""

import asyncio
import json
import re

import pytest
from llama_index.core.evaluation import (
    BaseEvaluator,
    CorrectnessEvaluator,
    EvaluationResult,
    PairwiseComparisonEvaluator,
)
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.compare import compare_strategies


class JudgeLLM(CustomLLM):
    """Likes answers with the house's code; of two it takes the first, or as it is told."""

    prefers_first: bool = False
    asked: list[str] = []

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="judge-1")

    def complete(self, prompt, formatted=False, **settings):
        self.asked.append(prompt)
        if "[[A]]" in prompt:
            first, second = re.findall(r"Start of Assistant [AB].s Answer\](.*?)\[", prompt, re.S)
            better = "A" if self.prefers_first or "PDIS" in first else "B"
            return CompletionResponse(text=f"[[{better}]]" if first != second else "[[C]]")
        answer = prompt.rpartition("## Generated Answer")[2]
        return CompletionResponse(text="5\nfine" if "PDIS" in answer else "1\nno code")

    def stream_complete(self, prompt, formatted=False, **settings):
        raise AssertionError("nobody streams from a judge")


@pytest.fixture
def judged(scripted, questions):
    def run(judge, count=4, **settings):
        asked = questions(count, unanswerable=2)
        return compare_strategies(
            scripted(asked),
            questions=asked,
            strategies=["base", "rag", "rag_fine_tuned"],
            judge=judge,
            show_progress=False,
            **settings,
        )

    return run


def test_a_judge_of_single_answers_passes_or_fails_each(judged) -> None:
    llm = JudgeLLM()
    found = judged(CorrectnessEvaluator(llm=llm)).judgement
    assert found.passing == {"base": Rate(0, 4), "rag": Rate(0, 4), "rag_fine_tuned": Rate(4, 4)}
    assert (found.score["rag"], found.score["rag_fine_tuned"]) == (1.0, 5.0)
    assert found.score["base"] is None  # it abstains, which needs no judge
    assert len(llm.asked) == 8
    # it disagrees with "right value" where RAG gives the value without the code
    assert found.agreement == Rate(4, 8)
    assert found.judge.startswith("CorrectnessEvaluator, judge-1, prompts ")


def test_a_judge_of_pairs_is_asked_in_both_orders(judged) -> None:
    llm = JudgeLLM()
    result = judged(PairwiseComparisonEvaluator(llm=llm, enforce_consensus=False))
    pairs = {(pair.first, pair.second): pair for pair in result.judgement.pairs}
    gain = pairs["rag_fine_tuned", "rag"]
    assert (gain.first_better, gain.second_better, gain.ties) == (4, 0, 0)
    assert gain.agreement == Rate(4, 4)
    assert len(llm.asked) == 2 * 2 * 4
    assert "RAG + fine-tuned against RAG: 4 better, 0 worse, 0 ties" in result.summary()


def test_a_judge_that_prefers_what_stands_first_prefers_nothing(judged) -> None:
    judge = PairwiseComparisonEvaluator(llm=JudgeLLM(prefers_first=True), enforce_consensus=False)
    for pair in judged(judge).judgement.pairs:
        assert (pair.first_better, pair.second_better, pair.ties) == (0, 0, 4)
        assert pair.agreement == Rate(0, 4)


def test_a_judge_that_hides_its_disagreement_is_refused(judged) -> None:
    with pytest.raises(ValueError, match="enforce_consensus=False"):
        judged(PairwiseComparisonEvaluator(llm=JudgeLLM()))


def test_what_a_judge_said_is_not_asked_again(judged, tmp_path) -> None:
    llm = JudgeLLM()
    path = tmp_path / "answers.jsonl"
    first = judged(CorrectnessEvaluator(llm=llm), journal=path)
    again = judged(CorrectnessEvaluator(llm=llm), journal=path, workers=3)
    assert len(llm.asked) == 8
    assert again.judgement == first.judgement
    assert again.rows == first.rows


class Moody(BaseEvaluator):
    """Fails, or says nothing, as its answers come."""

    def __init__(self) -> None:
        self.count = self.running = self.most = 0

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        raise AssertionError("it has none")

    async def aevaluate(self, query=None, response=None, contexts=None, **settings):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.005)
        self.running -= 1
        self.count += 1
        if self.count == 1:
            raise RuntimeError("no connection")
        if self.count == 2:
            return EvaluationResult(invalid_result=True, invalid_reason="cannot be parsed")
        return EvaluationResult(passing=True)


def test_a_judge_that_fails_now_and_then_costs_only_these(judged, tmp_path) -> None:
    judge = Moody()
    result = judged(judge, workers=3)
    assert judge.most == 3
    assert result.judgement.failed == 2
    assert sum(rate.trials for rate in result.judgement.passing.values()) == 4 + 4 + 4 - 2
    assert "It gave no judgement 2 times." in result.summary()
    result.to_json(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content["judgement"]["failed"] == 2
    assert "Moody, unknown model" in content["judgement"]["judge"]
