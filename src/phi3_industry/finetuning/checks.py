"""What can be wrong with a row or a label, checked without a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from phi3_industry.finetuning.evidence import Evidence, folded, is_house_knowledge
from phi3_industry.finetuning.glossary import Glossary
from phi3_industry.finetuning.records import MOST_CHARS
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.grounding.citations import verify

__all__ = ["label_suspects", "row_problem"]

_QUANTITY = re.compile(r"\d\s*[^\d\s.,:/-]")
"""A number with something after it that may be a unit."""


def row_problem(row: TrainingRow, passages: Sequence[str], *, quote: str = "") -> str | None:
    """Say why a row must not be taught, by the very check that its answers will meet.

    Args:
        row: The row.
        passages: The passages it shows, in the order of their numbers.
        quote: The fact that its answer is to quote; empty if it quotes none.

    Returns:
        The reason; ``None`` if there is none.
    """
    if row.chars > MOST_CHARS:
        return f"it has more than {MOST_CHARS} characters"
    if not row.answer.strip():
        return "it has no answer"
    try:
        for message in (*row.prompt, *row.completion):
            message["content"].encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is no valid Unicode"
    if not quote:
        return None
    if quote not in row.answer:
        return "its reference does not hold the answer"
    citations = verify(row.answer, passages)
    if not citations or not all(citation.verified for citation in citations):
        return "its answer does not begin with a quote of the passage that it cites"
    if quote not in passages[citations[0].marker - 1]:
        return "its answer is no exact quote of the passage that it cites"
    return None


def label_suspects(
    evidence: Sequence[Evidence], glossary: Glossary | None = None
) -> dict[str, list[str]]:
    """Find questions whose labels look wrong; they are trained on all the same.

    Args:
        evidence: The questions with their passages.
        glossary: The house's terms.

    Returns:
        For each reason the ids of its questions.
    """
    suspects: dict[str, list[str]] = defaultdict(list)
    for ids in _asked_twice(evidence):
        suspects["the same question has another answer elsewhere"] += ids
    for item in evidence:
        question = item.question
        if glossary is None or question.wanted is None or is_house_knowledge(question):
            continue
        added = (item.wanted or "").replace(item.quote, "\n", 1)
        if glossary.banned_in(added):
            suspects["its answer holds a word that the glossary bans"].append(question.id)
        if _has_other_unit(item, glossary):
            suspects["its answer has another unit than the glossary"].append(question.id)
    return dict(suspects)


def _asked_twice(evidence: Sequence[Evidence]) -> list[list[str]]:
    """Give the questions that are asked in the same words and have no answer in common."""
    asked: Mapping[str, list[Evidence]] = defaultdict(list)
    for item in evidence:
        asked[folded(item.question.question)].append(item)
    found = []
    for items in asked.values():
        answers = [{folded(answer) for answer in item.question.answers} for item in items]
        if len(items) > 1 and any(
            one != answers[0] and one.isdisjoint(answers[0]) for one in answers[1:]
        ):
            found.append([item.question.id for item in items])
    return found


def _has_other_unit(item: Evidence, glossary: Glossary) -> bool:
    about = glossary.find(item.question.question)
    if about is None or not about[0].unit or not item.quote:
        return False
    is_quantity = _QUANTITY.search(item.quote) is not None
    return is_quantity and folded(about[0].unit) not in folded(item.quote)
