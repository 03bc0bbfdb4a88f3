"""Guessing the next tokens from the prompt: answers quote, and several guesses cost one pass.

A pass over a few tokens costs little more than over one, because the weights are read once. So
the tokens that followed the last words where they stood before are computed along; those that
the model would have chosen itself are kept, and the answer is the same.

Source: prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding; without the
model that drafts in arXiv 2211.17192.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PromptLookup"]

_WORD = 3  # tokens that have to stand in the text already
_WORD_IN_QUOTE = 2  # the same, after a guess that was right
_FIRST_GUESSES = 3
_FIRST_PAUSE = 8
_LONGEST_PAUSE = 256


class PromptLookup:
    """Guesses the tokens of one answer, few at first.

    Guesses that are right make for more. One that is wrong is followed by a pause, which doubles
    each time until a guess is right again: text that quotes nothing costs nearly nothing.

    Args:
        most: The most tokens to guess at once.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._guesses = min(_FIRST_GUESSES, most)
        self._words = {_WORD: dict[tuple[int, ...], int](), _WORD_IN_QUOTE: {}}
        self._read = 0
        self._quoting = False
        self._pause = _FIRST_PAUSE
        self._resume = 0

    def guess(self, ids: Sequence[int]) -> list[int]:
        """Guess what follows.

        Args:
            ids: The tokens of the prompt and of the answer so far; those of the last call and
                perhaps more.

        Returns:
            The guesses, perhaps none.
        """
        self._take(ids)
        if len(ids) < self._resume:
            return []
        for length in (_WORD, _WORD_IN_QUOTE) if self._quoting else (_WORD,):
            after = self._words[length].get(tuple(ids[-length:]))
            if after is not None:
                return self._copy(ids, after)
        self._quoting = False
        return []

    def learn(self, ids: Sequence[int], *, guessed: int, right: int) -> None:
        """Take note of how a guess went.

        Args:
            ids: All tokens by now.
            guessed: Tokens that were guessed, at least 1.
            right: How many of them were right.
        """
        self._quoting = right > 0
        if right == guessed:
            self._guesses = min(2 * self._guesses + 1, self._most)
        elif right:
            self._guesses = min(right + 1, self._most)
        else:
            self._guesses = min(_FIRST_GUESSES, self._most)
            self._resume = len(ids) + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return
        self._pause = _FIRST_PAUSE

    def _copy(self, ids: Sequence[int], start: int) -> list[int]:
        """Copy tokens from a place on; past the end the guesses themselves are copied."""
        guesses: list[int] = []
        for place in range(start, start + self._guesses):
            guesses.append(ids[place] if place < len(ids) else guesses[place - len(ids)])
        return guesses

    def _take(self, ids: Sequence[int]) -> None:
        """Note what follows the words that are complete: the last place counts."""
        for length, words in self._words.items():
            for after in range(max(self._read, length), len(ids)):
                words[tuple(ids[after - length : after])] = after
        self._read = len(ids)
