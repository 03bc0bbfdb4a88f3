"""How the weights of evidence are fitted to questions, and when the fit is believed.

The model is the conditional logit: of a question's candidates, the ``i``-th is the right one with
probability ``exp(w . x_i) / sum_j exp(w . x_j)``, where ``x`` is its evidence. The likelihood is
concave in ``w``, so that Newton's method finds the one best. A Gaussian prior holds the weights
near those that they start from, brought to the scale that suits the questions: a few questions
move them a little, many move them to where they belong. Negative weights are set to 0.

Source: McFadden, "Conditional logit analysis of qualitative choice behavior", 1974; as a loss for
rankings, Cao and others, "Learning to Rank: From Pairwise Approach to Listwise Approach", 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from phi3_industry.retrievers.evidence import Evidence
from phi3_industry.retrievers.weights import FusionWeights

__all__ = ["FitReport", "Judged", "fit_weights", "ndcg_at_10"]

_Vector = npt.NDArray[np.float64]

#: Fewer questions than this say nothing that a default does not know better.
MIN_QUESTIONS = 20
_FOLDS = 5
# One over the variance of the prior of a weight; fitted weights are about 2 to 10.
_PRIOR_PRECISION = 0.5
_STEPS = 50


@dataclass(frozen=True)
class Judged:
    """A question's candidates.

    Attributes:
        evidence: Shape ``(candidates, kinds)``.
        right: For each candidate whether it is right; shape ``(candidates,)``.
        right_in_all: How many right passages there are, found or not; at least 1.
    """

    evidence: Evidence
    right: npt.NDArray[np.bool_]
    right_in_all: int


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What fitting found, and what became of it.

    Attributes:
        source: ``"questions"`` that were labelled, or the ``"corpus"`` alone.
        questions: Questions that were looked at.
        usable: Those of them of which a right passage was among the candidates.
        before: nDCG@10 over all of them with the weights as they were.
        after: The same with weights fitted to the other four fifths of the questions each time.
        gain_low, gain_high: 95 % interval of ``after - before``.
        weights: The weights that the retriever has now.
        adopted: Whether these are the fitted ones.
        reason: Why, or why not.
    """

    source: Literal["questions", "corpus"]
    questions: int
    usable: int
    before: float
    after: float
    gain_low: float
    gain_high: float
    weights: FusionWeights
    adopted: bool
    reason: str

    def __str__(self) -> str:
        verdict = "adopted" if self.adopted else "not adopted"
        return (
            f"Weights fitted to the {self.source} were {verdict}: {self.reason} nDCG@10 "
            f"{self.before:.3f} before, {self.after:.3f} after, difference "
            f"[{self.gain_low:+.3f}..{self.gain_high:+.3f}], {self.usable} of {self.questions} "
            f"questions usable. {self.weights}"
        )


def fit_weights(
    judged: Sequence[Judged],
    start: FusionWeights,
    *,
    source: Literal["questions", "corpus"],
    free: Sequence[bool] | None = None,
    seed: int = 0,
) -> FitReport:
    """Fit weights to judged candidates.

    Args:
        judged: The questions.
        start: The weights now; those of searches that are not made stay 0.
        source: Where the questions come from, for the report.
        free: For each weight whether it is fitted; the others keep their proportion. All if
            ``None``.
        seed: Draws the folds of the cross-validation.

    Returns:
        What was found. The weights are new only if their cross-validated gain exceeds its
        standard error, so that too few questions change nothing.
    """
    now = np.array(start.values)
    moving = np.ones(len(now), bool) if free is None else np.array(free)
    usable = [question for question in judged if question.right.any()]
    before = [ndcg_at_10(question, now) for question in judged]
    if len(usable) < MIN_QUESTIONS:
        mean = float(np.mean(before)) if before else 0.0
        reason = f"it takes {MIN_QUESTIONS} usable questions to tell."
        return FitReport(
            source=source,
            questions=len(judged),
            usable=len(usable),
            before=mean,
            after=mean,
            gain_low=0.0,
            gain_high=0.0,
            weights=start,
            adopted=False,
            reason=reason,
        )
    after = np.zeros(len(judged))
    fold = np.random.default_rng(seed).permutation(len(judged)) % _FOLDS
    for number in range(_FOLDS):
        rest = [question for question, part in zip(judged, fold, strict=True) if part != number]
        fitted = _fit(rest, now, moving)
        for place in np.flatnonzero(fold == number):
            after[place] = ndcg_at_10(judged[int(place)], fitted)
    gains = after - np.array(before)
    gain, error = float(gains.mean()), float(gains.std(ddof=1)) / math.sqrt(len(gains))
    adopted = gain > error
    fitted = _fit(judged, now, moving)
    return FitReport(
        source=source,
        questions=len(judged),
        usable=len(usable),
        before=float(np.mean(before)),
        after=float(after.mean()),
        gain_low=gain - 1.96 * error,
        gain_high=gain + 1.96 * error,
        weights=FusionWeights.of(np.round(fitted, 3).tolist()) if adopted else start,
        adopted=adopted,
        reason="they find more." if adopted else "they find no more than chance would.",
    )


def ndcg_at_10(question: Judged, weights: _Vector) -> float:
    """Return nDCG@10 of a question's candidates in the order that weights give them."""
    order = np.argsort(-(question.evidence @ weights), kind="stable")[:10]
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = discounts[: question.right_in_all].sum()
    return float(discounts[: len(order)][question.right[order]].sum() / ideal)


def _fit(judged: Sequence[Judged], start: _Vector, moving: npt.NDArray[np.bool_]) -> _Vector:
    usable = [question for question in judged if question.right.any()]
    cases = [(question.evidence, question.right / question.right.sum()) for question in usable]
    # first the scale, which says how sure the weights are; then the weights around it
    summed = [((matrix @ start)[:, None], wanted) for matrix, wanted in cases]
    scale = float(_newton(summed, np.ones(1), precision=1e-3)[0])
    centre = start * max(scale, 1e-3)
    weights = centre.copy()
    free = moving & (_spread_of(cases, len(start)) > 0)
    while free.any():
        fixed = np.where(free, 0.0, weights)
        reduced = [(matrix[:, free], wanted, matrix @ fixed) for matrix, wanted in cases]
        weights[free] = _newton_around(reduced, centre[free])
        if not (weights < 0).any():
            break
        free &= weights >= 0
        weights = np.maximum(weights, 0.0)
    return weights if weights[:2].any() else centre


def _spread_of(cases: Sequence[tuple[Evidence, _Vector]], kinds: int) -> _Vector:
    spread = np.zeros(kinds)
    for matrix, _ in cases:
        spread += np.ptp(matrix, axis=0)
    return spread


def _newton(
    cases: Sequence[tuple[Evidence, _Vector]], centre: _Vector, *, precision: float
) -> _Vector:
    plain = [(matrix, wanted, np.zeros(len(matrix))) for matrix, wanted in cases]
    return _newton_around(plain, centre, precision=precision)


def _newton_around(
    cases: Sequence[tuple[Evidence, _Vector, _Vector]],
    centre: _Vector,
    *,
    precision: float = _PRIOR_PRECISION,
) -> _Vector:
    """Maximise the posterior; each case is evidence, wanted shares, and what is added to it."""
    weights = centre.copy()
    loss, gradient, curvature = _posterior(cases, weights, centre, precision)
    for _ in range(_STEPS):
        step = np.linalg.solve(curvature, gradient)
        length = 1.0
        while length > 1e-6:
            tried = _posterior(cases, weights - length * step, centre, precision)
            if tried[0] < loss:
                break
            length /= 2
        else:
            break
        improved = loss - tried[0]
        weights = weights - length * step
        loss, gradient, curvature = tried
        if improved < 1e-7 * max(loss, 1.0):
            break
    return weights


def _posterior(
    cases: Sequence[tuple[Evidence, _Vector, _Vector]],
    weights: _Vector,
    centre: _Vector,
    precision: float,
) -> tuple[float, _Vector, npt.NDArray[np.float64]]:
    """Return the negative log posterior, its gradient and its Hessian."""
    away = weights - centre
    loss = precision * float(away @ away) / 2
    gradient = precision * away
    curvature = precision * np.eye(len(weights))
    for matrix, wanted, added in cases:
        logits = matrix @ weights + added
        logits = logits - logits.max()
        chances = np.exp(logits)
        total = chances.sum()
        chances /= total
        mean = chances @ matrix
        loss += math.log(total) - float(wanted @ logits)
        gradient = gradient + mean - wanted @ matrix
        curvature += (matrix * chances[:, None]).T @ matrix - np.outer(mean, mean)
    return loss, gradient, curvature
