"""Texts that say the same thing twice, in any script.

Two texts are near-duplicates if they have most runs of five characters in common and the same
numbers: what differs in a number is another fact, however alike it is worded.

Source: Broder, "On the resemblance and containment of documents", 1997; candidates are found by
MinHash and checked exactly.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from phi3_industry.finetuning.evidence import folded

__all__ = ["find_copies", "near_duplicates"]

_SHINGLE_CHARS = 5
_SIMILARITY = 0.8
"""Share of all runs that both texts have, from which on they are near-duplicates."""

_PERMUTATIONS = 128
_BANDS_AND_ROWS = (32, 4)
"""Two texts at the similarity above become candidates with a probability above 0.99999."""

_NUMBER = re.compile(r"\d+")


def find_copies(texts: Sequence[str], among: Sequence[str]) -> list[int]:
    """Find which texts are near-duplicates of any text among others.

    Args:
        texts: The texts that are looked at.
        among: The texts they may be copies of.

    Returns:
        Indexes into ``texts``, ascending.
    """
    seen = _Index()
    for text in among:
        seen.add(text)
    return [index for index, text in enumerate(texts) if seen.has(text)]


def near_duplicates(texts: Sequence[str]) -> list[int]:
    """Find which texts are near-duplicates of an earlier one.

    Args:
        texts: The texts.

    Returns:
        Indexes into ``texts``, ascending.
    """
    seen = _Index()
    repeated = []
    for index, text in enumerate(texts):
        if seen.has(text):
            repeated.append(index)
        else:
            seen.add(text)
    return repeated


class _Index:
    """Texts that were seen, parted by their numbers."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, ...], Any] = defaultdict(_new_table)
        self._shingles: list[frozenset[str]] = []

    def add(self, text: str) -> None:
        shingles = _shingles(text)
        self._tables[_numbers(text)].insert(len(self._shingles), _min_hash(shingles))
        self._shingles.append(shingles)

    def has(self, text: str) -> bool:
        numbers = _numbers(text)
        if numbers not in self._tables:
            return False
        shingles = _shingles(text)
        candidates = self._tables[numbers].query(_min_hash(shingles))
        return any(_similarity(shingles, self._shingles[other]) for other in candidates)


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(sorted(_NUMBER.findall(folded(text))))


def _shingles(text: str) -> frozenset[str]:
    plain = folded(text)
    places = range(max(1, len(plain) - _SHINGLE_CHARS + 1))
    return frozenset(plain[place : place + _SHINGLE_CHARS] for place in places)


def _similarity(one: frozenset[str], other: frozenset[str]) -> bool:
    return len(one & other) >= _SIMILARITY * len(one | other)


def _min_hash(shingles: frozenset[str]) -> Any:
    from datasketch import MinHash

    made = MinHash(num_perm=_PERMUTATIONS)
    made.update_batch([shingle.encode() for shingle in shingles])
    return made


def _new_table() -> Any:
    from datasketch import MinHashLSH

    return MinHashLSH(num_perm=_PERMUTATIONS, params=_BANDS_AND_ROWS)
