"""Which questions are held out: whole documents, so that no answer is seen in training."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from phi3_industry.finetuning.evidence import Evidence
from phi3_industry.finetuning.rows import Split

__all__ = ["hold_out", "random_for", "split_questions"]

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

    Of the questions that no passage answers the same share is held out, each by itself.

    Args:
        evidence: The questions with their passages.
        share: Share of the questions to hold out.
        seed: Seed of the draw.

    Returns:
        The split of each question by its id, and what was held out: ``"document"`` or
        ``"passage"``.
    """
    known = [item for item in evidence if item.gold is not None]
    wanted = round(len(known) * share)
    held = hold_out(_grouped(known, by="document"), wanted, seed=seed)
    split_by = "document"
    if len(held) < wanted * _FEWEST_HELD_OUT:
        held, split_by = hold_out(_grouped(known, by="name"), wanted, seed=seed), "passage"
    others = {item.question.id: [item.question.id] for item in evidence if item.gold is None}
    held |= hold_out(others, round(len(others) * share), seed=seed)
    splits: dict[str, Split] = {
        item.question.id: "validation" if item.question.id in held else "train" for item in evidence
    }
    return splits, split_by


def _grouped(
    evidence: Sequence[Evidence], *, by: Literal["document", "name"]
) -> dict[str, list[str]]:
    """Bring together the questions that one document or passage answers."""
    groups: dict[str, list[str]] = defaultdict(list)
    for item in evidence:
        groups[getattr(item.gold, by)].append(item.question.id)
    return groups


def hold_out(groups: Mapping[str, Sequence[str]], wanted: int, *, seed: int) -> set[str]:
    """Draw whole groups while they fit into the wanted number of questions."""
    order = sorted(groups)
    random_for(seed, "split").shuffle(order)
    held: set[str] = set()
    for key in order:
        if len(held) + len(groups[key]) <= wanted:
            held.update(groups[key])
    return held
