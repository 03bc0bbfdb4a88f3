"""How strategies and numbers are written for people, the same in the table and in the report."""

from __future__ import annotations

import math

__all__ = [
    "NOT_MEASURED",
    "duration",
    "interval",
    "label",
    "money",
    "percent",
    "points",
    "probability",
]

NOT_MEASURED = "n/a"
"""What stands for a number that cannot be had from these questions."""

_LABELS = {
    "base": "base",
    "rag": "RAG",
    "fine_tuned": "fine-tuned",
    "rag_fine_tuned": "RAG + fine-tuned",
    "auto": "auto",
    "plain_fine_tuned": "plain tuned",
    "rag_plain_fine_tuned": "RAG + plain tuned",
    "rag_fine_tuned-rag": "gain with RAG",
    "fine_tuned-base": "gain without RAG",
    "in_corpus": "in the corpus",
    "changed": "changed after fine-tuning",
    "terminology": "terminology and format",
    "general": "general knowledge",
}


def label(name: str) -> str:
    """Name a strategy, a gain or a stratum for people."""
    return _LABELS.get(name, name)


def percent(share: float | None) -> str:
    """Write a share: ``0.874`` is "87 %". Only all is "100 %" and only none is "0 %"."""
    if share is None:
        return NOT_MEASURED
    return f"{_hundredths(share)} %"


def interval(low: float, high: float) -> str:
    """Write the interval of a share: "79-92 %"."""
    return f"{_hundredths(low)}-{_hundredths(high)} %"


def points(difference: float, *, sign: bool = False) -> str:
    """Write a difference of shares in percentage points, without the word: ``0.084`` is "8.4"."""
    written = f"{100 * difference:+.1f}" if sign else f"{100 * difference:.1f}"
    return written.removesuffix(".0") if written not in {"-0.0", "+0.0"} else "0"


def probability(p_value: float) -> str:
    """Write a p-value: "0.031", "< 0.001"."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def duration(seconds: float | None) -> str:
    """Write a time: "< 1 ms", "45 ms", "1.3 s", "12 min", "1.5 h"."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def money(amount: float | None, currency: str) -> str:
    """Write an amount to two figures: "0.013 USD", "1,200 USD"."""
    if amount is None:
        return NOT_MEASURED
    if amount == 0:
        return f"0 {currency}"
    digits = max(0, 1 - math.floor(math.log10(amount)))
    return f"{amount:,.{digits}f} {currency}"


def _hundredths(share: float) -> str:
    rounded = round(100 * share)
    touches_an_end = rounded in {0, 100} and not math.isclose(100 * share, rounded, abs_tol=1e-9)
    return f"{100 * share:.1f}" if touches_an_end else str(rounded)
