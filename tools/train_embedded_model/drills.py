"""Drills: one fact in each passage, one wording, no traps.

A reader first has to find out that the question says where to look. On the full variety of
passages and wordings that takes it very long; on drills it takes minutes, and what it found
carries over.
"""

from __future__ import annotations

from . import values
from .draw import Draw
from .facts import Fact
from .lexicon import ATTRIBUTE_FAMILIES, MACHINES
from .passages import Family, Passage

__all__ = ["drill_family"]

_QUESTION = ("What is the {a} of {e}?",)


def drill_family(draw: Draw, *, passages: int) -> Family:
    """Write one-fact passages about things with different names.

    Args:
        draw: Source of chance.
        passages: Number of passages.
    """
    as_rows = draw.chance(0.5)
    machine = draw.choice(MACHINES)
    nouns, units = draw.choice(ATTRIBUTE_FAMILIES)
    shared = draw.choice(nouns)
    written: list[Passage] = []
    names: set[str] = set()
    while len(written) < passages + 1:
        name = draw.fresh(lambda: draw.choice((values.code, values.made_up_name))(draw))
        if name in names:
            continue
        names.add(name)
        attribute = shared if draw.chance(0.5) else draw.choice(nouns)
        value = draw.fresh_number(lambda: values.quantity(draw, units))
        if as_rows:
            text, mention = f"{machine}: {name}; {attribute}: {value}", name
        else:
            mention = f"{machine} {name}"
            text = f"The {attribute} of {mention} is {value}."
        fact = Fact(name, attribute, value, _QUESTION, (mention,), "drill")
        written.append(Passage("", text, (fact,)))
    unseen = written.pop().facts[0]
    return Family("drill", tuple(written), (unseen.of(unseen.subject, unseen.mentions),))
