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
    required_questions,
    sign_flip_exact,
    subtract_intervals,
)
from phi3_industry.evaluation.wording import points
from phi3_industry.grounding.questions import Question

__all__ = [
    "INTERACTION",
    "MEASURES",
    "MIN_CLUSTERS",
    "PLANNED_CONTRASTS",
    "Clusters",
    "Contrast",
    "Measure",
    "cluster_questions",
    "contrast",
    "interaction",
    "planned_contrasts",
]

Measure = Literal["right", "house_match", "value_match"]
"""What a contrast compares: the question treated rightly, of all questions; the reference to the
letter, or the right value whatever the format, of those with an answer."""

PLANNED_CONTRASTS = (
    ("rag", "base"),
    ("fine_tuned", "base"),
    ("rag_fine_tuned", "rag"),
    ("rag_fine_tuned", "fine_tuned"),
    ("fine_tuned", "plain_fine_tuned"),
    ("rag_fine_tuned", "rag_plain_fine_tuned"),
    ("auto", "rag_fine_tuned"),
)
"""The comparisons that are named before the answers are seen. Holm's correction is over those of
them whose strategies were asked, and the interaction."""

INTERACTION = ("rag_fine_tuned-rag", "fine_tuned-base")
"""What fine-tuning adds where passages are read, against what it adds where none are."""

MIN_CLUSTERS = 20
"""Fewest clusters for which drawing clusters is trusted."""

MEASURES: tuple[Measure, ...] = ("right", "value_match")
"""The measures of the planned contrasts."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One strategy against another on the same questions, or one gain against another.

    Attributes:
        measure: What is compared.
        first: The strategy that is looked at, or the gain, see :data:`INTERACTION`.
        second: The strategy or gain it is compared with.
        difference: Share of the first less share of the second.
        interval: Its 95 % interval: the clustered paired bootstrap, or Newcombe's score interval
            where all clusters agree and the bootstrap would have no width.
        questions: Questions compared.
        only_first: Questions that only the first got right, or in which its gain is larger.
        only_second: Questions that only the second got right, or in which its gain is larger.
        p_value: Exact McNemar test; of gains the exact sign-flip test.
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

    @property
    def questions_needed(self) -> int | None:
        """Questions that show a difference of this size with 80 % probability.

        ``None`` where there is no difference, and for a gain against another.
        """
        if not self.difference or (self.first, self.second) == INTERACTION:
            return None
        discordance = (self.only_first + self.only_second) / self.questions
        return required_questions(self.difference, discordance)

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
        of: The cluster of each answerable question, by question id. Any other question stands
            alone.
    """

    level: Literal["document", "passage", "question"]
    of: Mapping[str, str]

    @property
    def count(self) -> int:
        """How many clusters there are of answerable questions."""
        return len(set(self.of.values()))

    def cluster_of(self, question_id: str) -> str:
        """Name the cluster of a question."""
        return self.of.get(question_id, f"question {question_id}")


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
    """Compare two strategies on the questions that a measure can judge.

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
        ValueError: There is no such question.
    """
    (ones, others), members = _outcomes(rows, (first, second), measure, clusters)
    both = sum(one and other for one, other in zip(ones, others, strict=True))
    only_first, only_second = sum(ones) - both, sum(others) - both
    interval = paired_bootstrap(ones, others, members, seed=seed)
    if interval.low == interval.high:
        interval = _score_interval(ones, others)
    p_value = mcnemar_exact(only_first, only_second)
    return Contrast(
        measure=measure,
        first=first,
        second=second,
        difference=(only_first - only_second) / len(ones),
        interval=interval,
        questions=len(ones),
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        p_adjusted=p_value,
    )


def interaction(
    rows: Mapping[str, Sequence[AnswerRow]],
    *,
    measure: Measure,
    clusters: Clusters,
    seed: int = 0,
) -> Contrast:
    """Compare what fine-tuning adds with passages and without: :data:`INTERACTION`.

    Args:
        rows: The answers of the four ways, in the same order of questions.
        measure: What is compared.
        clusters: Which questions belong together.
        seed: Seed of the bootstrap.

    Returns:
        The contrast of the two gains, its p-value not yet adjusted for others.

    Raises:
        ValueError: No question can be judged by the measure.
    """
    ways = tuple(way for gain in INTERACTION for way in gain.split("-"))
    (both, rag, tuned, base), members = _outcomes(rows, ways, measure, clusters)
    reading = [one - other for one, other in zip(both, rag, strict=True)]
    closed = [one - other for one, other in zip(tuned, base, strict=True)]
    differences = [one - other for one, other in zip(reading, closed, strict=True)]
    interval = paired_bootstrap(reading, closed, members, seed=seed)
    if interval.low == interval.high:
        interval = subtract_intervals(
            sum(reading) / len(members),
            _score_interval(both, rag),
            sum(closed) / len(members),
            _score_interval(tuned, base),
        )
    p_value = sign_flip_exact(differences)
    return Contrast(
        measure=measure,
        first=INTERACTION[0],
        second=INTERACTION[1],
        difference=sum(differences) / len(members),
        interval=interval,
        questions=len(members),
        only_first=sum(difference > 0 for difference in differences),
        only_second=sum(difference < 0 for difference in differences),
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
        The contrasts, those of ``right`` first, the interaction last of each measure; none
        if no question is answerable.
    """
    if not clusters.of:
        return ()
    found: list[Contrast] = []
    for measure in MEASURES:
        family = [
            contrast(rows, one, other, measure=measure, clusters=clusters, seed=seed)
            for one, other in PLANNED_CONTRASTS
            if one in rows and other in rows
        ]
        if {way for gain in INTERACTION for way in gain.split("-")} <= set(rows):
            family.append(interaction(rows, measure=measure, clusters=clusters, seed=seed))
        adjusted = holm([member.p_value for member in family])
        found += [replace(one, p_adjusted=p) for one, p in zip(family, adjusted, strict=True)]
    return tuple(found)


def _outcomes(
    rows: Mapping[str, Sequence[AnswerRow]],
    ways: Sequence[str],
    measure: Measure,
    clusters: Clusters,
) -> tuple[list[list[int]], list[str]]:
    """Give what each way reached, 0 or 1, on the questions that a measure can judge.

    Returns:
        For each way one outcome for each question; and the cluster of each question.
    """
    judged = [
        together
        for together in zip(*(rows[way] for way in ways), strict=True)
        if getattr(together[0], measure) is not None
    ]
    if not judged:
        raise ValueError("No question is answerable, so there is nothing to compare.")
    outcomes = [[int(getattr(row, measure)) for row in arm] for arm in zip(*judged, strict=True)]
    return outcomes, [clusters.cluster_of(together[0].question_id) for together in judged]


def _score_interval(ones: Sequence[int], others: Sequence[int]) -> Interval:
    pairs = list(zip(ones, others, strict=True))
    return newcombe_interval(
        both=pairs.count((1, 1)),
        only_first=pairs.count((1, 0)),
        only_second=pairs.count((0, 1)),
        neither=pairs.count((0, 0)),
    )
