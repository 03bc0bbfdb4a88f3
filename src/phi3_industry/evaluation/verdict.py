"""Which strategy is worth its price, or how many questions it takes to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.contrasts import Clusters, Contrast, Measure, contrast
from phi3_industry.evaluation.rows import AnswerRow
from phi3_industry.evaluation.rules import rule_of_choice, rule_of_doubt
from phi3_industry.evaluation.statistics import required_questions
from phi3_industry.evaluation.wording import label, percent, points

__all__ = ["Recommendation", "recommend"]

_MEASURED = {
    "right": "is right",
    "house_match": "gives the right fact in house format",
    "value_match": "gives the right value",
}


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The verdict.

    Attributes:
        verdict: Whether a strategy is recommended, more questions are needed to tell, or no
            strategy is of use.
        strategy: The recommended strategy, if there is one.
        sentence: The verdict as one plain sentence with its numbers.
        questions_needed: About how many questions would tell, if more are needed.
        rule: The rule of the guides that it rests on; empty if there is none.
        candidates: The strategies that could still be the one, the cheapest first.
    """

    verdict: Literal["use", "cannot_tell", "none"]
    strategy: str | None
    sentence: str
    questions_needed: int | None = None
    rule: str = ""
    candidates: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.sentence


def recommend(
    rows: Mapping[str, Sequence[AnswerRow]],
    *,
    clusters: Clusters,
    margin: float = 0.02,
    measure: Measure = "right",
    seed: int = 0,
) -> Recommendation:
    """Recommend the cheapest strategy that is not worse than the best by more than a margin.

    Going from the cheapest up: a strategy is taken if the 95 % interval of what it loses to the
    best ends within the margin, passed over if the interval lies above zero, and otherwise the
    questions cannot tell. One that never gives the right fact is passed over too, however often
    it abstains rightly.

    Args:
        rows: The answers of each strategy, the cheapest strategy first, in the same order of
            questions.
        clusters: Which questions belong together.
        margin: The loss that one would accept for the lower price, as a share.
        measure: What counts.
        seed: Seed of the bootstrap.

    Returns:
        The verdict.
    """
    useful = [name for name, arm in rows.items() if _answers_rightly(arm)]
    if not useful:
        return _none(next(iter(rows.values())))
    rates = {name: Rate.of(getattr(row, measure) for row in arm) for name, arm in rows.items()}
    best = max(useful, key=lambda name: rates[name].successes)
    losses = {
        name: contrast(rows, best, name, measure=measure, clusters=clusters, seed=seed)
        for name in list(rates)[: list(rates).index(best)]
    }
    asked, does = rates[best].trials, _MEASURED[measure]
    best_reached = f"the best, {label(best)} with {percent(rates[best].share)}"
    for name in (one for one in losses if one in useful):
        loss, reached = losses[name], f"{percent(rates[name].share)} of {asked} questions"
        if loss.interval.high <= margin:
            sentence = (
                f"Use {label(name)}: it {does} in {reached}, not worse than {best_reached}, by "
                f"more than {points(margin)} points (difference {loss})."
            )
            return _use(name, sentence, among=list(rows))
        if loss.interval.low <= 0:
            sentence = (
                f"Cannot tell whether {label(name)}, which {does} in {reached}, is worse than "
                f"{best_reached}, by more than {points(margin)} points (difference {loss})"
            )
            worse = [one for one in losses if one not in useful or losses[one].interval.low > 0]
            return _cannot_tell(
                name, best, sentence, losses, worse=worse, margin=margin, among=list(rows)
            )
    sentence = f"Use {label(best)}: it {does} in {percent(rates[best].share)} of {asked} questions"
    return _use(best, f"{sentence}; {_against(losses, rates)}.", among=list(rows))


def _answers_rightly(arm: Sequence[AnswerRow]) -> bool:
    """Tell whether a strategy answers any question rightly that the documents answer."""
    return any(row.right and row.house_match is not None for row in arm)


def _none(arm: Sequence[AnswerRow]) -> Recommendation:
    answerable = sum(row.house_match is not None for row in arm)
    sentence = (
        f"No strategy gives the wanted answer to any of the {answerable} questions that the "
        "documents answer: none can be recommended."
        if answerable
        else "No question has an answer in the documents, so the strategies cannot be judged."
    )
    return Recommendation(verdict="none", strategy=None, sentence=sentence)


def _against(losses: Mapping[str, Contrast], rates: Mapping[str, Rate]) -> str:
    """Say what the best is better than: the nearest of the cheaper ones."""
    if not losses:
        return "it is the cheapest of those asked"
    nearest = min(losses, key=lambda name: losses[name].difference)
    return (
        f"the best of the cheaper ones, {label(nearest)}, in {percent(rates[nearest].share)} "
        f"(difference {losses[nearest]})"
    )


def _cannot_tell(
    name: str,
    best: str,
    sentence: str,
    losses: Mapping[str, Contrast],
    *,
    worse: Sequence[str],
    margin: float,
    among: Sequence[str],
) -> Recommendation:
    """Say how many questions it takes to tell, and what is out of the question already."""
    needed = _questions_needed(losses[name], margin)
    sentence += f": about {needed:,} questions needed."
    if worse:
        sentence += f" Worse than the best: {', '.join(map(label, worse))}."
    return Recommendation(
        verdict="cannot_tell",
        strategy=None,
        sentence=sentence,
        questions_needed=needed,
        rule=rule_of_doubt(name, best, among=among),
        candidates=(*(other for other in losses if other not in worse), best),
    )


def _use(strategy: str, sentence: str, *, among: Sequence[str]) -> Recommendation:
    return Recommendation(
        verdict="use",
        strategy=strategy,
        sentence=sentence,
        rule=rule_of_choice(strategy, among=among),
        candidates=(strategy,),
    )


def _questions_needed(loss: Contrast, margin: float) -> int:
    """Estimate how many questions would tell whether a loss exceeds the margin.

    The distance between loss and margin is what has to be seen; it is taken as at least half the
    margin. The larger is given of the number by the share of discordant pairs, and of that by
    the width of the interval, which knows of the clusters.
    """
    gap = max(abs(loss.difference - margin), margin / 2)
    discordance = (loss.only_first + loss.only_second) / loss.questions
    half_width = max(loss.interval.high - loss.difference, loss.difference - loss.interval.low)
    needed = max(required_questions(gap, discordance), loss.questions * (half_width / gap) ** 2)
    digits = 10.0 ** max(0, math.floor(math.log10(needed)) - 1)
    return int(math.ceil(needed / digits) * digits)
