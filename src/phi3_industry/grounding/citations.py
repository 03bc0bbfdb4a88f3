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

__all__ = ["Citation", "ParsedAnswer", "parse_answer", "verify"]

_MARKER = re.compile(r"\[(\d{1,4})\]")


@dataclass(frozen=True, kw_only=True)
class ParsedAnswer:
    """An answer taken apart.

    Attributes:
        markers: The passage numbers it cites, in order of their first mention, zero left out.
        body: The answer without its citations.
        abstained: Whether it says that no passage holds the answer: it is empty, it cites zero,
            or its body is the abstention sentence.
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
        quote: The longest leading part of the cited text that stands in the passage, in the
            passage's own spelling; empty if there is none.
        verified: Whether there is such a quote. A house may add terms after a quoted fact, so
            the quote need not be the whole of the cited text.
    """

    marker: int
    index: int | None
    quote: str
    verified: bool


def parse_answer(text: str, *, abstention: str = "I don't know.") -> ParsedAnswer:
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

    Compatibility forms, letter case and runs of white space are ignored in the comparison; the
    quote is given back as the passage spells it. A quote ends where a word ends on both sides,
    so that "3 bar" is not found in "13 bars".

    Args:
        text: The answer as the model gave it.
        passages: The passages in the order of their numbers.

    Returns:
        One citation for each marker above zero, in order of appearance.
    """
    found: list[Citation] = []
    matches = list(_MARKER.finditer(text))
    for position, match in enumerate(matches):
        marker = int(match.group(1))
        if marker == 0:
            continue
        end = matches[position + 1].start() if position + 1 < len(matches) else len(text)
        claim = text[match.end() : end].strip()
        index = marker - 1 if marker <= len(passages) else None
        quote = "" if index is None else _leading_quote(claim, passages[index])
        found.append(Citation(marker=marker, index=index, quote=quote, verified=bool(quote)))
    return found


def _leading_quote(claim: str, passage: str) -> str:
    """Find the longest leading part of a claim, whole words only, that stands in a passage."""
    folded_passage, origin = _fold_with_origin(passage)
    folded = _fold(claim)
    for end in _word_ends(folded):
        candidate = folded[:end]
        start = _find_whole(folded_passage, candidate)
        if start >= 0:
            return passage[origin[start] : origin[start + len(candidate) - 1] + 1]
    return ""


def _word_ends(text: str) -> list[int]:
    """Give the places where a leading part of a text may end, longest first."""
    ends = [
        end
        for end in range(1, len(text) + 1)
        if not text[end - 1].isspace() and _is_boundary(text, end) and _has_word(text[:end])
    ]
    return ends[::-1]


def _find_whole(passage: str, candidate: str) -> int:
    start = passage.find(candidate)
    while start >= 0:
        if _is_boundary(passage, start) and _is_boundary(passage, start + len(candidate)):
            return start
        start = passage.find(candidate, start + 1)
    return -1


def _is_boundary(text: str, position: int) -> bool:
    """Tell whether a word may begin or end between two characters.

    In scripts that write no spaces every place between two letters is one.
    """
    if position <= 0 or position >= len(text):
        return True
    before, after = text[position - 1], text[position]
    if before in ".,-/" and position >= 2 and text[position - 2].isdigit() and after.isdigit():
        return False  # inside a number: 38.2, 1,000, 3/4
    if after in ".,-/" and before.isdigit() and text[position + 1 : position + 2].isdigit():
        return False
    both_words = before.isalnum() and after.isalnum()
    return not both_words or _is_unspaced(before) or _is_unspaced(after)


def _is_unspaced(character: str) -> bool:
    """Tell whether a character belongs to a script that is written without spaces."""
    if character.isascii():
        return False
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))


def _has_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _fold(text: str) -> str:
    return _fold_with_origin(text)[0]


def _fold_with_origin(text: str) -> tuple[str, list[int]]:
    """Fold a text for comparison and say where each folded character came from."""
    folded: list[str] = []
    origin: list[int] = []
    for position, character in enumerate(text):
        for part in unicodedata.normalize("NFKC", character).casefold():
            if part.isspace():
                if not folded or folded[-1] == " ":
                    continue
                part = " "  # noqa: PLW2901 - any white space compares as one space
            folded.append(part)
            origin.append(position)
    while folded and folded[-1] == " ":
        folded.pop()
        origin.pop()
    return "".join(folded), origin
