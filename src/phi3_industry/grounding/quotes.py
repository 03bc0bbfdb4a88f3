"""Text in quotation marks: what an answer presents as a quote has to stand in its passage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from phi3_industry.grounding.matching import spelling_in

__all__ = ["REMOVED", "Quote", "repair_quotes"]

REMOVED = "[…]"
"""What stands in an answer where an invented quote stood."""

# opening and closing marks; a straight mark opens only after a gap, or it stands for inches
_QUOTED = re.compile(
    r"""(?:(?<=^)|(?<=[\s(\[{:;,.\]—–-]))"(?=\S)([^"\n]*\S)"(?!\w)"""
    r"|“([^”“\n]+)”|„([^“”„\n]+)[“”]|«([^»«\n]+)»|»([^»«\n]+)«|「([^」「\n]+)」|『([^』『\n]+)』"
)
_MARKER = re.compile(r"\[(\d{1,4})\]")


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quote of an answer, checked.

    Attributes:
        text: What stands in the answer now: an exact substring of its passage, or the invented
            text if it was removed.
        index: Index of the passage that it stands in; ``None`` if there is none.
        outcome: ``"exact"`` as it was, ``"repaired"`` to the passage's spelling, or
            ``"removed"``.
    """

    text: str
    index: int | None
    outcome: Literal["exact", "repaired", "removed"]


def repair_quotes(text: str, passages: Sequence[str]) -> tuple[str, list[Quote]]:
    """Make every quote of an answer an exact substring of its passage, or take it out.

    A quote is what stands in quotation marks of any usual kind. Its passage is the one cited last
    before it; if there is none before it, the next one cited; without any, all passages are
    looked through. A quote that differs in letter case, width or spacing gets the passage's
    spelling; one that does not stand there becomes ``[…]``.

    Args:
        text: The answer as the model gave it.
        passages: The passages in the order of their numbers.

    Returns:
        The answer, and its quotes in order.
    """
    quotes: list[Quote] = []
    markers = [(match.start(), int(match.group(1))) for match in _MARKER.finditer(text)]

    def check(match: re.Match[str]) -> str:
        group = next(number for number in range(1, 8) if match.group(number) is not None)
        quoted = match.group(group)
        before = [number for place, number in markers if place < match.start()]
        after = [number for place, number in markers if place > match.start()]
        cited = before[-1] if before else after[0] if after else None
        where = range(len(passages)) if cited is None else [cited - 1]
        for index in where:
            spelled = spelling_in(quoted, passages[index]) if 0 <= index < len(passages) else None
            if spelled is not None:
                outcome: Literal["exact", "repaired"] = "exact" if spelled == quoted else "repaired"
                quotes.append(Quote(text=spelled, index=index, outcome=outcome))
                return match.group().replace(quoted, spelled)
        quotes.append(Quote(text=quoted, index=None, outcome="removed"))
        return REMOVED

    return _QUOTED.sub(check, text), quotes
