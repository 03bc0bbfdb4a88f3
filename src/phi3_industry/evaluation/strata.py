"""The same rates for each kind of question, since a mean over all kinds can hide all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from phi3_industry.evaluation.arms import ArmSummary, summarise
from phi3_industry.evaluation.contrasts import PLANNED_CONTRASTS, Clusters, Contrast, contrast
from phi3_industry.evaluation.rows import AnswerRow
from phi3_industry.grounding.questions import Question

__all__ = ["MIN_STRATUM", "StratumSummary", "summarise_strata"]

MIN_STRATUM = 20
"""Fewest questions of a stratum from which differences are given."""


@dataclass(frozen=True, kw_only=True)
class StratumSummary:
    """What the strategies reached on one kind of question.

    Attributes:
        name: The stratum.
        questions: How many questions it has.
        arms: What each strategy reached on them.
        contrasts: The planned comparisons on ``right``, from :data:`MIN_STRATUM` questions on.
            They are for exploring: no p-value is corrected for how many there are.
    """

    name: str
    questions: int
    arms: Mapping[str, ArmSummary]
    contrasts: tuple[Contrast, ...]


def summarise_strata(
    questions: Sequence[Question],
    rows: Mapping[str, Sequence[AnswerRow]],
    *,
    clusters: Clusters,
    seed: int = 0,
) -> tuple[StratumSummary, ...]:
    """Summarise the answers by kind of question.

    Args:
        questions: The questions.
        rows: The answers of each strategy, in the order of the questions.
        clusters: Which questions belong together.
        seed: Seed of the bootstrap.

    Returns:
        One summary for each stratum, in the order in which the questions name them.
    """
    summaries = []
    for name in dict.fromkeys(question.stratum for question in questions):
        members = [index for index, one in enumerate(questions) if one.stratum == name]
        own = {arm: [answers[index] for index in members] for arm, answers in rows.items()}
        pairs = PLANNED_CONTRASTS if len(members) >= MIN_STRATUM else ()
        summaries.append(
            StratumSummary(
                name=name,
                questions=len(members),
                arms={arm: summarise(arm, answers) for arm, answers in own.items()},
                contrasts=tuple(
                    contrast(own, one, other, measure="right", clusters=clusters, seed=seed)
                    for one, other in pairs
                    if one in own and other in own
                ),
            )
        )
    return tuple(summaries)
