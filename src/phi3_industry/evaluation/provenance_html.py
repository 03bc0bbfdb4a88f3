"""What an answer came from, as a bar of shares: passages, the adapter, the base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.wording import percent

__all__ = ["provenance_item"]


def provenance_item(provenance: Mapping[str, Any]) -> Markup:
    """Make a list item of a bar and its shares in words.

    Args:
        provenance: What :func:`~phi3_industry.query_engine.provenance.trace_answer` gives.

    Returns:
        The item; empty if the engine gave something of another shape.
    """
    try:
        shares = _shares(provenance)
    except (KeyError, TypeError, ValueError, AttributeError):
        return join()
    words = ", ".join(f"{name} {percent(share)}" for name, share, _ in shares if share >= 0.005)
    pieces, start = [], 0.0
    for name, share, kind in shares:
        pieces.append(
            element(
                "rect",
                element("title", f"{name} {percent(share)}"),
                x=f"{100 * start:.2f}%",
                width=f"{100 * share:.2f}%",
                height="8",
                class_=kind,
            )
        )
        start += share
    bar = element("svg", *pieces, class_="shares", width="100%", height="8", role="img")
    return element("li", bar, f"came from: {words}")


def _shares(provenance: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    weights = provenance["weights"]
    passages = [
        (f"[{passage['marker']}]", _share(passage["share"]), f"passage-{number % 2}")
        for number, passage in enumerate(provenance["passages"])
    ]
    adapter = _share(weights.get("adapter_share", 0.0))
    base = _share(weights.get("base_share", weights["share"] - adapter))
    return [*passages, ("the adapter", adapter, "adapter"), ("the base model", base, "base-model")]


def _share(value: Any) -> float:
    return min(1.0, max(0.0, float(value)))
