"""Citations: read them from an answer, and check them against the passages it was given.

An answer begins with the number of its passage, ``[2] 38.2 bar``, or with zero when it abstains,
``[0] I don't know.`` A model may also cite in the middle of a longer answer; then each citation
covers the text up to the next one, or, where the answer ends with a citation, the text before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from phi3_industry.grounding.matching import (
    count_digits,
    count_words,
    find_whole,
    fold,
    fold_with_origin,
    is_boundary,
    numbers_in,
    words_of,
)
from phi3_industry.grounding.prompt import ABSTENTION

__all__ = ["Citation", "ParsedAnswer", "parse_answer", "renumber", "repair", "verify"]

_MARKER = re.compile(r"\[(\d{1,4})\]")
_JOINED = re.compile(r"[-‐‑–/_.@'’&+]\w")
_FREE_NUMBER = re.compile(r"(?<![A-Za-z\d.,/_-])\d+(?:[.,/-]\d+)*(?![A-Za-z\d_-])")
_LEAST_QUOTED_SHARE = 0.5
_LEAST_SHARE_OF_WORDS = 2 / 3
_LEAST_WORDS = 3


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
        claim: The part of the answer that it was cited for.
    """

    marker: int
    index: int | None
    quote: str
    verified: bool
    claim: str = ""


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
    abstains = not body or (bool(numbers) and not markers) or fold(body) == fold(abstention)
    return ParsedAnswer(markers=markers, body=body, abstained=abstains)


def verify(text: str, passages: Sequence[str]) -> list[Citation]:
    """Check every citation of an answer against the passages it was given.

    The claim of a citation is the text after it, up to the next one; in an answer that ends with
    a citation, it is the text before it. Citations side by side share their claim. A claim is
    verified if

    - its first clause, up to a punctuation mark or the end, stands in the cited passage word for
      word, and what follows adds no number: a house may add terms of its own after a quoted fact,
      ``[2] 38.2 bar | PDIS``;
    - or one unbroken run of the passage makes up at least half of it and holds every number in
      it;
    - or the claim has three words or more, and words of the passage make up two thirds of
      it and every number in it: a sentence around a fact, ``[2] The pressure is 38.2 bar.``

    Compatibility forms, letter case and runs of white space do not count in the comparison; words
    and numbers are compared whole, so that "3 bar" does not stand in "13 bars".

    Args:
        text: The answer as the model gave it.
        passages: The passages in the order of their numbers.

    Returns:
        One citation for each marker above zero, in order of appearance.
    """
    return [_check(claim, passages) for claim in _claims(text) if claim.marker]


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
    parts: list[str] = []
    citations: list[Citation] = []
    end = 0
    for claim in _claims(text):
        before = text[end : claim.begin]
        end = claim.end
        if not claim.marker:  # citation zero
            parts += [before, text[claim.begin : end]]
            continue
        citation = _check(claim, passages)
        if not citation.verified:
            numbers = range(1, len(passages) + 1)
            others = [_check(replace(claim, marker=number), passages) for number in numbers]
            bearing = [other for other in others if other.verified]
            if len(bearing) == 1:
                citation = bearing[0]
        citations.append(citation)
        if citation.verified:
            parts += [before, f"[{citation.marker}]"]
        else:
            parts.append(before.rstrip() if claim.trailing else before)
            end += len(text[end:]) - len(text[end:].lstrip()) if not claim.trailing else 0
    return "".join([*parts, text[end:]]), citations


def renumber(text: str, numbers: Sequence[int]) -> str:
    """Give the citations of an answer other numbers.

    Args:
        text: The answer.
        numbers: The new number of each passage, in the order of the old ones. Numbers beyond
            them, and zero, stay.
    """

    def replaced(match: re.Match[str]) -> str:
        old = int(match.group(1))
        return f"[{numbers[old - 1]}]" if 0 < old <= len(numbers) else match.group(0)

    return _MARKER.sub(replaced, text)


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """A citation as it stands in an answer, and what it is cited for.

    Attributes:
        marker: The cited number.
        begin: Where the marker begins in the text.
        end: Where it ends.
        text: What is claimed.
        trailing: Whether the marker stands behind its claim.
    """

    marker: int
    begin: int
    end: int
    text: str
    trailing: bool


def _claims(text: str) -> list[_Claim]:
    """Find each citation of an answer with its claim."""
    found = list(_MARKER.finditer(text))
    if not found:
        return []
    trailing = bool(count_words(text[: found[0].start()])) and not count_words(
        text[found[-1].end() :]
    )
    edges = [0, *(match.end() for match in found)] if trailing else []
    starts = [*(match.start() for match in found), len(text)]
    claims = [
        text[edges[n] : match.start()] if trailing else text[match.end() : starts[n + 1]]
        for n, match in enumerate(found)
    ]
    # side by side: the neighbour's claim
    order = range(1, len(claims)) if trailing else range(len(claims) - 2, -1, -1)
    for n in order:
        if not claims[n].strip():
            claims[n] = claims[n - 1 if trailing else n + 1]
    return [
        _Claim(
            marker=int(match.group(1)),
            begin=match.start(),
            end=match.end(),
            text=claim,
            trailing=trailing,
        )
        for match, claim in zip(found, claims, strict=True)
    ]


def _check(claim: _Claim, passages: Sequence[str]) -> Citation:
    marker, said = claim.marker, claim.text.strip()
    if marker > len(passages):
        return Citation(marker=marker, index=None, quote="", verified=False, claim=said)
    quote, verified = _quote(claim.text, passages[marker - 1])
    return Citation(marker=marker, index=marker - 1, quote=quote, verified=verified, claim=said)


def _quote(claim: str, passage: str) -> tuple[str, bool]:
    """Find what a passage says of a claim, and whether that bears the claim."""
    folded_passage, origin = fold_with_origin(passage)
    folded = fold(claim)

    def spelled(start: int, length: int) -> str:
        return passage[origin[start] : origin[start + length - 1] + 1]

    for end in _clause_ends(folded):
        start = find_whole(folded_passage, folded[:end])
        if start >= 0 and _adds_no_number(folded[end:], folded_passage):
            return spelled(start, end), True
    begin, end, start = _longest_shared(folded, folded_passage)
    if end == begin:
        return "", False
    run = folded[begin:end]
    share = count_words(run) / count_words(folded)
    whole_numbers = count_digits(run) == count_digits(folded)
    verified = (share >= _LEAST_QUOTED_SHARE and whole_numbers) or _in_own_words(folded, passage)
    return spelled(start, end - begin), verified


def _in_own_words(claim: str, passage: str) -> bool:
    """Tell whether words of a passage make up most of a claim, and all of its numbers."""
    words, known = words_of(claim), set(words_of(passage))
    if len(words) < _LEAST_WORDS or not set(numbers_in(claim)) <= set(numbers_in(passage)):
        return False
    shared = sum(len(word) for word in words if word in known)
    return shared >= _LEAST_SHARE_OF_WORDS * sum(map(len, words))


def _adds_no_number(rest: str, passage: str) -> bool:
    """Tell whether what follows a clause holds no number but those of the passage.

    Numbers that belong to a code of letters and digits, such as ``TOIL-2``, are terms.
    """
    return set(_FREE_NUMBER.findall(rest)) <= set(numbers_in(passage))


def _clause_ends(text: str) -> list[int]:
    """Give the places where a first clause may end, longest first."""
    ends = []
    for end in range(1, len(text) + 1):
        if text[end - 1].isspace() or not is_boundary(text, end) or not count_words(text[:end]):
            continue
        if _JOINED.match(text, end):
            continue  # inside a word such as P-4471
        following = text[end:].lstrip()
        if not following or not (following[0].isalnum() or text[end - 1] in "([{"):
            ends.append(end)
    return ends[::-1]


def _longest_shared(claim: str, passage: str) -> tuple[int, int, int]:
    """Find the longest run of whole words of a claim that stands in a passage.

    Returns:
        Begin and end of the run in the claim, and its begin in the passage; all zero if none.
    """
    bounds = [place for place in range(len(claim) + 1) if is_boundary(claim, place)]
    best = (0, 0, 0)
    for begin in bounds:
        for end in reversed(bounds):
            if end - begin <= best[1] - best[0]:
                break
            candidate = claim[begin:end]
            if candidate != candidate.strip() or not count_words(candidate):
                continue
            start = find_whole(passage, candidate)
            if start >= 0:
                best = (begin, end, start)
                break
    return best
