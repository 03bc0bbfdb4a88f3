"""The rules by which guides choose between retrieval and fine-tuning, tied to what was measured.

Source: Microsoft, Phi-3 cookbook, "Let Phi-3 become an industry expert": retrieval where answers
need outside data; fine-tuning for stable knowledge and precise terms; both for automated business
flows; a small training set makes little difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from phi3_industry.evaluation.ways import AUTO, PLAIN, uses_adapter

__all__ = ["rule_of_choice", "rule_of_doubt"]

_NEITHER = "Rule: what the model knows by itself needs neither documents nor training."
_RAG = "Rule: where answers need outside data, retrieve it."
_FINE_TUNING = "Rule: for stable knowledge and precise terms, fine-tune."
_BOTH = (
    "Rule: where answers need outside data and the house's own terms and form, as in automated "
    "business flows, retrieve and fine-tune."
)
_NOT_YET = (
    "Rule: do not fine-tune yet; a small training set makes little difference, and documents are "
    "easier to change."
)
_RULES = {
    "base": _NEITHER,
    "rag": _RAG,
    "fine_tuned": _FINE_TUNING,
    PLAIN["fine_tuned"]: _FINE_TUNING,
    "rag_fine_tuned": _BOTH,
    PLAIN["rag_fine_tuned"]: _BOTH,
    AUTO: _BOTH,
}


def rule_of_choice(way: str, *, among: Sequence[str]) -> str:
    """Say which rule a recommended way follows.

    Args:
        way: The way.
        among: All ways that were asked.

    Returns:
        A sentence or two; empty for a way that no rule is about.
    """
    if way == AUTO and not uses_adapter(AUTO, among=tuple(among)):
        way = "rag"
    rules = [_RULES.get(way, "")]
    if way in ("base", "rag") and any(uses_adapter(other) for other in among):
        rules.append(_NOT_YET)
    return " ".join(filter(None, rules))


def rule_of_doubt(cheaper: str, best: str, *, among: Sequence[str]) -> str:
    """Say which rule holds while two ways cannot be told apart.

    Args:
        cheaper: The cheaper of the two.
        best: The better one so far.
        among: All ways that were asked.

    Returns:
        Not to fine-tune yet, if only the dearer way needs that; else the rule of the better.
    """
    trained = [uses_adapter(way, among=tuple(among)) for way in (cheaper, best)]
    return _NOT_YET if trained == [False, True] else _RULES.get(best, "")
