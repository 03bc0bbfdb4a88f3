"""What was learned on labelled questions about when which way to answer is right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import ConfigurationError
from phi3_industry.query_engine.signals import Signals
from phi3_industry.query_engine.strategy import Choice, Strategy

__all__ = [
    "CALIBRATION_NAME",
    "FEATURE_GROUPS",
    "Calibration",
    "CurvePoint",
    "WayModel",
    "feature_values",
]

CALIBRATION_NAME = "phi3_industry_calibration.json"
"""Name of the file beside an adapter."""

_FORMAT_VERSION = 1
_LARGEST_LOGIT = 8.0

_FEATURES: Mapping[str, Callable[[Signals], float]] = {
    "found": lambda signals: float(signals.passages > 0),
    "best_score": lambda signals: signals.best_score or 0.0,
    "score_margin": lambda signals: signals.score_margin or 0.0,
    "sufficiency": lambda signals: _logit(signals.sufficiency),
    "certainty": lambda signals: _logit(signals.certainty),
    "expert_certainty": lambda signals: _logit(signals.expert_certainty),
    "draft_abstains": lambda signals: float(signals.draft_abstains or 0.0),
}

FEATURE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "retrieval": ("found", "best_score", "score_margin"),
    "sufficiency": ("sufficiency",),
    "certainty": ("certainty", "expert_certainty", "draft_abstains"),
}
"""Features by what they cost: nothing, reading the passages, writing a closed-book draft."""


def feature_values(signals: Signals, features: Iterable[str]) -> list[float]:
    """Turn signals into the numbers that a model weighs; what is unknown counts as even odds."""
    return [_FEATURES[name](signals) for name in features]


@dataclass(frozen=True, kw_only=True)
class WayModel:
    """A logistic model of how probably one way to answer is right.

    Attributes:
        intercept: The log odds where every feature has its mean.
        weights: Change of the log odds for each feature by one standard deviation.
        tokens: Mean tokens of a prompt and answer of this way, as measured; its cost.
        right_rate: Share of the questions that this way answered rightly; questions that the
            documents cannot answer count as right when it abstained.
    """

    intercept: float
    weights: tuple[float, ...]
    tokens: float
    right_rate: float


@dataclass(frozen=True)
class CurvePoint:
    """One point of the risk-coverage curve, from questions that the models did not see.

    Attributes:
        threshold: Least probability of being right at which an answer is given.
        coverage: Share of the questions that are answered then.
        accuracy: Share of right ones among the answers; risk is 1 minus it.
    """

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Weighs what is known of a question, and chooses the way that is most probably right.

    Attributes:
        features: Names of the features, in the order of the weights.
        means, scales: Mean and standard deviation of each feature.
        ways: The model of each way to answer.
        threshold: Least probability of being right at which an answer is given.
        margin: Ways that are less probable than the best by no more than this are as good, and
            the cheapest of them is taken.
        questions: How many questions it was learned from.
        right_rate: Share that ``auto`` got right in cross-fitting: models and threshold of each
            fold were fitted on the others.
        tokens: Mean tokens of an answer of ``auto`` in cross-fitting.
        aurc: Area under the risk-coverage curve, lower is better: the mean over the answered
            questions, surest first, of the risk up to there.
        curve: The curve.
        fingerprints: What it was learned with; it is refused with anything else.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    ways: Mapping[Strategy, WayModel]
    threshold: float
    margin: float
    questions: int
    right_rate: float
    tokens: float
    aurc: float
    curve: tuple[CurvePoint, ...]
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def needs(self, group: str) -> bool:
        """Whether it weighs any feature of a group."""
        return not set(self.features).isdisjoint(FEATURE_GROUPS[group])

    def probabilities(self, signals: Signals) -> dict[Strategy, float]:
        """Give for each way the probability that its answer is right."""
        values = feature_values(signals, self.features)
        scaled = [
            (value - mean) / scale
            for value, mean, scale in zip(values, self.means, self.scales, strict=True)
        ]
        return {
            strategy: _logistic(
                way.intercept + math.fsum(w * x for w, x in zip(way.weights, scaled, strict=True))
            )
            for strategy, way in self.ways.items()
            if signals.passages or not strategy.uses_passages
        }

    def best(self, signals: Signals) -> tuple[Strategy, float] | None:
        """Give the cheapest of the best ways and its probability; ``None`` if there is no way."""
        known = self.probabilities(signals)
        if not known:
            return None
        highest = max(known.values())
        good = [strategy for strategy, p in known.items() if p >= highest - self.margin]
        chosen = min(good, key=lambda strategy: (self.ways[strategy].tokens, -known[strategy]))
        return chosen, known[chosen]

    def choose(self, signals: Signals) -> Choice:
        """Choose a way to answer, or to abstain, and say why."""
        best = self.best(signals)
        known = self.probabilities(signals)
        numbers = ", ".join(
            f"{strategy.value} {p:.2f}"
            for strategy, p in sorted(known.items(), key=lambda p: -p[1])
        )
        facts = ", ".join(_fact(name, value) for name, value in signals.to_json().items())
        basis = f"by calibration on {self.questions} questions, given {facts}"
        fallback = Strategy.RAG_FINE_TUNED if Strategy.RAG_FINE_TUNED in self.ways else Strategy.RAG
        if best is None:
            reason = f"No passage was found and no way without passages is known, {basis}."
            return Choice(strategy=fallback, reason=reason, abstains=True)
        strategy, p = best
        if p < self.threshold:
            reason = (
                f"No way to answer is probably enough right ({numbers}; {self.threshold:.2f} is "
                f"required) {basis}."
            )
            return Choice(strategy=strategy, reason=reason, abstains=True)
        highest = max(known.values())
        cheapest = (
            "" if p == highest else f" and costs less at no more than {self.margin:.2f} below"
        )
        reason = (
            f"The way '{strategy.value}' is probably right{cheapest} ({numbers}; "
            f"{self.threshold:.2f} is required) {basis}."
        )
        return Choice(strategy=strategy, reason=reason)

    def check_fresh(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse to serve with anything else than what it was learned with.

        Raises:
            ConfigurationError: Adapter, prompt, model, embedding or retriever differ.
        """
        differing = [
            f"{name} was {self.fingerprints.get(name, 'unknown')[:60]!r} and is "
            f"{fingerprints.get(name, 'unknown')[:60]!r}"
            for name in sorted({*self.fingerprints, *fingerprints})
            if self.fingerprints.get(name) != fingerprints.get(name)
        ]
        if differing:
            raise ConfigurationError(
                f"The calibration is stale: {'; '.join(differing)}. Its probabilities say nothing "
                "about these: run engine.calibrate(questions) again, or pass calibration=False."
            )

    def __str__(self) -> str:
        rows = [
            f"{s.value:16} right {w.right_rate:.3f}, {w.tokens:.0f} tokens"
            for s, w in self.ways.items()
        ]
        lines = [
            f"Calibrated on {self.questions} questions with {', '.join(self.features)}.",
            *rows,
            f"{'auto':16} right {self.right_rate:.3f}, {self.tokens:.0f} tokens (cross-fitted), "
            f"threshold {self.threshold:.3f}, AURC {self.aurc:.3f}",
            *(
                f"coverage {point.coverage:.2f}  accuracy {point.accuracy:.3f}  threshold "
                f"{point.threshold:.3f}"
                for point in self.curve
            ),
        ]
        return "\n".join(lines)

    # --- on disk ------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it as JSON; into a folder under its own name.

        Returns:
            The file.
        """
        target = Path(path)
        if target.is_dir():
            target = target / CALIBRATION_NAME
        facts = {
            "format_version": _FORMAT_VERSION,
            **{key: value for key, value in asdict(self).items() if key != "ways"},
            "ways": {strategy.value: asdict(way) for strategy, way in self.ways.items()},
        }
        text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        partial = target.with_name(target.name + ".new")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(target)  # whole or not at all
        return target

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ConfigurationError: The file is no calibration.
        """
        source = Path(path)
        if source.is_dir():
            source = source / CALIBRATION_NAME
        try:
            raw = json.loads(source.read_text(encoding="utf-8"))
            return cls._from_json(raw)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigurationError(
                f"'{source}' is no calibration ({type(error).__name__}: {error}). Run "
                "engine.calibrate(questions) again."
            ) from error

    @classmethod
    def _from_json(cls, raw: dict[str, Any]) -> Calibration:
        if raw.pop("format_version") != _FORMAT_VERSION:
            raise ValueError("it has another format version")
        ways = {
            Strategy(name): WayModel(**{**way, "weights": tuple(map(float, way["weights"]))})
            for name, way in raw.pop("ways").items()
        }
        curve = tuple(CurvePoint(**point) for point in raw.pop("curve"))
        features, means, scales = (tuple(raw.pop(key)) for key in ("features", "means", "scales"))
        calibration = cls(
            **raw, features=features, means=means, scales=scales, ways=ways, curve=curve
        )
        calibration.probabilities(Signals(passages=1))  # shapes and names fit together
        return calibration


def _logit(probability: float | None) -> float:
    if probability is None:
        return 0.0
    bounded = min(max(probability, 1e-9), 1 - 1e-9)
    value = math.log(bounded / (1 - bounded))
    return max(-_LARGEST_LOGIT, min(_LARGEST_LOGIT, value))


def _logistic(log_odds: float) -> float:
    if log_odds < 0:
        return 1 - _logistic(-log_odds)
    return 1 / (1 + math.exp(-log_odds))


def _fact(name: str, value: float | bool) -> str:
    label = name.replace("_", " ")
    return f"{label} {value}" if isinstance(value, int) else f"{label} {value:.3f}"
