"""What an answer costs by the user's own prices, and when fine-tuning has paid for itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from phi3_industry.evaluation.arms import ArmSummary
from phi3_industry.evaluation.ways import AUTO, uses_adapter

__all__ = ["ArmCost", "Prices", "Upkeep", "cheapest_first", "cost_arms"]

_MILLION = 1_000_000
_HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the user pays.

    Attributes:
        per_million_prompt_tokens: Price of a million tokens that the model reads.
        per_million_completion_tokens: Price of a million tokens that it writes.
        per_hour: Price of an hour of the machine that answers, and that trains.
        training: One-off price of fine-tuning beside the machine's time: labels, a service.
        answers: Answers over which the one-off cost is spread when ways are put into the order
            of their cost; ``None`` leaves it out of that order.
        currency: How to write it.
    """

    per_million_prompt_tokens: float = 0.0
    per_million_completion_tokens: float = 0.0
    per_hour: float = 0.0
    training: float = 0.0
    answers: int | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("per_million_prompt_tokens", "per_million_completion_tokens", "per_hour"):
            _check_amount(self, name)
        _check_amount(self, "training")
        if self.answers is not None and self.answers < 1:
            raise ValueError(f"answers is {self.answers}; it must be at least 1, or None.")


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """How long it takes until a changed fact is known.

    Attributes:
        training_s: Seconds of one fine-tuning run.
        reindex_s: Seconds in which the changed documents were indexed again.
    """

    training_s: float | None = None
    reindex_s: float | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_amount(self, one.name)


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What one strategy costs; amounts are in the currency of the prices.

    Attributes:
        per_answer: Of one answer; ``None`` if tokens have a price and the engine counts none.
        one_off: Of fine-tuning, where the strategy needs it; else 0.
        per_right_answer: Of one answer for each that is right; ``None`` if none is.
        break_even: Answers after which the one-off cost is made good by cheaper answers than
            those of RAG alone; ``None`` if there is no such cost or its answers are not cheaper.
        spread: Of one answer with its part of the one-off cost, if the prices say over how many
            answers it is spread; else as ``per_answer``.
    """

    per_answer: float | None
    one_off: float
    per_right_answer: float | None
    break_even: int | None
    spread: float | None

    @property
    def per_thousand(self) -> float | None:
        """Of 1,000 answers."""
        return None if self.per_answer is None else 1000 * self.per_answer


def cost_arms(
    arms: Mapping[str, ArmSummary], prices: Prices, upkeep: Upkeep | None = None
) -> dict[str, ArmCost]:
    """Work out what each strategy costs.

    Args:
        arms: What each strategy reached.
        prices: The prices.
        upkeep: How long fine-tuning took, to be paid by the machine's hour.

    Returns:
        The cost of each strategy.
    """
    each = {name: _per_answer(arm, prices) for name, arm in arms.items()}
    training = prices.training
    if upkeep is not None and upkeep.training_s is not None:
        training += prices.per_hour * upkeep.training_s / _HOUR_S
    costs = {}
    for name, arm in arms.items():
        own, one_off = each[name], training if uses_adapter(name, among=tuple(arms)) else 0.0
        share = arm.right.share
        costs[name] = ArmCost(
            per_answer=own,
            one_off=one_off,
            per_right_answer=own / share if own is not None and share else None,
            break_even=_break_even(one_off, own, each.get("rag")),
            spread=own if own is None or not prices.answers else own + one_off / prices.answers,
        )
    return costs


def cheapest_first(
    arms: Mapping[str, ArmSummary], costs: Mapping[str, ArmCost] | None = None
) -> list[str]:
    """Put the strategies into the order of their cost.

    Args:
        arms: What each strategy reached, in the order in which they were asked.
        costs: What each costs, if prices are known.

    Returns:
        Their names. Without prices, or where one is not known, they are in the order in which
        they were given; only ``auto``, which needs all that the last of the others needs, stands
        before it if its answers take fewer tokens.
    """
    known = {name: cost.spread for name, cost in (costs or {}).items() if cost.spread is not None}
    if len(known) == len(arms):
        return sorted(arms, key=lambda name: known[name])
    fixed = [name for name in arms if name != AUTO]
    if AUTO not in arms or not fixed:
        return list(arms)
    ours, theirs = arms[AUTO].tokens, arms[fixed[-1]].tokens
    place = len(fixed) - (ours is not None and theirs is not None and ours < theirs)
    return [*fixed[:place], AUTO, *fixed[place:]]


def _per_answer(arm: ArmSummary, prices: Prices) -> float | None:
    cost = prices.per_hour * arm.machine_s / _HOUR_S
    for price, tokens in (
        (prices.per_million_prompt_tokens, arm.prompt_tokens),
        (prices.per_million_completion_tokens, arm.completion_tokens),
    ):
        if price and tokens is None:
            return None
        cost += price * (tokens or 0.0) / _MILLION
    return cost


def _break_even(one_off: float, own: float | None, rag: float | None) -> int | None:
    if not one_off or own is None or rag is None or own >= rag:
        return None
    return math.ceil(one_off / (rag - own))


def _check_amount(settings: object, name: str) -> None:
    value = getattr(settings, name)
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}; it must be a number that is not negative.")
