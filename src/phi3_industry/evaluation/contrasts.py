"""One strategy against another on the same questions, knowing which questions belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from phi3_industry.evaluation.rows import AnswerRow, Passage
from phi3_industry.evaluation.statistics import (
    Interval,
    holm,
    mcnemar_exact,
    newcombe_interval,
    paired_bootstrap,
)
from phi3_industry.evaluation.wording import points
from phi3_industry.grounding.questions import Question

__all__ = [
    "MEASURES",
    "MIN_CLUSTERS",
    "PLANNED_CONTRASTS",
    "Clusters",
    "Contrast",
    "Measure",
    "cluster_questions",
    "contrast",
    "planned_contrasts",
]

Measure = Literal["house_match", "value_match"]
"""What a contrast compares: right fact in house format, or right value whatever the format."""

PLANNED_CONTRASTS = (
    ("rag", "base"),
    ("fine_tuned", "base"),
    ("rag_fine_tuned", "base"),
    ("rag_fine_tuned", "rag"),
    ("rag_fine_tuned", "fine_tuned"),
)
"""The comparisons that are named before the answers are seen; Holm's correction is over them."""

MIN_CLUSTERS = 20
"""Fewest clusters for which drawing clusters is trusted."""

MEASURES: tuple[Measure, ...] = ("house_match", "value_match")


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One strategy against another on the same questions.

    Attributes:
        measure: What is compared.
        first: The strategy that is looked at.
        second: The strategy it is compared with.
        difference: Share of the first less share of the second.
        interval: Its 95 % interval: the clustered paired bootstrap, or Newcombe's score interval
            where all clusters agree and the bootstrap would have no width.
        questions: Questions compared.
        only_first: Questions that only the first got right.
        only_second: Questions that only the second got right.
        p_value: Exact McNemar test.
        p_adjusted: The same after Holm's correction over the planned contrasts of this measure.
    """

    measure: Measure
    first: str
    second: str
    difference: float
    interval: Interval
    questions: int
    only_first: int
    only_second: int
    p_value: float
    p_adjusted: float

    def __str__(self) -> str:
        return (
            f"{points(self.difference)} points, 95 % interval {points(self.interval.low)} to "
            f"{points(self.interval.high)}"
        )


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Which questions belong together.

    Attributes:
        level: What a cluster is.
        of: The cluster of each answerable question, by question id.
    """

    level: Literal["document", "passage", "question"]
    of: Mapping[str, str]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(set(self.of.values()))


def cluster_questions(questions: Sequence[Question], passages: Iterable[Passage]) -> Clusters:
    """Find which answerable questions belong together.

    Questions about one document are not independent. Where the questions come from fewer than
    :data:`MIN_CLUSTERS` documents, such as the rows of one table, passages take their place, and
    where there are too few of those too, each question stands alone.

    Args:
        questions: The questions.
        passages: Passages that were shown, to find the document of a gold passage.

    Returns:
        The coarsest clusters of which there are enough.
    """
    documents = {name: passage.document_id for passage in passages for name in passage.names}
    answerable = [question for question in questions if question.answerable]

    def document(gold_id: str) -> str:
        return documents.get(gold_id, gold_id.partition("#")[0])

    def clusters(level: Literal["document", "passage"], name: Callable[[str], str]) -> Clusters:
        of = {
            question.id: f"{level} {name(question.gold_ids[0])}"
            if question.gold_ids
            else f"question {question.id}"
            for question in answerable
        }
        return Clusters(level=level, of=of)

    for found in (clusters("document", document), clusters("passage", str)):
        if found.count >= MIN_CLUSTERS:
            return found
    return Clusters(level="question", of={question.id: question.id for question in answerable})


def contrast(
    rows: Mapping[str, Sequence[AnswerRow]],
    first: str,
    second: str,
    *,
    measure: Measure,
    clusters: Clusters,
    seed: int = 0,
) -> Contrast:
    """Compare two strategies on the answerable questions.

    Args:
        rows: The answers of each strategy, in the same order of questions.
        first: The strategy that is looked at.
        second: The strategy it is compared with.
        measure: What is compared.
        clusters: Which questions belong together.
        seed: Seed of the bootstrap.

    Returns:
        The contrast, its p-value not yet adjusted for others.

    Raises:
        ValueError: No question is answerable.
    """
    pairs = [
        (bool(getattr(one, measure)), bool(getattr(other, measure)), clusters.of[one.question_id])
        for one, other in zip(rows[first], rows[second], strict=True)
        if getattr(one, measure) is not None
    ]
    if not pairs:
        raise ValueError("No question is answerable, so there is nothing to compare.")
    ones, others, members = zip(*pairs, strict=True)
    both = sum(one and other for one, other, _ in pairs)
    only_first, only_second = sum(ones) - both, sum(others) - both
    interval = paired_bootstrap(ones, others, members, seed=seed)
    if interval.low == interval.high:
        interval = newcombe_interval(
            both=both,
            only_first=only_first,
            only_second=only_second,
            neither=len(pairs) - both - only_first - only_second,
        )
    p_value = mcnemar_exact(only_first, only_second)
    return Contrast(
        measure=measure,
        first=first,
        second=second,
        difference=(only_first - only_second) / len(pairs),
        interval=interval,
        questions=len(pairs),
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        p_adjusted=p_value,
    )


def planned_contrasts(
    rows: Mapping[str, Sequence[AnswerRow]], *, clusters: Clusters, seed: int = 0
) -> tuple[Contrast, ...]:
    """Compute the planned contrasts among the strategies that were asked, for each measure.

    Args:
        rows: The answers of each strategy, in the same order of questions.
        clusters: Which questions belong together.
        seed: Seed of the bootstrap.

    Returns:
        The contrasts, those of ``house_match`` first; none if no question is answerable.
    """
    if not clusters.of:
        return ()
    pairs = [(one, other) for one, other in PLANNED_CONTRASTS if one in rows and other in rows]
    found: list[Contrast] = []
    for measure in MEASURES:
        family = [
            contrast(rows, one, other, measure=measure, clusters=clusters, seed=seed)
            for one, other in pairs
        ]
        adjusted = holm([member.p_value for member in family])
        found += [replace(one, p_adjusted=p) for one, p in zip(family, adjusted, strict=True)]
    return tuple(found)
