"""Compare texts as citations are compared: whole words, in any script, whatever the typography."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

__all__ = [
    "count_digits",
    "count_words",
    "find_whole",
    "fold",
    "fold_with_origin",
    "is_boundary",
    "numbers_in",
    "spelling_in",
    "stands_in",
    "words_of",
]

_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_NUMBER = re.compile(r"\d+(?:[.,/-]\d+)*")


def stands_in(text: str, passage: str) -> bool:
    """Tell whether the whole of a text stands in a passage, as whole words."""
    wanted = fold(text)
    return bool(wanted) and find_whole(fold(passage), wanted) >= 0


def spelling_in(text: str, passage: str) -> str | None:
    """Give a text as a passage spells it; ``None`` if it does not stand there.

    Returns:
        An exact substring of the passage.
    """
    folded, (folded_passage, origin) = fold(text), fold_with_origin(passage)
    start = find_whole(folded_passage, folded) if folded else -1
    if start < 0:
        return None
    return passage[origin[start] : origin[start + len(folded) - 1] + 1]


def words_of(text: str) -> list[str]:
    """Split a text into folded words; in scripts without spaces every character is one.

    Numbers stay whole: ``"38.2 bar"`` gives ``["38.2", "bar"]``.
    """
    folded = fold(text)
    bounds = [place for place in range(len(folded) + 1) if is_boundary(folded, place)]
    pieces = (folded[begin:end] for begin, end in pairwise(bounds))
    return [piece for piece in pieces if count_words(piece)]


def numbers_in(text: str) -> list[str]:
    """Give the numbers of a text, in any script's digits, in order: ``["38.2", "1,000"]``."""
    return _NUMBER.findall(fold(text))


def find_whole(passage: str, candidate: str) -> int:
    """Find a text in another, beginning and ending between words; -1 if it is not there."""
    start = passage.find(candidate)
    while start >= 0:
        if is_boundary(passage, start) and is_boundary(passage, start + len(candidate)):
            return start
        start = passage.find(candidate, start + 1)
    return -1


def is_boundary(text: str, position: int) -> bool:
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


def count_words(text: str) -> int:
    """Count what carries meaning: letters, digits, and pictures such as a tick."""
    return sum(character.isalnum() or unicodedata.category(character) == "So" for character in text)


def count_digits(text: str) -> int:
    """Count digits of any script."""
    return sum(character.isdigit() for character in text)


def fold(text: str) -> str:
    """Fold a text for comparison: compatibility forms, letter case, and runs of white space."""
    return fold_with_origin(text)[0]


def fold_with_origin(text: str) -> tuple[str, list[int]]:
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
