"""Resumable batches of encoded conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .conversations import draw_conversation
from .draw import Draw, Split
from .encoding import Encoded, Encoder
from .real_text import RealText
from .recall import recall_drill
from .stages import STAGES
from .tables import Table

__all__ = ["BatchStream", "StreamState", "held_out_set"]


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
        tokens: A batch is closed when it holds this many tokens.
        state: Where to begin.
        tables: Real tables to mix in.
        text: Real text to mix in.
        chunk_size: Conversations drawn at a time.
        current_share: Share of conversations at the current stage; the rest is drawn from the
            earlier ones.
        max_length: Conversations with a longer context are left out.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        seed: int,
        tokens: int = 4096,
        state: StreamState | None = None,
        tables: Sequence[Table] = (),
        text: RealText | None = None,
        chunk_size: int = 64,
        current_share: float = 0.85,
        max_length: int = 1024,
    ) -> None:
        self._encoder = encoder
        self._seed = seed
        self._tokens = tokens
        self._tables = tables
        self._text = text
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
        draw = Draw(self._seed * 1_000_003 + state.chunk, text=self._text)
        batches: list[list[Encoded]] = [[]]
        for _ in range(self._chunk_size):
            item = self._draw_item(draw, state.stage)
            if sum(other.tokens for other in batches[-1]) >= self._tokens:
                batches.append([])
            batches[-1].append(item)
        return batches

    def _draw_item(self, draw: Draw, stage: int) -> Encoded:
        while True:
            earlier = stage and not draw.chance(self._current_share)
            chosen = STAGES[draw.randrange(stage) if earlier else stage]
            if draw.chance(chosen.recall):
                return recall_drill(
                    draw,
                    first_id=self._encoder.first_text_id,
                    vocab_size=self._encoder.vocab_size,
                )
            item = self._encoder.conversation(
                draw_conversation(draw, chosen.difficulty, tables=self._tables)
            )
            if len(item.context) <= self._max_length:
                return item
