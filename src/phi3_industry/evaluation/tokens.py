"""Answers reduced to what is compared: their words, numbers and symbols.

A script that is written without spaces has no words to see, so there each character counts as
one; nothing else is assumed about the language.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

__all__ = ["answer_tokens", "fold", "normalise_answer", "tokens_with_ends"]

_ARTICLES = frozenset({"a", "an", "the"})
_MEANINGFUL_PUNCTUATION = frozenset("%‰‱#&@§")
_IDLE_SYMBOLS = frozenset("|")
_SIGNS = "-−–"
_UNSPACED_SCRIPTS = frozenset(
    {
        "BOPOMOFO",
        "CJK",
        "HIRAGANA",
        "IDEOGRAPHIC",
        "KATAKANA",
        "KHMER",
        "LAO",
        "MYANMAR",
        "THAI",
        "TIBETAN",
        "YI",
    }
)
"""First words of the Unicode names of their characters."""
_NUMBER = re.compile(r"[0-9]+(?:[.,'’][0-9]+)*")


def normalise_answer(text: str) -> str:
    """Reduce an answer to what is compared: its words and numbers, one space between them.

    Letter case, width (``３８`` and ``38``), the digits' script, punctuation and the amount of
    white space do not count. A decimal point, a sign before a number, a percent sign and symbols
    such as ``°`` or ``$`` do, because they change a value. The English articles are left out
    where a word follows, as is usual for exact match, but not after a number: "5 A" keeps its
    unit.

    Source: the list of articles is that of SQuAD's evaluation (Rajpurkar et al. 2016,
    arXiv:1606.05250); the rest departs from it, since there "38.2" and "382" are equal.

    Args:
        text: An answer.

    Returns:
        The normalised text; empty if nothing but punctuation is in it.
    """
    return " ".join(answer_tokens(text))


def answer_tokens(text: str) -> list[str]:
    """Split an answer into the tokens that overlap is counted in.

    Args:
        text: An answer.

    Returns:
        Words, numbers and symbols, and single characters of scripts without spaces; normalised
        as :func:`normalise_answer` says.
    """
    return [token for token, _ in tokens_with_ends(fold(text))]


def fold(text: str) -> str:
    """Level out width, composition, case and the script of digits."""
    narrow = "".join(
        unicodedata.normalize("NFKC", character)
        if unicodedata.east_asian_width(character) in "FH"
        else character
        for character in text
    )
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", narrow).casefold())
    return "".join(_plain(character) for character in folded)


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf":  # joiners, soft hyphens, direction marks: nothing one sees
        return ""
    return {"٫": ".", "٬": ","}.get(character, character)


def tokens_with_ends(folded: str) -> list[tuple[str, int]]:
    """Split a folded text into tokens, each with the place where it ends."""
    tokens: list[tuple[str, int]] = []
    position = 0
    while position < len(folded):
        end = _token_end(folded, position)
        token = folded[position:end]
        position = end
        if _counts(token):
            tokens.append((re.sub(f"^[{_SIGNS}]", "-", token), end))
    return [
        (token, end)
        for index, (token, end) in enumerate(tokens)
        if not (token in _ARTICLES and _is_article(tokens, index))
    ]


def _is_article(tokens: list[tuple[str, int]], index: int) -> bool:
    """Tell an article from a unit or a name: a word follows, and no number stands before."""
    follows = index + 1 < len(tokens)
    after_number = index > 0 and tokens[index - 1][0][-1].isdigit()
    return follows and not after_number


def _token_end(text: str, start: int) -> int:
    """Find where the token ends that starts at a place."""
    first = text[start]
    signed = (
        first in _SIGNS
        and text[start + 1 : start + 2].isdigit()
        and not (start and text[start - 1].isalnum())
    )
    number = _NUMBER.match(text, start + signed)
    if number:
        return number.end()
    end = start + 1
    if not _is_word(first):
        return end
    unspaced = _is_unspaced(first)
    while end < len(text) and _is_word(text[end]):
        is_mark = unicodedata.category(text[end])[0] == "M"
        if not is_mark and (unspaced or _is_unspaced(text[end])):
            break
        end += 1
    return end


def _counts(token: str) -> bool:
    """Tell whether a token is compared, or is punctuation or white space."""
    character = token[-1]
    if _is_word(character) or character in _MEANINGFUL_PUNCTUATION:
        return True
    category = unicodedata.category(character)
    return category in {"Sm", "Sc", "So"} and character not in _IDLE_SYMBOLS


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


@lru_cache(maxsize=4096)
def _is_unspaced(character: str) -> bool:
    """Tell whether a character belongs to a script that is written without spaces."""
    if character.isascii():
        return False
    name = unicodedata.name(character, "")
    return re.split(r"[\s-]", name, maxsplit=1)[0] in _UNSPACED_SCRIPTS
