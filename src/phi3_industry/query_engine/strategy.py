"""The four ways to answer, and the choice among them with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["AUTO", "Choice", "Evidence", "Strategy", "choose", "parse_strategy"]

AUTO = "auto"
"""Lets the engine choose a strategy for each question."""


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
class Evidence:
    """What retrieval found for a question.

    Attributes:
        passages: How many passages were found.
        best_score: The best of their scores, higher is better; ``None`` if there is none.
        min_score: The score below which a passage is no evidence; ``None`` accepts all.
    """

    passages: int
    best_score: float | None = None
    min_score: float | None = None

    @property
    def sufficient(self) -> bool:
        """Whether there is a passage worth reading."""
        if self.passages == 0:
            return False
        return self.min_score is None or (self.best_score or 0.0) >= self.min_score


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A strategy and one plain sentence that says why."""

    strategy: Strategy
    reason: str


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


def choose(evidence: Evidence, *, adapter: str | None) -> Choice:
    """Choose a strategy by what was found and what is loaded.

    Documents come first: they can be cited and they can change. The adapter adds the house's
    terms and form where there is one, and answers alone only where the documents say nothing.
    Without either the engine abstains, which is the strategy ``rag`` with nothing to read.

    Args:
        evidence: What retrieval found.
        adapter: Name of the adapter, if there is one.
    """
    if evidence.sufficient:
        found = f"{_count(evidence.passages)} found{_score(evidence)}"
        if adapter is not None:
            return Choice(
                strategy=Strategy.RAG_FINE_TUNED,
                reason=f"{found}, and the adapter '{adapter}' knows the house's terms and form.",
            )
        return Choice(
            strategy=Strategy.RAG, reason=f"{found}, and no adapter is loaded to add to them."
        )
    missing = (
        "No passage was found"
        if evidence.passages == 0
        else f"No passage is close enough{_score(evidence)}"
    )
    if adapter is not None:
        return Choice(
            strategy=Strategy.FINE_TUNED,
            reason=f"{missing}, so the adapter '{adapter}' answers from its weights.",
        )
    return Choice(
        strategy=Strategy.RAG,
        reason=f"{missing} and no adapter is loaded, so there is no ground to answer on.",
    )


def _count(passages: int) -> str:
    return "1 passage was" if passages == 1 else f"{passages} passages were"


def _score(evidence: Evidence) -> str:
    if evidence.best_score is None:
        return ""
    limit = "" if evidence.min_score is None else f"; {evidence.min_score:.3f} is required"
    return f" (best score {evidence.best_score:.3f}{limit})"
