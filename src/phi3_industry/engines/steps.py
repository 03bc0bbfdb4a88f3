"""The steps of a running batch: what is computed, and what becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phi3_industry.engines.generation import Generation
from phi3_industry.engines.packed_model import PASS_TOKENS, PackedModel
from phi3_industry.engines.packing import PackedSpan
from phi3_industry.engines.prefix_cache import PrefixCache, shares_next_block
from phi3_industry.errors import EngineError

if TYPE_CHECKING:
    import torch

__all__ = ["EngineStatistics", "Steps", "fail_all"]

_LOGGER = logging.getLogger(__name__)

Part = tuple[Generation, PackedSpan]


@dataclass
class EngineStatistics:
    """What an engine has computed.

    Attributes:
        passes: Passes of the model over requests.
        tokens: Tokens that were computed, those of prompts included.
        recomputed: Sequences that were computed anew: at the switch of their rotary factors, or
            because memory ran out.
        memory_shortages: How often memory ran out.
        guessed: Tokens that were guessed from the prompt.
        guessed_right: How many of them the model chose.
    """

    passes: int = 0
    tokens: int = 0
    recomputed: int = 0
    memory_shortages: int = 0
    guessed: int = 0
    guessed_right: int = 0


class Steps:
    """Computes the steps of a batch; for one thread alone.

    Args:
        model: Computes the passes.
        prefixes: Beginnings of texts that were read before.
        begin: Called before the first pass of a request.
        prefill_chunk: Prompt tokens in one step beside requests that are being answered.
        most_guessing: Requests up to which a step computes guessed tokens along.

    Attributes:
        statistics: What was computed.
    """

    def __init__(
        self,
        model: PackedModel,
        prefixes: PrefixCache,
        *,
        begin: Callable[[Generation], None],
        prefill_chunk: int,
        most_guessing: int,
    ) -> None:
        self.statistics = EngineStatistics()
        self._model = model
        self._prefixes = prefixes
        self._begin = begin
        self._prefill_chunk = prefill_chunk
        self._most_guessing = most_guessing

    def run(
        self, chosen: Sequence[Generation], *, beside: Sequence[Generation]
    ) -> list[Generation]:
        """Compute the next token of each request, or the next part of its prompt.

        Args:
            chosen: The requests to compute.
            beside: All requests that have begun.

        Returns:
            Requests for which there was no memory; they are to begin anew.
        """
        for generation in chosen:
            try:
                self._prepare(generation)
            except Exception as error:
                generation.fail(error)
        answering = any(one.completion_tokens for one in beside)
        budget = self._prefill_chunk if answering else PASS_TOKENS
        groups: dict[Any, list[Part]] = {}
        for part in self._parts([one for one in chosen if not one.gone], budget=budget):
            groups.setdefault(self._model.can_share(part[1]), []).append(part)
        back: list[Generation] = []
        for group in groups.values():
            try:
                back += self._compute(group)
            except Exception as error:
                fail_all((generation for generation, _ in group), error)
        return back

    def _prepare(self, generation: Generation) -> None:
        """Begin a request, or begin it anew where its keys do not fit any longer."""
        cache = generation.cache
        length = len(generation.ids)
        if cache is None:
            if generation.completion_tokens == 0:
                self._begin(generation)
            generation.cache = self._model.new_cache(length)
        elif cache.long_rope != self._model.needs_long_rope(length):
            # transformers' own generation computes everything anew at this place, too
            self.statistics.recomputed += 1
            generation.cache = self._model.new_cache(length)

    def _parts(self, chosen: Sequence[Generation], *, budget: int) -> Iterator[Part]:
        """Say which tokens are computed in this step."""
        readers: list[Generation] = []
        for generation in chosen:
            cache = generation.cache
            assert cache is not None  # noqa: S101 - it is prepared
            if cache.length == 0:
                if not budget or self._is_being_read(generation, readers):
                    continue
                with self._spare_memory():
                    self._prefixes.fill(cache, generation.ids, adapter=generation.adapter)
            tokens = generation.uncomputed
            keep = 1
            if len(tokens) > 1:
                readers.append(generation)
                keep = 1 if len(tokens) <= budget else 0
                tokens = tokens[:budget]
                budget -= len(tokens)
            elif len(chosen) <= self._most_guessing:
                tokens = tokens + self._guess(generation)
                keep = len(tokens)
            if tokens:
                span = PackedSpan(
                    cache=cache, token_ids=tokens, adapter=generation.adapter, keep=keep
                )
                yield generation, span

    def _guess(self, generation: Generation) -> list[int]:
        guesses = generation.guess()
        length = len(generation.ids)
        # a pass takes its rotary factors by its last position, and what is kept must fit
        if self._model.needs_long_rope(length + len(guesses)) != self._model.needs_long_rope(
            length
        ):
            return []
        return guesses

    def _is_being_read(self, generation: Generation, readers: Sequence[Generation]) -> bool:
        """Say whether another is just reading the same text: it is worth waiting for."""
        assert generation.cache is not None  # noqa: S101 - it is prepared
        if not self._prefixes.max_bytes:
            return False
        adapter, long_rope = generation.adapter, generation.cache.long_rope
        known = self._prefixes.reusable(generation.ids, adapter=adapter, long_rope=long_rope)
        return any(
            other.adapter == adapter
            and other.cache is not None
            and other.cache.long_rope == long_rope
            and shares_next_block(generation.ids, other.ids, known=known)
            for other in readers
        )

    def _compute(self, group: list[Part]) -> list[Generation]:
        """Compute a pass and deliver its tokens; go on with half of it when memory runs out."""
        import torch

        try:
            logits = self._model.logits([span for _, span in group])
        except torch.OutOfMemoryError:
            if self._prefixes.statistics.nbytes:
                self._prefixes.clear()
                return self._compute(group)
            if len(group) == 1:
                raise
            half = (len(group) + 1) // 2
            return self._compute(group[:half]) + self._without_memory(group[half:])
        self.statistics.passes += 1
        self.statistics.tokens += sum(len(span.token_ids) for _, span in group)
        for (generation, span), kept in zip(group, logits, strict=True):
            span.cache.commit(len(span.token_ids) - max(0, span.keep - 1))
            if span.keep and not generation.gone:
                self._advance(generation, span, kept)
        return []

    def _advance(self, generation: Generation, span: PackedSpan, logits: torch.Tensor) -> None:
        first_token = generation.completion_tokens == 0
        guesses = span.token_ids[len(span.token_ids) - span.keep + 1 :]
        try:
            right = generation.advance(logits, guesses=guesses)
        except Exception as error:
            generation.fail(error)
            return
        span.cache.commit(right)
        self.statistics.guessed += len(guesses)
        self.statistics.guessed_right += right
        if first_token or generation.ended:
            with self._spare_memory():
                self._prefixes.keep(span.cache, generation.ids, adapter=generation.adapter)

    @contextmanager
    def _spare_memory(self) -> Iterator[None]:
        """Do without the prefix cache when there is no memory for it."""
        import torch

        try:
            yield
        except torch.OutOfMemoryError:
            self._prefixes.clear()

    def _without_memory(self, group: Sequence[Part]) -> list[Generation]:
        """Free what some requests hold, so that they can begin anew."""
        self.statistics.memory_shortages += 1
        self.statistics.recomputed += len(group)
        _LOGGER.warning("Memory ran out; %d requests have to wait.", len(group))
        for generation, _ in group:
            generation.cache = None
        return [generation for generation, _ in group]


def fail_all(generations: Iterable[Generation], error: BaseException) -> None:
    """End requests with an error, each with one of its own: several threads raise them."""
    import torch

    message = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        message = (
            f"Memory ran out with a single sequence in the pass: {error}. Shorten the prompt, or "
            "load the model quantised."
        )
    for generation in generations:
        own = EngineError(message)
        own.__cause__ = error
        generation.fail(own)
