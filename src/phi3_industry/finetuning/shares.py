"""How many rows of each slice a training set is to have."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from phi3_industry.finetuning.rows import Slice

__all__ = ["SliceShares"]


@dataclass(frozen=True, kw_only=True)
class SliceShares:
    """How many rows of each slice to make, in proportion to the grounded ones.

    The grounded rows follow from the questions; the shares of the others are reached as far as
    there is something to make them of. What the user gives as conversations enters whole.

    Source: the slices are those of RAFT (arXiv 2403.10131), Divide-Then-Align (2505.20871) and
    RankRAG (2407.02485); the sizes are near theirs.

    Attributes:
        grounded: Share of rows that show the passage with the answer.
        missing: Share of rows that show other passages alone.
        missing_known: Share of such rows for questions whose answer the model knows by itself.
        conflict: Share of rows that show two versions.
        hostile: Share of rows that show a passage with orders or control text.
        terminology: Share of rows that teach the glossary's words.
        relevance: Share of rows that judge one passage.
        closed_book: Share of rows that show none and abstain.
        replay: Share of plain rows, made from questions without a house reference and from
            replay files.

    Raises:
        ValueError: A share is negative or no number, or there is no grounded one.
    """

    grounded: float = 0.5
    missing: float = 0.2
    missing_known: float = 0.05
    conflict: float = 0.05
    hostile: float = 0.05
    terminology: float = 0.10
    relevance: float = 0.05
    closed_book: float = 0.04
    replay: float = 0.05

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value >= 0 or math.isinf(value):
                raise ValueError(f"The share {item.name} is {value}; it must not be negative.")
        if self.grounded == 0:
            raise ValueError("The share grounded is 0; the other slices are counted from it.")

    def rows_for(self, slice_: Slice, *, grounded_rows: int) -> int:
        """Give the rows of a slice that go with a number of grounded rows."""
        share: float = getattr(self, slice_)
        return round(grounded_rows * share / self.grounded)
