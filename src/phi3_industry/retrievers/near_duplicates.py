"""Which passages say the same as one that was chosen already."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from phi3_industry.vector_stores.lexical import folded, index_text

__all__ = ["Fingerprint", "fingerprint", "resemblance"]

_SHINGLE = 3


@dataclass(frozen=True)
class Fingerprint:
    """What of a text is compared.

    Attributes:
        text: The text without capitals, width and spacing.
        shingles: Its runs of three terms, as lexical search cuts them, in any script.
        numbers: The terms with digits in them, and how often each occurs.
    """

    text: str
    shingles: frozenset[tuple[str, ...]]
    numbers: frozenset[tuple[str, int]]


def fingerprint(text: str) -> Fingerprint:
    """Take the fingerprint of a text."""
    terms = index_text(text).split()
    count = max(1, len(terms) - _SHINGLE + 1)
    numbers = Counter(term for term in terms if any(char.isdigit() for char in term))
    return Fingerprint(
        text=" ".join(folded(text).split()),
        shingles=frozenset(tuple(terms[at : at + _SHINGLE]) for at in range(count)),
        numbers=frozenset(numbers.items()),
    )


def resemblance(first: Fingerprint, second: Fingerprint) -> float:
    """Return how much two texts say the same, from 0 to 1.

    It is the share of shingles that both have in those that either has, computed exactly: there
    are only as many candidates as one question brings. Texts that differ in a number or a code
    are different whatever else they share, since a manual says one sentence of many parts.

    Source: Broder, "On the resemblance and containment of documents", 1997.
    """
    if first.text == second.text:
        return 1.0
    if first.numbers != second.numbers:
        return 0.0
    either = len(first.shingles | second.shingles)
    return len(first.shingles & second.shingles) / either if either else 0.0
