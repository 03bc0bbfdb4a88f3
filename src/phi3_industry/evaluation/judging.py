"""A judge's opinion of the answers beside what is counted: any LlamaIndex evaluator.

A judge that compares two answers is asked twice, in both orders, since many prefer whichever
stands first; a preference counts only if it holds in both.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from tqdm.auto import tqdm

from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.asking import run_to_end
from phi3_industry.evaluation.contrasts import PLANNED_CONTRASTS
from phi3_industry.evaluation.journal import Journal
from phi3_industry.evaluation.rows import AnswerRow, Passage
from phi3_industry.grounding.questions import Question

__all__ = ["JudgedPair", "Judgement", "check_judge", "judge_answers"]

_TIE = 0.5


@dataclass(frozen=True, kw_only=True)
class JudgedPair:
    """How a judge prefers the answers of one strategy to those of another.

    Attributes:
        first: The one strategy.
        second: The other.
        first_better: Questions in which it prefers the first in both orders.
        second_better: Questions in which it prefers the second in both orders.
        ties: All other questions that it judged; equal answers are ties unasked.
        agreement: It said the same in both orders, of the questions that it was asked.
    """

    first: str
    second: str
    first_better: int
    second_better: int
    ties: int
    agreement: Rate


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a judge said.

    Attributes:
        judge: The evaluator and its model.
        passing: Answers that pass, of the answerable questions; what abstained or failed does
            not pass and is not shown to the judge. Empty if it judges pairs.
        score: Mean score of the judged answers, on the judge's own scale.
        agreement: It agrees with ``value_match``, of the answers it judged.
        pairs: Preferences in the planned comparisons, if it judges pairs.
        failed: Times that it gave no judgement.
    """

    judge: str
    passing: Mapping[str, Rate]
    score: Mapping[str, float | None]
    agreement: Rate
    pairs: tuple[JudgedPair, ...]
    failed: int


def check_judge(judge: BaseEvaluator) -> None:
    """Refuse a judge whose agreement with itself could not be seen.

    Raises:
        ValueError: It turns the order of two answers by itself.
    """
    if _judges_pairs(judge) and getattr(judge, "_enforce_consensus", False):
        raise ValueError(
            f"The judge, a {type(judge).__name__}, asks in both orders by itself and hides where "
            "they disagree. Make it with enforce_consensus=False; both orders are asked here."
        )


def judge_answers(
    judge: BaseEvaluator,
    questions: Sequence[Question],
    rows: Mapping[str, Sequence[AnswerRow]],
    passages: Mapping[str, Passage],
    *,
    workers: int = 1,
    journal: Journal | None = None,
    show_progress: bool = False,
) -> Judgement:
    """Let a judge read the answers.

    Args:
        judge: A LlamaIndex evaluator. One that takes a ``second_response`` judges pairs.
        questions: The questions; those without an answer in the documents are not judged.
        rows: The answers of each strategy, in the order of the questions.
        passages: The passages that were shown, by node id.
        workers: Questions to the judge at once.
        journal: Where its words are kept, and were kept.
        show_progress: Whether to draw a progress bar.

    Returns:
        What it said.
    """
    name = _name(judge)
    judged = {arm: _judged(questions, answers) for arm, answers in rows.items()}
    jobs = _pair_jobs(judged) if _judges_pairs(judge) else _answer_jobs(judged, passages)
    said = _ask(judge, name, jobs, workers=workers, journal=journal, show_progress=show_progress)
    if _judges_pairs(judge):
        return _summarise_pairs(name, judged, said)
    return _summarise_answers(name, judged, said)


Judged = Mapping[str, Sequence[tuple[Question, AnswerRow]]]
Key = tuple[str, ...]
Jobs = dict[Key, dict[str, Any]]
Said = Mapping[Key, Mapping[str, Any]]


def _judged(
    questions: Sequence[Question], answers: Sequence[AnswerRow]
) -> list[tuple[Question, AnswerRow]]:
    pairs = zip(questions, answers, strict=True)
    return [(question, row) for question, row in pairs if question.answerable]


def _answers(row: AnswerRow) -> bool:
    return not row.abstained and not row.error


def _answer_jobs(judged: Judged, passages: Mapping[str, Passage]) -> Jobs:
    return {
        (arm, question.id): {
            "query": question.question,
            "response": row.body,
            "contexts": [passages[node_id].text for node_id in row.passages],
            "reference": question.wanted,
        }
        for arm, pairs in judged.items()
        for question, row in pairs
        if _answers(row)
    }


def _pair_jobs(judged: Judged) -> Jobs:
    jobs: Jobs = {}
    for first, second in PLANNED_CONTRASTS:
        for (question, one), (_, other) in zip(
            judged.get(first, ()), judged.get(second, ()), strict=False
        ):
            if one.body == other.body:
                continue
            shared = {"query": question.question, "reference": question.wanted}
            for order, (a, b) in (("as is", (one, other)), ("turned", (other, one))):
                jobs[first, second, question.id, order] = {
                    **shared,
                    "response": a.body,
                    "second_response": b.body,
                }
    return jobs


def _ask(
    judge: BaseEvaluator,
    name: str,
    jobs: Jobs,
    *,
    workers: int,
    journal: Journal | None,
    show_progress: bool,
) -> Said:
    """Ask the judge all that it has not said already."""
    said: dict[Key, Mapping[str, Any]] = {}
    open_jobs: Jobs = {}
    asked = {key: json.dumps([name, *key]) for key in jobs}
    for key, job in jobs.items():
        known = journal.judged.get(asked[key]) if journal else None
        if known is None:
            open_jobs[key] = job
        else:
            said[key] = known
    progress = tqdm(total=len(open_jobs), desc="judging", unit="answer", disable=not show_progress)

    async def work() -> None:
        free = asyncio.Semaphore(workers)

        async def one(key: Key, job: dict[str, Any]) -> None:
            async with free:
                outcome = await _outcome(judge, job)
            said[key] = outcome
            if journal and "error" not in outcome:
                journal.add_judged(asked[key], outcome)
            progress.update()

        await asyncio.gather(*(one(key, job) for key, job in open_jobs.items()))

    with progress:
        run_to_end(work())
    return said


async def _outcome(judge: BaseEvaluator, job: dict[str, Any]) -> dict[str, Any]:
    try:
        result: EvaluationResult = await judge.aevaluate(**job)
    except Exception as error:  # one judgement must not cost all others
        return {"error": f"{type(error).__name__}: {error}"}
    if result.invalid_result or (result.passing is None and result.score is None):
        return {"error": result.invalid_reason or "it gave neither a score nor a verdict"}
    return {"passing": result.passing, "score": result.score, "feedback": result.feedback}


def _summarise_answers(name: str, judged: Judged, said: Said) -> Judgement:
    passing: dict[str, Rate] = {}
    score: dict[str, float | None] = {}
    agrees: list[bool | None] = []
    for arm, pairs in judged.items():
        outcomes: list[bool | None] = []
        scores: list[float] = []
        for question, row in pairs:
            outcome = said.get((arm, question.id), {})
            passes = outcome.get("passing")
            outcomes.append(passes if _answers(row) else False)
            if outcome.get("score") is not None:
                scores.append(outcome["score"])
            if passes is not None:
                agrees.append(passes == row.value_match)
        passing[arm] = Rate.of(outcomes)
        score[arm] = sum(scores) / len(scores) if scores else None
    return Judgement(
        judge=name,
        passing=passing,
        score=score,
        agreement=Rate.of(agrees),
        pairs=(),
        failed=sum("error" in outcome for outcome in said.values()),
    )


def _summarise_pairs(name: str, judged: Judged, said: Said) -> Judgement:
    pairs = []
    for first, second in PLANNED_CONTRASTS:
        if first not in judged or second not in judged:
            continue
        preferred: list[float] = []
        agrees: list[bool] = []
        for (question, one), (_, other) in zip(judged[first], judged[second], strict=True):
            if one.body == other.body:
                preferred.append(_TIE)
                continue
            scores = [
                said[first, second, question.id, order].get("score")
                for order in ("as is", "turned")
            ]
            if scores[0] is None or scores[1] is None:
                continue
            same = scores[0] == 1 - scores[1]
            agrees.append(same)
            preferred.append(scores[0] if same else _TIE)
        pairs.append(
            JudgedPair(
                first=first,
                second=second,
                first_better=sum(score > _TIE for score in preferred),
                second_better=sum(score < _TIE for score in preferred),
                ties=sum(score == _TIE for score in preferred),
                agreement=Rate.of(agrees),
            )
        )
    return Judgement(
        judge=name,
        passing={},
        score={},
        agreement=Rate(0, 0),
        pairs=tuple(pairs),
        failed=sum("error" in outcome for outcome in said.values()),
    )


def _judges_pairs(judge: BaseEvaluator) -> bool:
    return "second_response" in inspect.signature(judge.aevaluate).parameters


def _name(judge: BaseEvaluator) -> str:
    """Name the judge: its kind, its model, and a hash of its prompts."""
    llm: Any = getattr(judge, "_llm", None)
    model = getattr(getattr(llm, "metadata", None), "model_name", "unknown model")
    prompts = {key: prompt.get_template() for key, prompt in judge.get_prompts().items()}
    text = json.dumps(prompts, sort_keys=True)
    return (
        f"{type(judge).__name__}, {model}, prompts {hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )
