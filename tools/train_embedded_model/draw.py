"""The one source of chance: a seeded random generator that knows which split it draws for."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from .real_text import RealText

__all__ = ["Draw", "Split", "held_out", "wordings"]

Split = Literal["train", "eval"]
T = TypeVar("T")


def held_out(text: str) -> bool:
    """Say whether a name or value belongs to the tenth that no training example holds."""
    return zlib.crc32(text.casefold().encode()) % 10 == 0


def wordings(templates: Sequence[str], split: Split) -> Sequence[str]:
    """Return the wordings that a split may use.

    Args:
        templates: All wordings of one question. Of three or more, the last sixth (at least
            one) is held out.
        split: ``"train"`` gets the others, ``"eval"`` the held-out ones only. One or two
            wordings are shared by both.
    """
    if len(templates) < 3:
        return templates
    kept = len(templates) - max(1, len(templates) // 6)
    return templates[:kept] if split == "train" else templates[kept:]


class Draw(random.Random):
    """A seeded random generator bound to a split.

    Args:
        seed: Seed.
        split: Which names, values and wordings may be drawn.
        text: Real text to draw words and sentences from, if there is any.

    Attributes:
        many_wordings: Share of training questions in any of many languages, or in none.
    """

    def __new__(  # noqa: D102
        cls,
        seed: int,
        split: Split = "train",  # noqa: ARG004
        *,
        text: RealText | None = None,  # noqa: ARG004
    ) -> Draw:
        return super().__new__(cls, seed)  # type: ignore[call-arg]  # its stub takes none

    def __init__(self, seed: int, split: Split = "train", *, text: RealText | None = None) -> None:
        super().__init__(seed)
        self.split: Split = split
        self.text = text
        self.many_wordings = 0.0

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def allows(self, text: str) -> bool:
        """Say whether a name or value may be used in this split."""
        return held_out(text) == (self.split == "eval")

    def fresh(self, make: Callable[[], str]) -> str:
        """Draw until the name belongs to this split."""
        while True:
            text = make()
            if self.allows(text):
                return text

    def fresh_or(self, make: Callable[[], str], otherwise: Callable[[], str]) -> str:
        """Try a few times to draw a name of this split, else draw another kind of name."""
        for _ in range(20):
            text = make()
            if self.allows(text):
                return text
        return self.fresh(otherwise)

    def fresh_number(self, make: Callable[[], str]) -> str:
        """Draw until the value belongs to this split; a value without a digit passes at once."""
        while True:
            text = make()
            if not any(character.isdigit() for character in text) or self.allows(text):
                return text

    def wording(self, templates: Sequence[str]) -> str:
        """Choose one of the wordings of this split."""
        return self.choice(wordings(templates, self.split))

    def pick(self, *weighted: tuple[float, Callable[[], T]]) -> T:
        """Call one of several makers, chosen by weight."""
        makers = [maker for _, maker in weighted]
        return self.choices(makers, [weight for weight, _ in weighted])[0]()
