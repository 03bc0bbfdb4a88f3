"""The ways of answering that are compared, and what each of them asks for."""

from __future__ import annotations

from phi3_industry.query_engine.strategy import AUTO, Strategy

__all__ = ["AUTO", "PLAIN", "STRATEGIES", "uses_adapter"]

STRATEGIES = ("base", "rag", "fine_tuned", "rag_fine_tuned")
"""The four ways, the cheapest first: nothing to keep up, a store, a training run and another one
whenever the facts change, both."""

PLAIN = {"fine_tuned": "plain_fine_tuned", "rag_fine_tuned": "rag_plain_fine_tuned"}
"""What a way is called where its adapter was trained by plain instruction tuning."""


def uses_adapter(way: str, *, among: tuple[str, ...] = ()) -> bool:
    """Tell whether a way needs fine-tuning.

    Args:
        way: The way.
        among: All that were asked; ``auto`` needs fine-tuning if any of its own ways does.
    """
    if way == AUTO:
        return any(uses_adapter(other) for other in among if other not in PLAIN.values())
    return way in {*PLAIN.values(), *(s.value for s in Strategy if s.uses_adapter)}
