"""Token ids become text as they come: no half characters, nothing of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["StreamDecoder"]

_HALF_CHARACTER = "\ufffd"


class StreamDecoder:
    """Turns a growing sequence of tokens into text that never has to be taken back.

    A token may hold half a character, and a text may turn out to be the beginning of a stop
    text. Both are held back until they are certain.

    Args:
        decode: Turns token ids into text.
        stop: Texts at which the answer ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0  # where the ids begin that are decoded again with each new one
        self._read = 0  # ids whose text is known for certain
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Take one token and give the text that became certain; sets ``stopped`` at a stop text."""
        self._ids.append(token_id)
        known = self._decode(self._ids[self._window : self._read])
        text = self._decode(self._ids[self._window :])
        if text.endswith(_HALF_CHARACTER) or len(text) <= len(known):
            return ""
        self._window, self._read = self._read, len(self._ids)
        return self._release(text[len(known) :])

    def push_text(self, text: str) -> str:
        """Take text of a server that does not name its tokens, and give what became certain."""
        return "" if self.stopped else self._release(text)

    def flush(self) -> str:
        """Give what is still held back, at the end of an answer that no stop text ended."""
        if self.stopped:
            return ""
        known = self._decode(self._ids[self._window : self._read])
        text = self._decode(self._ids[self._window :])[len(known) :]
        self._read = len(self._ids)
        released = self._release(text)
        if not self.stopped:
            released, self._held = released + self._held, ""
        return released

    def _release(self, text: str) -> str:
        self._held += text
        found = [
            position for position in (self._held.find(stop) for stop in self._stop) if position >= 0
        ]
        if found:
            released, self._held = self._held[: min(found)], ""
            self.stopped = True
            return released
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that is the beginning of a stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
