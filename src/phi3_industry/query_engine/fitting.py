"""Fit a calibration: logistic models, one for each way to answer, cross-fitted."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from phi3_industry.errors import TrainingDataError
from phi3_industry.query_engine.calibration import (
    FEATURE_GROUPS,
    Calibration,
    CurvePoint,
    WayModel,
    feature_values,
)
from phi3_industry.query_engine.signals import Signals
from phi3_industry.query_engine.strategy import Strategy

__all__ = ["Observation", "Outcome", "Wish", "fit_calibration"]

_LEAST_QUESTIONS = 20
_CURVE_POINTS = 20


@dataclass(frozen=True)
class Outcome:
    """What one way to answer made of a question.

    Attributes:
        answered: Whether it gave an answer and did not abstain.
        right: Whether that answer is right.
        tokens: Tokens of prompt and answer.
    """

    answered: bool
    right: bool
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One labelled question: what was known of it, and what each way made of it.

    Attributes:
        group: Questions of the same group are never parted between fitting and measuring, such
            as those about the same passage.
        answerable: Whether the documents hold an answer.
        signals: What was known before.
        outcomes: What each way made of it.
    """

    group: str
    answerable: bool
    signals: Signals
    outcomes: Mapping[Strategy, Outcome]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the threshold is to reach; without either, the most questions treated rightly.

    A question is treated rightly by a right answer, or by abstaining if there is none. A
    threshold that gains no more than its standard error is left at 0, where each way abstains
    by itself.

    Attributes:
        coverage: Share of questions to answer, the surest ones.
        accuracy: Share of right ones among the answers, at the widest coverage that reaches it.
    """

    coverage: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.coverage is not None and self.accuracy is not None:
            raise ValueError("coverage and accuracy are both given; give one, the other follows.")
        for name, value in (("coverage", self.coverage), ("accuracy", self.accuracy)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} is {value}; it must be above 0 and at most 1.")


@dataclass(frozen=True)
class _Guess:
    """What would be done with one question: the way's probability, and what comes of it."""

    probability: float
    outcome: Outcome
    answerable: bool

    def treated_rightly(self, threshold: float) -> bool:
        if self.probability < threshold or not self.outcome.answered:
            return not self.answerable
        return self.outcome.right


def fit_calibration(
    observations: Sequence[Observation],
    *,
    wish: Wish,
    fingerprints: Mapping[str, str],
    folds: int = 5,
    margin: float = 0.02,
    seed: int = 0,
) -> Calibration:
    """Fit models and threshold, and say honestly what they reach.

    Three sets of features are tried: those of retrieval, with sufficiency, with certainty, too.
    The cheapest is taken that treats no fewer questions rightly in cross-fitting than the best,
    but for ``margin``.

    Args:
        observations: The labelled questions.
        wish: What the threshold is to reach.
        fingerprints: What they were observed with.
        folds: Parts of the cross-fitting.
        margin: See :class:`Calibration`.
        seed: Seed of the parts.

    Raises:
        TrainingDataError: There are too few questions.
    """
    groups = sorted({observation.group for observation in observations})
    if len(observations) < _LEAST_QUESTIONS or len(groups) < folds:
        raise TrainingDataError(
            f"{len(observations)} questions about {len(groups)} passages were given; calibrating "
            f"takes at least {_LEAST_QUESTIONS} questions about {folds} passages. Give more."
        )
    random.Random(seed).shuffle(groups)  # noqa: S311 - parts a set, keeps no secret
    fold_of = {group: number % folds for number, group in enumerate(groups)}
    candidates = []
    for features in _feature_sets(observations):
        crossed = _cross_fit(observations, features, fold_of, folds, wish, margin)
        candidates.append((features, *crossed))
    most = max(right for _, _, right, _ in candidates)
    features, guesses, right, tokens = next(c for c in candidates if c[2] >= most - margin)
    fitted = _fit(observations, features, margin)
    curve, aurc = _curve(guesses)
    return replace(
        fitted,
        threshold=_threshold(guesses, wish),
        right_rate=right,
        tokens=tokens,
        aurc=aurc,
        curve=curve,
        fingerprints=dict(fingerprints),
    )


def _feature_sets(observations: Sequence[Observation]) -> list[tuple[str, ...]]:
    """Give the sets of features to try, cheapest first; what was never measured is in none."""
    known = {name for o in observations for name in o.signals.to_json()} | {"found"}
    sets: list[tuple[str, ...]] = []
    features: tuple[str, ...] = ()
    for group in FEATURE_GROUPS.values():
        added = tuple(name for name in group if name in known)
        features = (*features, *added)
        if added:
            sets.append(features)
    return sets


def _cross_fit(
    observations: Sequence[Observation],
    features: tuple[str, ...],
    fold_of: Mapping[str, int],
    folds: int,
    wish: Wish,
    margin: float,
) -> tuple[list[_Guess], float, float]:
    """Guess each question by models and a threshold that were fitted on other folds.

    Returns:
        The guesses, the share treated rightly, and the mean tokens.
    """
    guesses: list[_Guess] = []
    right = tokens = 0
    for fold in range(folds):
        rest = [o for o in observations if fold_of[o.group] != fold]
        fitted = _fit(rest, features, margin)
        threshold = _threshold(_guess(fitted, rest), wish)
        held_out = _guess(fitted, [o for o in observations if fold_of[o.group] == fold])
        guesses += held_out
        right += sum(guess.treated_rightly(threshold) for guess in held_out)
        tokens += sum(g.outcome.tokens for g in held_out if g.probability >= threshold)
    return guesses, right / len(guesses), tokens / len(guesses)


def _fit(
    observations: Sequence[Observation], features: tuple[str, ...], margin: float
) -> Calibration:
    import numpy as np

    values = np.array([feature_values(o.signals, features) for o in observations], dtype=float)
    means, scales = values.mean(axis=0), values.std(axis=0)
    scales[scales < 1e-12] = 1.0
    scaled = (values - means) / scales
    strategies = [s for s in Strategy if all(s in o.outcomes for o in observations)]
    ways = {}
    for strategy in strategies:
        outcomes = [o.outcomes[strategy] for o in observations]
        intercept, weights = _logistic_model(scaled, [outcome.right for outcome in outcomes])
        treated = [
            _Guess(1.0, outcome, o.answerable).treated_rightly(0.0)
            for o, outcome in zip(observations, outcomes, strict=True)
        ]
        ways[strategy] = WayModel(
            intercept=intercept,
            weights=weights,
            tokens=sum(outcome.tokens for outcome in outcomes) / len(outcomes),
            right_rate=sum(treated) / len(treated),
        )
    return Calibration(
        features=features,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        ways=ways,
        threshold=0.5,
        margin=margin,
        questions=len(observations),
        right_rate=0.0,
        tokens=0.0,
        aurc=0.0,
        curve=(),
    )


def _logistic_model(scaled: object, right: list[bool]) -> tuple[float, tuple[float, ...]]:
    """Fit log odds of being right; where all are alike, the smoothed rate alone."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    matrix = np.asarray(scaled)
    if len(set(right)) < 2:
        odds = (sum(right) + 0.5) / (len(right) - sum(right) + 0.5)
        return math.log(odds), (0.0,) * matrix.shape[1]
    model = LogisticRegression(C=1.0, max_iter=1000).fit(matrix, right)
    return float(model.intercept_[0]), tuple(model.coef_[0].tolist())


def _guess(fitted: Calibration, observations: Sequence[Observation]) -> list[_Guess]:
    guesses = []
    for observation in observations:
        best = fitted.best(observation.signals)
        strategy, probability = best or (next(iter(fitted.ways)), 0.0)
        guesses.append(_Guess(probability, observation.outcomes[strategy], observation.answerable))
    return guesses


def _threshold(guesses: Sequence[_Guess], wish: Wish) -> float:
    """Find the least probability at which to answer."""
    ranked = sorted((g for g in guesses if g.outcome.answered), key=lambda g: -g.probability)
    if not ranked:
        return 0.5
    if wish.coverage is not None:
        wanted = round(wish.coverage * len(guesses))
        return ranked[min(max(wanted, 1), len(ranked)) - 1].probability
    if wish.accuracy is not None:
        reached, right = 1.0, 0
        for count, guess in enumerate(ranked, start=1):
            right += guess.outcome.right
            if right / count >= wish.accuracy:
                reached = guess.probability
        return reached
    # all guesses: a way that would have abstained by itself is worth nothing either way
    candidates = sorted({0.0, *(guess.probability for guess in ranked)})
    best = max(candidates, key=lambda t: (sum(g.treated_rightly(t) for g in guesses), -t))
    return best if _gains(guesses, best) else 0.0


def _gains(guesses: Sequence[_Guess], threshold: float) -> bool:
    """Tell whether a threshold treats more questions rightly than none, beyond chance.

    The questions that it changes gain or lose one each, so that the standard error of the gain
    is the root of their number. A gain that is smaller is what the best of many thresholds
    reaches on questions that cannot tell, and loses on others.
    """
    gains = [g.treated_rightly(threshold) - g.treated_rightly(0.0) for g in guesses]
    return sum(gains) > math.sqrt(sum(abs(gain) for gain in gains))


def _curve(guesses: Sequence[_Guess]) -> tuple[tuple[CurvePoint, ...], float]:
    """Give the risk-coverage curve, thinned to some points, and the area under all of it."""
    ranked = sorted((g for g in guesses if g.outcome.answered), key=lambda g: -g.probability)
    points, risks, right = [], [], 0
    for count, guess in enumerate(ranked, start=1):
        right += guess.outcome.right
        risks.append(1 - right / count)
        points.append(CurvePoint(guess.probability, count / len(guesses), right / count))
    step = max(1, len(points) // _CURVE_POINTS)
    thinned = points[step - 1 :: step]
    if points and thinned[-1] is not points[-1]:
        thinned.append(points[-1])
    return tuple(thinned), sum(risks) / len(risks) if risks else 0.0
