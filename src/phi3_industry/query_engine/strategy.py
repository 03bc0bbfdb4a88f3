"""The four ways to answer, and the choice among them with its reason where nothing was learned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from phi3_industry.query_engine.signals import Signals

__all__ = [
    "AUTO",
    "LEAST_CERTAINTY",
    "LEAST_SUFFICIENCY",
    "NOTABLE_RIVAL",
    "Choice",
    "Strategy",
    "choose",
    "parse_strategy",
    "suffices",
]

AUTO = "auto"
"""Lets the engine choose a strategy for each question."""

LEAST_SUFFICIENCY = 0.5
"""Without calibration: passages suffice if citing one is as probable as abstaining."""

LEAST_CERTAINTY = 0.8
"""Without calibration: mean token probability from which an answer from weights is trusted."""

NOTABLE_RIVAL = 0.2
"""Probability of citing another document from which the reason mentions it."""


class Strategy(StrEnum):
    """One of the four ways to answer a question."""

    BASE = "base"
    """The base model alone, from its weights."""
    RAG = "rag"
    """The base model, from retrieved passages."""
    FINE_TUNED = "fine_tuned"
    """The adapter alone, from its weights."""
    RAG_FINE_TUNED = "rag_fine_tuned"
    """The adapter, from retrieved passages."""

    @property
    def uses_passages(self) -> bool:
        """Whether passages are retrieved."""
        return self in (Strategy.RAG, Strategy.RAG_FINE_TUNED)

    @property
    def uses_adapter(self) -> bool:
        """Whether the adapter answers."""
        return self in (Strategy.FINE_TUNED, Strategy.RAG_FINE_TUNED)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A strategy and why.

    Attributes:
        strategy: The strategy.
        reason: One plain sentence that says why, with the numbers.
        abstains: Whether not to ask at all: there is no ground to answer on.
    """

    strategy: Strategy
    reason: str
    abstains: bool = False


def parse_strategy(name: str) -> Strategy | None:
    """Read a strategy's name; ``None`` stands for ``"auto"``.

    Raises:
        ValueError: There is no such strategy.
    """
    if name == AUTO:
        return None
    try:
        return Strategy(name)
    except ValueError:
        known = [strategy.value for strategy in Strategy]
        raise ValueError(f"strategy is {name!r}; it must be '{AUTO}' or one of {known}.") from None


def suffices(signals: Signals, *, min_score: float | None) -> bool:
    """Tell whether passages suffice by the rules that need no calibration."""
    if signals.passages == 0:
        return False
    if min_score is not None and (signals.best_score or 0.0) < min_score:
        return False
    return signals.sufficiency is None or signals.sufficiency >= LEAST_SUFFICIENCY


def choose(signals: Signals, *, adapter: str | None, min_score: float | None = None) -> Choice:
    """Choose a strategy by rules that need no calibration; they are conservative.

    Documents come first: they can be cited and they can change. The adapter adds the house's
    terms and form where there is one. It answers alone only where the documents do not suffice
    and it is certain of its answer by its own probabilities; otherwise the engine abstains, which
    is the strategy ``rag`` or ``rag_fine_tuned`` with nothing to read.

    Args:
        signals: What is known of the question.
        adapter: Name of the adapter, if there is one.
        min_score: The retrieval score below which a passage is no evidence; ``None`` accepts
            all.
    """
    reading = Strategy.RAG if adapter is None else Strategy.RAG_FINE_TUNED
    found = _found(signals, min_score=min_score)
    if suffices(signals, min_score=min_score):
        if adapter is None:
            return Choice(
                strategy=reading, reason=f"{found}, and no adapter is loaded to add to them."
            )
        return Choice(
            strategy=reading,
            reason=f"{found}, and the adapter '{adapter}' knows the house's terms and form.",
        )
    if adapter is None:
        reason = f"{found} and no adapter is loaded, so there is no ground to answer on."
        return Choice(strategy=reading, reason=reason, abstains=True)
    certain = signals.expert_certainty
    required = f"{LEAST_CERTAINTY:.2f} is required without calibration"
    if certain is None:
        return Choice(
            strategy=reading,
            reason=f"{found}, and how certain the adapter '{adapter}' is cannot be measured here, "
            "so without calibration there is no ground to answer on.",
            abstains=True,
        )
    if certain >= LEAST_CERTAINTY and not signals.draft_abstains:
        return Choice(
            strategy=Strategy.FINE_TUNED,
            reason=f"{found}, so the adapter '{adapter}' answers from its weights with certainty "
            f"{certain:.2f} ({required}).",
        )
    does = "abstains itself" if signals.draft_abstains else f"has certainty {certain:.2f}"
    return Choice(
        strategy=reading,
        reason=f"{found}, and the adapter '{adapter}' {does} ({required}), so there is no ground "
        "to answer on.",
        abstains=True,
    )


def _found(signals: Signals, *, min_score: float | None) -> str:
    """Say what was found and whether it suffices."""
    if signals.passages == 0:
        return "No passage was found"
    score = "" if signals.best_score is None else f"best score {signals.best_score:.3f}"
    if signals.best_score is not None and signals.score_margin is not None and signals.passages > 1:
        score += f", {signals.score_margin:.0%} ahead of the next"
    if min_score is not None and (signals.best_score or 0.0) < min_score:
        listed = "; ".join(filter(None, [score, f"{min_score:.3f} is required"]))
        return f"No passage is close enough ({listed})"
    count = (
        "1 passage was found"
        if signals.passages == 1
        else f"{signals.passages} passages were found"
    )
    found = f"{count} ({score})" if score else count
    if signals.sufficiency is None:
        return found
    verdict = "suffice" if signals.sufficiency >= LEAST_SUFFICIENCY else "do not suffice"
    rival = ""
    if signals.rival is not None and signals.rival >= NOTABLE_RIVAL:
        rival = f"; a passage of another document would be cited with {signals.rival:.2f}"
    return (
        f"{found}, which {verdict} (probability {signals.sufficiency:.2f}; "
        f"{LEAST_SUFFICIENCY:.2f} is required without calibration{rival})"
    )
