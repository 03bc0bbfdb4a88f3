"""Whether an answer gives the right numbers, however they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from phi3_industry.evaluation.tokens import answer_tokens

__all__ = ["number_match"]

_NUMBER = re.compile(r"-?[0-9]")
_GROUP = 3

Readings = frozenset[Decimal | str]


def number_match(body: str, answers: Sequence[str], *, question: str = "") -> bool | None:
    """Tell whether an answer gives the right numbers and no others.

    The numbers of one of the answers have to stand in the body, and each number of the body has
    to be one of them or to stand in the question, as in "P-4471 gives 38.2 bar". "1,000", "1000"
    and "1.000" can be the same number, since both marks part thousands somewhere.

    Args:
        body: What was answered, without its citation.
        answers: Right answers, any one of which suffices.
        question: What was asked.

    Returns:
        Whether they are right; ``None`` if no answer holds a number.
    """
    wanted = [found for answer in answers if (found := _numbers(answer))]
    if not wanted:
        return None
    given, known = _numbers(body), _numbers(question)
    return any(_holds(given, one) and _holds([*one, *known], given) for one in wanted)


def _numbers(text: str) -> list[Readings]:
    return [_readings(token) for token in answer_tokens(text) if _NUMBER.match(token)]


def _holds(many: Sequence[Readings], few: Sequence[Readings]) -> bool:
    return all(any(not one.isdisjoint(other) for other in many) for one in few)


def _readings(token: str) -> Readings:
    """Give every number that a text such as "1,000" can be; the text if it is none, as "1.2.3"."""
    plain = re.sub("['’]", "", token)
    marks = re.sub(r"[-0-9]", "", plain)
    if not marks:
        return frozenset({Decimal(plain)})
    first, *groups = re.split(r"[.,]", plain)
    found: set[Decimal | str] = set()
    if len(set(marks)) == 1 and all(len(group) == _GROUP for group in groups):
        found.add(Decimal(first + "".join(groups)))
    if marks.count(marks[-1]) == 1 and len(set(marks[:-1])) <= 1:
        found.add(Decimal(f"{first}{''.join(groups[:-1])}.{groups[-1]}"))
    return frozenset(found or {token})
