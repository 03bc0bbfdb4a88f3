"""Conversations as token ids with a loss weight for each token, and resumable batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .conversations import Conversation, draw_conversation
from .draw import Draw, Split
from .stages import STAGES
from .tables import Table

__all__ = ["BatchStream", "Encoded", "Encoder", "StreamState", "collate", "held_out_set"]

MARKER_WEIGHT = 3.0
"""Loss weight of the passage number: the reader has to find before it can copy."""
FIRST_TOKEN_WEIGHT = 2.5
"""Loss weight of the value's first token, which locates it inside the passage."""
QUESTION_WEIGHT = 0.1
"""Loss weight of later questions, whose names stand in the passages; a light copying exercise."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens.

    Attributes:
        ids: Token ids.
        weights: Loss weight of each token as a target; 0 for what is only read.
        answers: ``(start, stop, marker)`` of each answer, its end token included.
        shape: Shape of its passages.
    """

    ids: list[int]
    weights: list[float]
    answers: tuple[tuple[int, int, int], ...]
    shape: str


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
        """Encode a conversation with its answers and their loss weights."""
        ids: list[int] = []
        weights: list[float] = []
        answers = []
        opened = len(conversation.opening)
        turns = iter(conversation.turns)
        for number, message in enumerate(conversation.messages()):
            body = self.text(message["content"])
            ids.append(self._roles[message["role"]])
            weights.append(0.0)
            if message["role"] == "assistant":
                marker = next(turns).marker
                answers.append((len(ids), len(ids) + len(body) + 1, marker))
                weights += [*_answer_weights(len(body), abstains=marker == 0), 1.0]
            else:
                weights += [QUESTION_WEIGHT if number >= opened else 0.0] * len(body) + [0.0]
            ids += [*body, self.end]
        return Encoded(ids, weights, tuple(answers), conversation.shape)


def _answer_weights(length: int, *, abstains: bool) -> list[float]:
    """Weights of `` [``, the number, ``]``, and the value's tokens."""
    first, rest = (0.5, 0.3) if abstains else (FIRST_TOKEN_WEIGHT, 1.0)
    return [1.0, MARKER_WEIGHT, 0.2, first, *[rest] * length][:length]


def collate(batch: Sequence[Encoded], *, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right.

    Returns:
        Ids and weights, both ``(batch, seq_len)``.
    """
    length = max(len(item.ids) for item in batch)
    ids = torch.full((len(batch), length), pad, dtype=torch.long)
    weights = torch.zeros(len(batch), length)
    for i, item in enumerate(batch):
        ids[i, : len(item.ids)] = torch.tensor(item.ids)
        weights[i, : len(item.ids)] = torch.tensor(item.weights)
    return ids, weights


def held_out_set(
    encoder: Encoder, *, stage: int, conversations: int, seed: int, split: Split = "eval"
) -> list[Encoded]:
    """Draw a fixed set of conversations on held-out names, values and wordings."""
    draw = Draw(seed, split)
    difficulty = STAGES[stage].difficulty
    return [encoder.conversation(draw_conversation(draw, difficulty)) for _ in range(conversations)]


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands.

    Attributes:
        chunk: Number of the chunk whose batches come next.
        position: Batches of it that were handed out.
        stage: Stage that the chunk is drawn at.
    """

    chunk: int = 0
    position: int = 0
    stage: int = 0


class BatchStream:
    """An endless stream of batches that goes on from any recorded place.

    Chunk ``n`` depends on nothing but the seed, ``n`` and its stage, so that a stream restored
    from its state hands out the very batches that the first one would have.

    Args:
        encoder: Turns conversations into tokens.
        seed: Seed.
        tokens: Upper bound on a batch's tokens, padding included.
        state: Where to begin.
        tables: Real tables to mix in.
        chunk_size: Conversations drawn and sorted by length at a time.
        current_share: Share of conversations at the current stage; the rest is drawn from the
            earlier ones.
        max_length: Longer conversations are left out.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        seed: int,
        tokens: int = 4096,
        state: StreamState | None = None,
        tables: Sequence[Table] = (),
        chunk_size: int = 256,
        current_share: float = 0.8,
        max_length: int = 1536,
    ) -> None:
        self._encoder = encoder
        self._seed = seed
        self._tokens = tokens
        self._tables = tables
        self._chunk_size = chunk_size
        self._current_share = current_share
        self._max_length = max_length
        self._next_stage = state.stage if state else 0
        self.state = state or StreamState()
        self._batches = self._draw_chunk(self.state)

    def promote(self, stage: int) -> None:
        """Draw the chunks after the current one at another stage."""
        self._next_stage = stage

    def next_batch(self) -> list[Encoded]:
        """Hand out the next batch."""
        if self.state.position == len(self._batches):
            self.state = StreamState(self.state.chunk + 1, 0, self._next_stage)
            self._batches = self._draw_chunk(self.state)
        batch = self._batches[self.state.position]
        self.state = StreamState(**{**asdict(self.state), "position": self.state.position + 1})
        return batch

    def _draw_chunk(self, state: StreamState) -> list[list[Encoded]]:
        draw = Draw(self._seed * 1_000_003 + state.chunk)
        items: list[Encoded] = []
        while len(items) < self._chunk_size:
            earlier = state.stage and not draw.chance(self._current_share)
            stage = draw.randrange(state.stage) if earlier else state.stage
            difficulty = STAGES[stage].difficulty
            item = self._encoder.conversation(
                draw_conversation(draw, difficulty, tables=self._tables)
            )
            if len(item.ids) <= self._max_length:
                items.append(item)
        items.sort(key=lambda item: len(item.ids))
        batches: list[list[Encoded]] = [[]]
        for item in items:
            if batches[-1] and (len(batches[-1]) + 1) * len(item.ids) > self._tokens:
                batches.append([])
            batches[-1].append(item)
        draw.shuffle(batches)
        return batches
