"""The way from the middle of an answer to its nearest end, under a grammar.

A model that runs out of tokens inside a JSON object leaves nothing of use, and small models like
to run out: they repeat themselves inside a string. So an answer whose budget grows short is led
to an end that still fits. A grammar library says what may come next and not how far the end is;
here it is walked there on a copy of the parse.
"""

from __future__ import annotations

import re
import string
from typing import Any

__all__ = ["EndingFinder"]

_ESCAPE = ord("\\")

_STEPS = 1024
"""Tokens after which a walk that has found no end is given up."""

_OUTSIDE = b'}],"0123456789ntf[{-'
"""What ends JSON soonest, best first, where no string is open: close, go on, a short value."""

_INSIDE = b'"' + (string.digits + string.ascii_lowercase + string.ascii_uppercase).encode()
"""What ends a JSON string soonest: its quote, else any harmless letter."""


class EndingFinder:
    """Walks parses to a near end.

    The walk is greedy. It takes what is forced, closes what can be closed, and elsewhere prefers
    the byte after which something can be closed, else one that leads to a new state. The ending
    is legal always, and the shortest in all but contrived grammars.

    Args:
        tokens: The tokenizer, as llguidance knows it.
        never: Token ids that no ending may hold.
    """

    def __init__(self, tokens: Any, *, never: frozenset[int]) -> None:
        self._tokens = tokens
        self._bytes = [tokens.decode_bytes([token]) for token in range(tokens.vocab_size)]
        # the last of several tokens wins: byte-fallback tokens come first in their vocabularies
        self._token_of: dict[int, int] = {
            text[0]: token
            for token, text in enumerate(self._bytes)
            if len(text) == 1 and token not in never
        }

    def bytes_of(self, token: int) -> bytes:
        """Give the text of a token."""
        return bytes(self._bytes[token])

    def tokens_like(self, pattern: bytes) -> list[int]:
        """Give the tokens whose text is matched by a regular expression."""
        return [token for token, text in enumerate(self._bytes) if re.fullmatch(pattern, text)]

    def find(self, matcher: Any, *, text: bytes) -> list[int] | None:
        """Find tokens that end an answer.

        Args:
            matcher: The parse so far, an llguidance ``LLMatcher``; it is walked along.
            text: The answer so far.

        Returns:
            Tokens after which the answer may end, or ``None`` if none were found.
        """
        place = _JsonPlace()
        place.take(text)
        path: list[int] = []
        seen: set[bytes] = set()
        while not matcher.is_accepting():
            forced = matcher.compute_ff_bytes()
            if forced:
                step = list(self._tokens.tokenize_bytes(forced))
            else:
                byte = self._choose(matcher, place=place, seen=seen)
                step = [] if byte is None else [self._token_of[byte]]
                forced = b"" if byte is None else bytes([byte])
            if not step or len(path) > _STEPS or not matcher.consume_tokens(step):
                return None
            if place.take(forced):
                seen.clear()
            path += step
        return path

    def _choose(self, matcher: Any, *, place: _JsonPlace, seen: set[bytes]) -> int | None:
        """Choose the next byte of the walk."""
        preferred = _INSIDE if place.string else _OUTSIDE
        closers = (preferred[:1] if place.string else preferred[:3]) if place.json else b""
        for closer in closers:
            if self._fits(matcher, closer):
                return closer
        order: list[int] = list(dict.fromkeys([*preferred, *self._token_of]))
        possible = [byte for byte in order if self._fits(matcher, byte)]
        if place.string and len(possible) > 1:
            possible = [byte for byte in possible if byte != _ESCAPE]  # its quote closes nothing
        if len(possible) < 2:
            return possible[0] if possible else None
        for byte in possible:
            ahead = self._after(matcher, byte)
            if ahead.is_accepting() or any(self._fits(ahead, closer) for closer in closers):
                return byte
        for byte in possible:
            state = self._after(matcher, byte).compute_bitmask()
            if state not in seen:
                seen.add(state)
                return byte
        return possible[0]

    def _after(self, matcher: Any, byte: int) -> Any:
        ahead = matcher.deep_copy()
        ahead.consume_token(self._token_of[byte])
        return ahead

    def _fits(self, matcher: Any, byte: int) -> bool:
        token = self._token_of.get(byte)
        return token is not None and bool(matcher.validate_tokens([token]))


class _JsonPlace:
    """Where a text ends: whether it is JSON, and whether a string is open in it."""

    def __init__(self) -> None:
        self.json = False
        self.string = False
        self._escaped = False
        self._begun = False

    def take(self, text: bytes) -> bool:
        """Read on; say whether a string was opened or closed."""
        turned = False
        for byte in text if self._begun else text.lstrip(b" "):
            if not self._begun:
                self._begun, self.json = True, byte in b'{["'
            if not self.json:
                return False
            if self._escaped:
                self._escaped = False
            elif self.string and byte == _ESCAPE:
                self._escaped = True
            elif byte == ord('"'):
                self.string = not self.string
                turned = True
        return turned
