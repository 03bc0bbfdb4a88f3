"""Conversations as token ids: a context, and a branch for each question about it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .conversations import Conversation, Turn

__all__ = ["Branch", "Encoded", "Encoder"]

MARKER_WEIGHT = 3.0
"""Loss weight of the passage number: the reader has to find before it can copy."""
FIRST_TOKEN_WEIGHT = 2.5
"""Loss weight of the value's first token, which locates it inside the passage."""
QUESTION_WEIGHT = 0.2
"""Loss weight of the question's tokens: its names stand in the passages, a copying exercise."""
_VALUE = 3
"""Tokens before the value: `` [``, the number, and ``]``."""


@dataclass(frozen=True)
class Branch:
    """One question and its answer, as they follow the context.

    Attributes:
        ids: Token ids: the rest of the user's turn, then the assistant's with its end token.
        answer_start: Index of the answer's first token.
        weights: Loss weight of each token as a target; above 0 for every token of the answer.
        marker: Number of the passage that holds the answer, 0 for none.
        pointers: Index of an answer's token, and the places of the context that hold what it
            copies; the passage number points to the value, an abstention to nothing.
    """

    ids: tuple[int, ...]
    answer_start: int
    weights: tuple[float, ...]
    marker: int
    pointers: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens.

    Attributes:
        context: Token ids of everything before the line of the question.
        branches: The questions about it.
        shape: Shape of its passages.
    """

    context: tuple[int, ...]
    branches: tuple[Branch, ...]
    shape: str

    @property
    def tokens(self) -> int:
        """Number of tokens, the context counted once."""
        return len(self.context) + sum(len(branch.ids) for branch in self.branches)


class Encoder:
    """Turns conversations into tokens with a checkpoint's own tokenizer.

    Args:
        tokenizer: The tokenizer, with Phi-3's control tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._roles = {
            role: tokenizer.convert_tokens_to_ids(f"<|{role}|>")
            for role in ("system", "user", "assistant")
        }
        self.end = tokenizer.convert_tokens_to_ids("<|end|>")
        self.pad = tokenizer.pad_token_id
        self.first_text_id = max(tokenizer.added_tokens_decoder) + 1
        self.vocab_size = len(tokenizer)

    def text(self, text: str) -> list[int]:
        """Encode content on its own."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Encode messages and open an assistant turn, as the chat template does."""
        ids: list[int] = []
        for message in messages:
            ids += [self._roles[message["role"]], *self.text(message["content"]), self.end]
        return [*ids, self._roles["assistant"]]

    def conversation(self, conversation: Conversation) -> Encoded:
        """Encode a conversation, each answer with its loss weights and what it copies."""
        *system, user = conversation.prompt("")
        head, tail = conversation.around_question
        assert user["content"] == head + tail  # noqa: S101
        cut = max(0, head.rfind("\n"))  # what stands before a line break is split before it, too
        context = [*self.prompt(system)[:-1], self._roles["user"]]
        encoding = self._backend.encode(head[:cut], add_special_tokens=False)
        source = _Source(head[:cut], list(encoding.ids), encoding.offsets, offset=len(context))
        if cut:
            context += encoding.ids
        branches = []
        for turn in conversation.turns:
            rest = self.text(head[cut:] + turn.question + tail)
            if cut:
                rest = rest[1:]  # the space that the tokenizer puts before every text
            question = [*rest, self.end, self._roles["assistant"]]
            branches.append(self._branch(question, turn, source, conversation.passages))
        return Encoded(tuple(context), tuple(branches), conversation.shape)

    def _branch(
        self, question: list[int], turn: Turn, source: _Source, passages: Sequence[str]
    ) -> Branch:
        answer = [*self.text(turn.answer), self.end]
        start = len(question)
        question_weights = [0.0, *[QUESTION_WEIGHT] * (start - 3), 0.0, 0.0]
        pointers: list[tuple[int, tuple[int, ...]]] = []
        if turn.marker:
            value = answer[_VALUE:-1]
            places = source.places(passages, turn.marker - 1, turn.value, value)
            if places:
                pointers.append((start + 1, places))
                pointers += [
                    (start + _VALUE + i, tuple(place + i for place in places))
                    for i in range(len(value))
                ]
        else:
            pointers.append((start + 1, (0,)))
        return Branch(
            ids=(*question, *answer),
            answer_start=start,
            weights=(*question_weights, *_answer_weights(len(answer), abstains=not turn.marker)),
            marker=turn.marker,
            pointers=tuple(pointers),
        )


def _answer_weights(length: int, *, abstains: bool) -> tuple[float, ...]:
    """Weights of `` [``, the number, ``]``, the value's tokens and the end token."""
    first, rest = (0.5, 0.3) if abstains else (FIRST_TOKEN_WEIGHT, 1.0)
    weights = [0.2, MARKER_WEIGHT, 0.2, first, *[rest] * length]
    return (*weights[: length - 1], 1.0)


class _Source:
    """The encoded text in front of the question, where values are looked up."""

    def __init__(
        self, text: str, ids: list[int], offsets: Sequence[tuple[int, int]], *, offset: int
    ) -> None:
        self._text = text
        self._ids = ids
        self._starts = [start for start, _ in offsets]
        self._offset = offset

    def places(
        self, passages: Sequence[str], index: int, value: str, tokens: list[int]
    ) -> tuple[int, ...]:
        """Find where a passage holds a value with these very tokens, at most eight times."""
        begin = 0
        for number, passage in enumerate(passages[: index + 1], start=1):
            begin = self._text.find(passage, self._text.find(f"[{number}] ", begin))
            if begin < 0:
                return ()
        end = begin + len(passages[index])
        found: list[int] = []
        at = self._text.find(value, begin, end)
        while at >= 0 and len(found) < 8:
            place = bisect_right(self._starts, at) - 1
            if self._ids[place : place + len(tokens)] == tokens:
                found.append(place + self._offset)
            at = self._text.find(value, at + 1, end)
        return tuple(found)
