"""Which questions are held out: whole documents, so that no answer is seen in training."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from phi3_industry.finetuning.evidence import Evidence
from phi3_industry.finetuning.rows import Split

__all__ = ["random_for", "split_questions"]

_FEWEST_HELD_OUT = 0.9
"""Share of the wanted questions that holding out whole documents has to reach."""


def random_for(seed: int, *purpose: object) -> random.Random:
    """Give random numbers of their own to each purpose, so that none depends on another."""
    text = "\n".join(str(part) for part in (seed, *purpose))
    return random.Random(text)  # noqa: S311 - a draw of rows, no secret


def split_questions(
    evidence: Sequence[Evidence], *, share: float, seed: int
) -> tuple[dict[str, Split], str]:
    """Hold out whole documents; whole passages where too few documents can be held out.

    Args:
        evidence: The questions with their passages.
        share: Share of the questions to hold out.
        seed: Seed of the draw.

    Returns:
        The split of each question by its id, and what was held out: ``"document"`` or
        ``"passage"``.
    """
    wanted = round(len(evidence) * share)
    held = _hold_out(evidence, wanted, by="document", seed=seed)
    split_by = "document"
    if len(held) < wanted * _FEWEST_HELD_OUT:
        held, split_by = _hold_out(evidence, wanted, by="name", seed=seed), "passage"
    splits: dict[str, Split] = {
        item.question.id: "validation" if item.question.id in held else "train" for item in evidence
    }
    return splits, split_by


def _hold_out(
    evidence: Sequence[Evidence], wanted: int, *, by: Literal["document", "name"], seed: int
) -> set[str]:
    """Choose questions to hold out, all those about one document or passage together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in evidence:
        key = f"question {item.question.id}" if item.gold is None else getattr(item.gold, by)
        groups[key].append(item.question.id)
    order = sorted(groups)
    random_for(seed, "split", by).shuffle(order)
    held: set[str] = set()
    for key in order:
        if len(held) + len(groups[key]) <= wanted:
            held.update(groups[key])
    return held
