"""Long text is split at paragraphs, lines, sentences and words, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

__all__ = ["split_text"]

_CHARS_PER_TOKEN = 16
"""A text with more characters than this for each allowed token is split before it is counted, so
that no tokenizer ever sees an unbounded text."""

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n\s*")
_SENTENCE = re.compile(
    # full stops of scripts that part sentences with spaces, with the brackets that close them
    r"[.!?…;]{1,8}[\"'”’»)\]]{0,4}\s+"
    # ... and of those that need no space: Chinese, Japanese; Arabic, Urdu, Indic, Ethiopic,
    # Armenian, Khmer, Burmese, Tibetan
    r"|[。！？｡．；؟۔।॥።։។။༎།]+[”’」』）】]*\s*"
)
_WORD = re.compile(r"\s+")
_BOUNDARIES = (_PARAGRAPH, _LINE, _SENTENCE, _WORD)

Span = tuple[int, int]


def split_text(
    text: str,
    *,
    max_tokens: int,
    count_tokens: Callable[[str], int],
    min_tokens: int | None = None,
    whole: Sequence[Span] = (),
) -> list[str]:
    """Split a text into pieces of at most ``max_tokens``.

    Pieces end at paragraphs where they hold ``min_tokens`` by then, else at lines, sentences and
    words, and inside a word only if it alone is too long. Each piece is a part of the text,
    unchanged but for white space at its ends.

    Args:
        text: The text.
        max_tokens: The most tokens of a piece, at least 1.
        count_tokens: Counts the tokens of a text.
        min_tokens: Tokens from which on a piece may end at a paragraph; two thirds of
            ``max_tokens`` if not given.
        whole: (start, end) of parts that are cut only if one alone has more than
            ``max_tokens``, such as code.

    Returns:
        The pieces in order; none of them is empty.

    Raises:
        ValueError: ``max_tokens`` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1.")
    enough = 2 * max_tokens // 3 if min_tokens is None else min_tokens
    pieces: list[str] = []
    start, tokens = 0, 0
    end = 0
    for left, right, size in _fitting_spans(text, max_tokens, count_tokens, whole):
        ends_paragraph = _PARAGRAPH.search(text, max(start, left - 8), left) is not None
        ends_paragraph = ends_paragraph and not any(a < left < b for a, b in whole)
        if end and (tokens + size > max_tokens or (tokens >= enough and ends_paragraph)):
            pieces += _checked(text[start:end], max_tokens, count_tokens)
            start, tokens = left, 0
        end = right
        tokens += size
    pieces += _checked(text[start:], max_tokens, count_tokens)
    return pieces


def _checked(piece: str, max_tokens: int, count_tokens: Callable[[str], int]) -> list[str]:
    """Give the piece, or its halves where its parts have fewer tokens than the whole."""
    piece = piece.strip()
    if not piece:
        return []
    if len(piece) < 2 or count_tokens(piece) <= max_tokens:
        return [piece]
    middle = _safe_cut(piece, _nearest_gap(piece, len(piece) // 2))
    return [
        *_checked(piece[:middle], max_tokens, count_tokens),
        *_checked(piece[middle:], max_tokens, count_tokens),
    ]


def _fitting_spans(
    text: str, max_tokens: int, count_tokens: Callable[[str], int], whole: Sequence[Span]
) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, tokens) of parts that fit, in order, as large as boundaries allow."""
    stack: list[tuple[int, int, int]] = [(0, len(text), 0)]
    while stack:
        start, end, level = stack.pop()
        part = text[start:end]
        if not part.strip():
            continue
        if len(part) <= _CHARS_PER_TOKEN * max_tokens:
            tokens = count_tokens(part.strip())
            if tokens <= max_tokens or len(part) == 1:
                yield start, end, tokens
                continue
        if level < len(_BOUNDARIES):
            kept = whole if level == 0 else ()
            spans = _spans(text, start, end, _BOUNDARIES[level], kept)
        else:
            middle = _safe_cut(text, (start + end) // 2, low=start, high=end)
            spans = [(start, middle), (middle, end)]
        stack.extend((left, right, level + 1) for left, right in reversed(spans))


def _spans(
    text: str, start: int, end: int, boundary: re.Pattern[str], whole: Sequence[Span]
) -> list[Span]:
    spans: list[Span] = []
    left = start
    for match in boundary.finditer(text, start, end):
        if any(a < match.end() < b for a, b in whole):
            continue
        spans.append((left, match.end()))
        left = match.end()
    if left < end:
        spans.append((left, end))
    return spans


def _nearest_gap(text: str, middle: int) -> int:
    gaps = [match.end() for match in _WORD.finditer(text, 1, len(text) - 1)]
    return min(gaps, key=lambda gap: abs(gap - middle)) if gaps else middle


def _safe_cut(text: str, place: int, *, low: int = 0, high: int | None = None) -> int:
    """Move a cut away from the inside of a character that is written with several codes."""
    high = len(text) if high is None else high
    cut = place
    while low + 1 < cut and (_joins(text[cut]) or text[cut - 1] == "\u200d"):
        cut -= 1
    return cut if low < cut < high else place


def _joins(character: str) -> bool:
    return (
        unicodedata.combining(character) != 0
        or unicodedata.category(character) in ("Mn", "Me", "Mc")
        or character in "\u200d\ufe0f"
    )
