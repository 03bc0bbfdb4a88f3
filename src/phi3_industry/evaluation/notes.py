"""What to know about a comparison beside its tables and its verdict, as plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phi3_industry.evaluation.ways import AUTO
from phi3_industry.evaluation.wording import duration, label, percent, points

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["notes"]

_CHANGED = "changed"


def notes(result: ComparisonResult) -> list[str]:
    """Say what the table does not.

    Args:
        result: The comparison.

    Returns:
        Sentences about the choice for each question, the cost in reading, changed facts,
        unanswerable questions and failures, as far as they apply.
    """
    found = [
        _choosing(result),
        _reading(result),
        _freshness(result),
        _abstention(result),
        _judge(result),
        _failures(result),
    ]
    return [sentence for sentence in found if sentence]


def _choosing(result: ComparisonResult) -> str:
    """Compare ``auto`` with the best fixed strategy, in what it reaches and what it takes."""
    found = result.choosing
    if found is None:
        return ""
    ours, theirs = result.arms[AUTO], result.arms[found.second]
    taken = ""
    if ours.tokens is not None and theirs.tokens:
        taken += f", with {ours.tokens / theirs.tokens:.2f} times its tokens"
    if theirs.machine_s:
        taken += f" and {ours.machine_s / theirs.machine_s:.2f} times its time"
    return (
        f"Choosing for each question (auto): {percent(ours.right.share)} of {found.questions} "
        f"questions treated rightly, against {percent(theirs.right.share)} of the best fixed way, "
        f"{label(found.second)} (difference {found}){taken}."
    )


def _reading(result: ComparisonResult) -> str:
    harm = result.reading_harm
    if harm is None:
        return ""
    return (
        f"Reading with the adapter: right value {points(harm.difference, sign=True)} points "
        f"against RAG alone (95 % interval {points(harm.interval.low)} to "
        f"{points(harm.interval.high)}; {harm.only_second} lost, {harm.only_first} gained)."
    )


def _freshness(result: ComparisonResult) -> str:
    """Say who knows the facts that changed after fine-tuning, and from when on."""
    changed = next((one for one in result.strata if one.name == _CHANGED), None)
    if changed is None:
        return ""
    known = ", ".join(
        f"{label(name)} {percent(arm.value_match.share)}" for name, arm in changed.arms.items()
    )
    upkeep = result.upkeep
    after, until = "right after indexing again", ""
    if upkeep is not None and upkeep.reindex_s is not None:
        after += f", which took {duration(upkeep.reindex_s)}"
    if upkeep is not None and upkeep.training_s is not None:
        until = (
            f" Weights know of a change only after training again: {duration(upkeep.training_s)}."
        )
    return (
        f"Right values on {changed.questions} facts that changed after fine-tuning, {after}: "
        f"{known}.{until}"
    )


def _abstention(result: ComparisonResult) -> str:
    advised = result.recommendation.strategy
    if advised is None or not result.arms[advised].abstention.trials:
        return ""
    rate = result.arms[advised].abstention
    return (
        f"Where the documents hold no answer, {label(advised)} abstained in {rate.successes} of "
        f"{rate.trials} questions."
    )


def _judge(result: ComparisonResult) -> str:
    found = result.judgement
    if found is None:
        return ""
    failed = f" It gave no judgement {found.failed} times." if found.failed else ""
    if found.pairs:
        told = "; ".join(
            f"{label(pair.first)} against {label(pair.second)}: {pair.first_better} better, "
            f"{pair.second_better} worse, {pair.ties} ties, the same in both orders in "
            f"{percent(pair.agreement.share)}"
            for pair in found.pairs
        )
        return f"The judge ({found.judge}) prefers: {told}.{failed}"
    passed = ", ".join(f"{label(arm)} {percent(rate.share)}" for arm, rate in found.passing.items())
    return (
        f"The judge ({found.judge}) lets pass: {passed}. It agrees with “right value” in "
        f"{percent(found.agreement.share)} of {found.agreement.trials} answers.{failed}"
    )


def _failures(result: ComparisonResult) -> str:
    failed = [row for row in result.rows if row.error]
    if not failed:
        return ""
    return (
        f"{len(failed)} of {len(result.rows)} queries failed and count as wrong; the first: "
        f"{label(failed[0].strategy)}, question {failed[0].question_id}: {failed[0].error[:200]}"
    )
