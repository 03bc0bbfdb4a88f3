"""How text is cut into terms for lexical search, in any language.

SQLite's own tokenizers split at every character that is no letter or digit and know nothing of
languages written without spaces: "P-4471" becomes two terms that many part numbers share, and a
Japanese sentence becomes one term that no query equals. So the text is cut here, and FTS5 is
handed terms between spaces, which its plainest tokenizer leaves as they are.

- Text is brought to Unicode's NFKC form and case-folded: full-width letters, ligatures and
  capitals make no difference.
- A run of letters and digits is a term. A run joined by ``- . / _ : , +`` without spaces, or mixing
  letters and digits, is a code: it yields itself and its parts, so "P-4471", "P4471" and "p-4471"
  find each other exactly, and "4471" finds them too. A code of digits alone keeps its joints:
  "38.2" is not "382".
- In scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) and in Korean, whose
  words carry their endings, a run yields its single characters and its pairs of neighbours; a
  query asks for the pairs, or for the character if it has only one.

- A word of five letters or more yields its stem as well, its first five letters without accents,
  marked by an ellipsis so that no word is taken for a stem. Inflected forms meet in it ("tlaku",
  "tlakem"; "tätning", "tätningarna"), and a text with the very form of the question has both terms
  and comes first. Codes, numbers, short words and scripts without spaces have no stems.

Why so: stems by cutting need no list, no dictionary and no guess at the language of a question of
five words. Against Snowball's stemmers, of which there is none for Czech, they are about as good
in English and Russian and better in Swedish; pieces of four letters find about as much in an index
several times as large (``benchmarks/lexical_languages.py``). As long words count by two terms and
short ones by one, the many short words of any language weigh less.

No word is dropped as a stop word, since a stop word of one language is a unit or a name in another
("10 A"); words that are everywhere are left out at query time by counting.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

__all__ = [
    "LEXICAL_VERSION",
    "TOKENIZER",
    "folded",
    "index_text",
    "letter_pieces",
    "match_expression",
    "query_terms",
]

#: Part of the store's schema: texts cut by another version must be cut anew.
LEXICAL_VERSION = 2
#: The FTS5 tokenizer that takes terms as they come; beyond ASCII everything is part of a term.
TOKENIZER = "ascii tokenchars '.,-/:+'"
#: Terms of a query that are looked up; a longer query is cut, as its further terms add little.
MAX_QUERY_TERMS = 256

_STEM_CHARS = 5
_STEM_MARK = "…"  # NFKC makes three full stops of it, so that no text has it
# Accents and the like stand at or beyond this combining class; vowel signs of Indian and Arabic
# scripts, which are letters to a reader, below it.
_ACCENT_CLASS = 200

_JOINTS = "-./_:,+"
# Scripts that put no spaces between words, and Hangul.
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Kana and iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_PART = re.compile(r"\d+|\D+")
_LETTERS = re.compile(f"[^\\d{re.escape(_JOINTS)}]+")
_PIECE_CHARS = 4


def index_text(text: str) -> str:
    """Cut a text into the terms under which it is found.

    Args:
        text: Any text.

    Returns:
        The terms between spaces, in the text's order, for a column of the FTS5 table.
    """
    return " ".join(_terms(text, for_query=False))


def query_terms(text: str) -> list[str]:
    """Cut a query into the terms to look for.

    Args:
        text: Any text; none of its characters has a meaning to the search.

    Returns:
        At most :data:`MAX_QUERY_TERMS` terms without repeats, in the query's order.
    """
    found: dict[str, None] = {}
    for term in _terms(text, for_query=True):
        found.setdefault(term)
        if len(found) == MAX_QUERY_TERMS:
            break
    return list(found)


def match_expression(terms: list[str]) -> str:
    """Write terms as an FTS5 expression that matches texts with any of them.

    Args:
        terms: Terms of :func:`query_terms`; at least one.
    """
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def folded(text: str) -> str:
    """Bring a text to Unicode's NFKC form without capitals."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def letter_pieces(text: str) -> list[str]:
    """Cut the words of a text into overlapping pieces, which other forms of a word share.

    Args:
        text: Any text; at most :data:`MAX_QUERY_TERMS` of its pieces are taken.

    Returns:
        Pieces of four letters, or of two characters in scripts without spaces, without repeats;
        none of shorter words and of numbers. They are to be looked for in :func:`folded` texts.
    """
    found: dict[str, None] = {}
    for match in _pattern().finditer(folded(text)):
        if match.lastgroup == "unspaced":
            words, size = [match.group()], 2
        else:
            words, size = _LETTERS.findall(match.group()), _PIECE_CHARS
        for word in words:
            found |= dict.fromkeys(word[at : at + size] for at in range(len(word) - size + 1))
    return list(found)[:MAX_QUERY_TERMS]


def _terms(text: str, *, for_query: bool) -> Iterator[str]:
    for match in _pattern().finditer(folded(text)):
        run = match.group()
        if match.lastgroup == "unspaced":
            yield from _unspaced_terms(run, for_query=for_query)
        else:
            yield from _word_terms(run)


def _unspaced_terms(run: str, *, for_query: bool) -> Iterator[str]:
    if len(run) == 1 or not for_query:
        # a combining mark is no term by itself
        yield from (char for char in run if not unicodedata.category(char).startswith("M"))
    yield from (first + second for first, second in pairwise(run))


def _word_terms(run: str) -> Iterator[str]:
    parts = [part for piece in _joints().split(run) for part in _PART.findall(piece)]
    if len(parts) > 1:
        digits_only = all(part.isdecimal() for part in parts)
        yield run.replace("_", "-") if digits_only else "".join(parts)
    of_letters = not any(part.isdecimal() for part in parts)
    for part in parts:
        yield part
        if of_letters and (stem := _stem(part)) is not None:
            yield stem


def _stem(word: str) -> str | None:
    letters = word
    if not word.isascii():
        parts = unicodedata.normalize("NFD", word)
        bare = (char for char in parts if unicodedata.combining(char) < _ACCENT_CLASS)
        letters = unicodedata.normalize("NFC", "".join(bare))
    return letters[:_STEM_CHARS] + _STEM_MARK if len(letters) >= _STEM_CHARS else None


@functools.cache
def _joints() -> re.Pattern[str]:
    return re.compile(f"[{re.escape(_JOINTS)}]")


@functools.cache
def _pattern() -> re.Pattern[str]:
    # Python's \w leaves out combining marks, which would cut the words of Indian scripts apart.
    marks = "".join(
        chr(point)
        for point in range(0x300, 0x10000)
        if unicodedata.category(chr(point)).startswith("M")
    )
    unspaced = f"[{_UNSPACED}](?:[{_UNSPACED}{marks}])*"
    letter = f"(?:(?![{_UNSPACED}])(?:[^\\W_]|[{marks}]))"
    word = f"{letter}+(?:[{re.escape(_JOINTS)}]{letter}+)*"
    return re.compile(f"(?P<unspaced>{unspaced})|(?P<word>{word})")
