"""Citations: read them from an answer, and check them against the passages it was given.

An answer begins with the number of its passage, ``[2] 38.2 bar``, or with zero when it abstains,
``[0] I don't know.`` A model may also cite in the middle of a longer answer; then each citation
covers the text up to the next one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from phi3_industry.grounding.prompt import ABSTENTION

__all__ = ["Citation", "ParsedAnswer", "parse_answer", "repair", "verify"]

_MARKER = re.compile(r"\[(\d{1,4})\]")
_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_LEAST_QUOTED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class ParsedAnswer:
    """An answer taken apart.

    Attributes:
        markers: The passage numbers it cites, in order of their first mention, zero left out.
        body: The answer without its citations.
        abstained: Whether it says that no passage holds the answer: it is empty, it cites zero
            alone, or its body is the abstention sentence.
    """

    markers: tuple[int, ...]
    body: str
    abstained: bool


@dataclass(frozen=True, kw_only=True)
class Citation:
    """One citation of an answer, checked.

    Attributes:
        marker: The number that was cited, counted from 1.
        index: Index of the cited passage; ``None`` if there is no passage of that number.
        quote: The part of the claim that stands in the passage, as the passage spells it; empty
            if there is none.
        verified: Whether the quote bears the claim; see :func:`verify`.
    """

    marker: int
    index: int | None
    quote: str
    verified: bool


def parse_answer(text: str, *, abstention: str = ABSTENTION) -> ParsedAnswer:
    """Take an answer apart into citations and body.

    Args:
        text: The answer as the model gave it.
        abstention: The sentence that abstains.

    Returns:
        Its parts. ``"[2] 38.2 bar"`` gives ``markers=(2,)`` and ``body="38.2 bar"``.
    """
    numbers = [int(match.group(1)) for match in _MARKER.finditer(text)]
    body = " ".join(part.strip() for part in _MARKER.split(text)[::2] if part.strip())
    markers = tuple(dict.fromkeys(number for number in numbers if number > 0))
    abstains = not body or (bool(numbers) and not markers) or _fold(body) == _fold(abstention)
    return ParsedAnswer(markers=markers, body=body, abstained=abstains)


def verify(text: str, passages: Sequence[str]) -> list[Citation]:
    """Check every citation of an answer against the passages it was given.

    The claim of a citation is the text after it, up to the next one. It is verified if its first
    clause, up to a punctuation mark or the end, stands in the cited passage word for word: a
    house may add terms of its own after a quoted fact, ``[2] 38.2 bar | PDIS``. It is also
    verified if one unbroken run of the passage makes up at least half of it and holds every
    number in it.

    Compatibility forms, letter case and runs of white space do not count in the comparison; words
    and numbers are compared whole, so that "3 bar" does not stand in "13 bars".

    Args:
        text: The answer as the model gave it.
        passages: The passages in the order of their numbers.

    Returns:
        One citation for each marker above zero, in order of appearance.
    """
    return [
        _check(marker, claim, passages) for marker, claim in _claims(text)[1] if marker is not None
    ]


def repair(text: str, passages: Sequence[str]) -> tuple[str, list[Citation]]:
    """Put right what can be put right about an answer's citations, and take the rest out.

    A citation that its passage does not bear gets the number of the one passage that does; if
    there is none, or more than one, its marker is taken out of the text.

    Args:
        text: The answer as the model gave it.
        passages: The passages in the order of their numbers.

    Returns:
        The answer, unchanged if all citations are verified, and its citations. One whose marker
        was taken out is still listed, as not verified.
    """
    lead, claims = _claims(text)
    parts, citations = [lead], []
    for marker, claim in claims:
        if marker is None:  # citation zero
            parts.append(f"[0]{claim}")
            continue
        citation = _check(marker, claim, passages)
        if not citation.verified:
            others = [_check(number, claim, passages) for number in range(1, len(passages) + 1)]
            bearing = [other for other in others if other.verified]
            if len(bearing) == 1:
                citation = bearing[0]
        citations.append(citation)
        parts.append(f"[{citation.marker}]{claim}" if citation.verified else claim.lstrip())
    return "".join(parts), citations


def _claims(text: str) -> tuple[str, list[tuple[int | None, str]]]:
    """Split an answer into what comes before the first citation, and each citation's claim."""
    lead, *rest = _MARKER.split(text)
    numbers = [int(number) or None for number in rest[::2]]
    return lead, list(zip(numbers, rest[1::2], strict=True))


def _check(marker: int, claim: str, passages: Sequence[str]) -> Citation:
    if marker > len(passages):
        return Citation(marker=marker, index=None, quote="", verified=False)
    quote, verified = _quote(claim, passages[marker - 1])
    return Citation(marker=marker, index=marker - 1, quote=quote, verified=verified)


def _quote(claim: str, passage: str) -> tuple[str, bool]:
    """Find what a passage says of a claim, and whether that bears the claim."""
    folded_passage, origin = _fold_with_origin(passage)
    folded = _fold(claim)

    def spelled(start: int, length: int) -> str:
        return passage[origin[start] : origin[start + length - 1] + 1]

    for end in _clause_ends(folded):
        start = _find_whole(folded_passage, folded[:end])
        if start >= 0:
            return spelled(start, end), True
    begin, end, start = _longest_shared(folded, folded_passage)
    if end == begin:
        return "", False
    run = folded[begin:end]
    share = _count_words(run) / _count_words(folded)
    whole_numbers = _count_digits(run) == _count_digits(folded)
    return spelled(start, end - begin), share >= _LEAST_QUOTED_SHARE and whole_numbers


def _clause_ends(text: str) -> list[int]:
    """Give the places where a first clause may end, longest first."""
    ends = []
    for end in range(1, len(text) + 1):
        if text[end - 1].isspace() or not _is_boundary(text, end) or not _count_words(text[:end]):
            continue
        following = text[end:].lstrip()
        if not following or not (following[0].isalnum() or text[end - 1] in "([{"):
            ends.append(end)
    return ends[::-1]


def _longest_shared(claim: str, passage: str) -> tuple[int, int, int]:
    """Find the longest run of whole words of a claim that stands in a passage.

    Returns:
        Begin and end of the run in the claim, and its begin in the passage; all zero if none.
    """
    bounds = [place for place in range(len(claim) + 1) if _is_boundary(claim, place)]
    best = (0, 0, 0)
    for begin in bounds:
        for end in reversed(bounds):
            if end - begin <= best[1] - best[0]:
                break
            candidate = claim[begin:end]
            if candidate != candidate.strip() or not _count_words(candidate):
                continue
            start = _find_whole(passage, candidate)
            if start >= 0:
                best = (begin, end, start)
                break
    return best


def _find_whole(passage: str, candidate: str) -> int:
    start = passage.find(candidate)
    while start >= 0:
        if _is_boundary(passage, start) and _is_boundary(passage, start + len(candidate)):
            return start
        start = passage.find(candidate, start + 1)
    return -1


def _is_boundary(text: str, position: int) -> bool:
    """Tell whether a word or number may begin or end between two characters.

    In scripts that are written without spaces every place between two letters is one.
    """
    if position <= 0 or position >= len(text):
        return True
    before, after = text[position - 1], text[position]
    if before in ".,-/" and after.isdigit() and text[position - 2 : position - 1].isdigit():
        return False  # inside a number: 38.2, 1,000, 3/4
    if after in ".,-/" and before.isdigit() and text[position + 1 : position + 2].isdigit():
        return False
    return not (before.isalnum() and after.isalnum()) or _is_unspaced(before) or _is_unspaced(after)


def _is_unspaced(character: str) -> bool:
    if character.isascii():
        return False
    return unicodedata.name(character, "").startswith(_UNSPACED_SCRIPTS)


def _count_words(text: str) -> int:
    """Count what carries meaning: letters, digits, and pictures such as a tick."""
    return sum(character.isalnum() or unicodedata.category(character) == "So" for character in text)


def _count_digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def _fold(text: str) -> str:
    return _fold_with_origin(text)[0]


def _fold_with_origin(text: str) -> tuple[str, list[int]]:
    """Fold a text for comparison and say where each folded character came from."""
    folded: list[str] = []
    origin: list[int] = []
    for position, character in enumerate(text):
        for part in unicodedata.normalize("NFKC", character).casefold():
            if part.isspace() and (not folded or folded[-1] == " "):
                continue
            folded.append(" " if part.isspace() else part)
            origin.append(position)
    while folded and folded[-1] == " ":
        folded.pop()
        origin.pop()
    return "".join(folded), origin
