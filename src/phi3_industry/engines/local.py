"""The engine in this process: transformers computes, PEFT applies the adapters."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, TypeVar

from phi3_industry.engines.base import (
    Engine,
    GenerationRequest,
    Pooling,
    PromptLookupMode,
    TokenEvent,
)
from phi3_industry.engines.detokenizer import StreamDecoder
from phi3_industry.engines.generation import Generation
from phi3_industry.engines.packed_model import PackedModel
from phi3_industry.engines.packing import PackedSpan, SequenceCache
from phi3_industry.engines.prefix_cache import PrefixCache, PrefixStatistics
from phi3_industry.engines.prompt_lookup import PromptLookup
from phi3_industry.engines.sampling import GrammarStarter, TokenChooser
from phi3_industry.engines.scheduler import Scheduler
from phi3_industry.engines.scoring import (
    next_parts,
    passes_of_prompts,
    pooled_states,
    score_continuations,
)
from phi3_industry.engines.steps import EngineStatistics, Steps
from phi3_industry.engines.token_stream import Item, TokenStream
from phi3_industry.errors import AdapterError, EngineError
from phi3_industry.models.loading import LoadedModel
from phi3_industry.models.memory import available_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LocalEngine"]

_MOST_PREFIX_BYTES = 4 * 2**30

_GUESSES = 7
_GUESSES_NF4 = 3
_MOST_GUESSING = 4
"""Guessing makes eight rows of one: about two steps' time alone, but far more for a full batch.

In four bits a pass over eight tokens costs 2.7 of a single one, over four 1.45, on one core with
AVX-512: fewer guesses pay there.
"""

T = TypeVar("T")


class LocalEngine(Engine):
    """Computes with a model in this process.

    Requests that come at the same time, from threads or from event loops, for the base model and
    for any adapters, share one running batch. In float32 the greedy answer to a request is the
    same whoever shares its batch; in bfloat16 a token may differ where two are nearly as likely.

    Args:
        loaded: The base model.
        max_batch_size: The most requests that are computed at once.
        max_queue: The most requests that wait for their turn; one more is refused.
        prefill_chunk: Prompt tokens that are computed at once beside running requests. Fewer
            make these run more evenly, more let new ones begin sooner.
        prefix_cache_bytes: The most bytes of keys and values to keep of texts that were read, so
            that texts which begin alike are read once; 0 keeps none, ``None`` takes an eighth of
            the memory that is free, and 4 GiB at the most.
        prompt_lookup: Whether tokens are guessed from the prompt and computed along, for greedy
            requests without a grammar; the answers are the same. ``"auto"`` guesses while few
            requests run, where it was measured to gain; ``"on"`` always, ``"off"`` never.
        grammars: Compiles the grammars of requests; ``None`` takes
            :class:`~phi3_industry.engines.constrained.GrammarCompiler` when one comes.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_batch_size: int = 16,
        max_queue: int = 1024,
        prefill_chunk: int = 512,
        prefix_cache_bytes: int | None = None,
        prompt_lookup: PromptLookupMode = "auto",
        grammars: GrammarStarter | None = None,
    ) -> None:
        for name, value in (
            ("max_batch_size", max_batch_size),
            ("max_queue", max_queue),
            ("prefill_chunk", prefill_chunk),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        self.loaded = loaded
        self._model = PackedModel(loaded)
        self._grammars = grammars
        if prefix_cache_bytes is None:
            prefix_cache_bytes = min(available_memory(loaded.device) // 8, _MOST_PREFIX_BYTES)
        if prefix_cache_bytes < 0:
            raise ValueError(f"prefix_cache_bytes is {prefix_cache_bytes}; 0 switches it off.")
        self._prefixes = PrefixCache(prefix_cache_bytes)
        most_guessing = {"auto": _MOST_GUESSING, "on": max_batch_size, "off": 0}
        if prompt_lookup not in most_guessing:
            raise ValueError(
                f"prompt_lookup is {prompt_lookup!r}; it must be one of {list(most_guessing)}."
            )
        self._guesses = 0
        if prompt_lookup != "off":
            self._guesses = _GUESSES_NF4 if loaded.quantization == "nf4" else _GUESSES
        self._steps = Steps(
            self._model,
            self._prefixes,
            begin=self._begin,
            prefill_chunk=prefill_chunk,
            most_guessing=most_guessing[prompt_lookup],
        )
        self._scheduler = Scheduler(self._steps, max_batch_size=max_batch_size, max_queue=max_queue)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters, sorted."""
        return self._model.adapters.names

    @property
    def adapters_alone(self) -> tuple[str, ...]:
        """Names of the adapters that cannot share a batch with others, sorted.

        PEFT mixes plain LoRA alone; DoRA and other variants are computed in batches of their own.
        """
        return self._model.adapters.alone

    @property
    def statistics(self) -> EngineStatistics:
        """What was computed since the engine was made."""
        return self._steps.statistics

    @property
    def prefix_statistics(self) -> PrefixStatistics:
        """What was reused since the engine was made."""
        return self._prefixes.statistics

    def clear_prefix_cache(self) -> None:
        """Forget the texts that were read."""
        self._scheduler.run(self._prefixes.clear)

    def load_adapter(self, path: str | PathLike[str], *, name: str) -> None:
        """Load an adapter folder and make it known by a name.

        Raises:
            ValueError: The name is empty or taken.
            AdapterNotFoundError: There is no adapter at the path.
            AdapterError: The adapter is damaged or was made for something else.
        """
        self._scheduler.run(lambda: self._model.adapters.load(path, name=name))

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory.

        Raises:
            AdapterNotFoundError: No adapter of that name is loaded.
            AdapterError: Requests are being answered with it.
        """

        def unload() -> None:
            users = self._scheduler.uses(self._model.adapters.internal_name(name))
            if users:
                raise AdapterError(
                    f"The adapter '{name}' cannot be unloaded: {users} requests are being "
                    "answered with it. Wait for them to end, or close their streams."
                )
            self._prefixes.drop_adapter(self._model.adapters.unload(name))

        self._scheduler.run(unload)

    def generate(self, request: GenerationRequest) -> TokenStream:
        """Continue a prompt token by token; see :meth:`Engine.generate`."""
        items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        generation = self._submit(request, deliver=items.put)
        return TokenStream(self._scheduler, generation, items)

    async def agenerate(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Continue a prompt token by token; see :meth:`Engine.agenerate`."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Item] = asyncio.Queue()

        def deliver(item: Item) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:  # the event loop was closed: nobody listens any longer
                self._scheduler.cancel(generation)

        generation = self._submit(request, deliver=deliver)
        try:
            while True:
                self._scheduler.ask(generation)
                try:
                    async with asyncio.timeout(generation.seconds_left()):
                        item = await items.get()
                except TimeoutError:
                    raise generation.timeout_error() from None
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            self._scheduler.cancel(generation)

    def score(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[float]]:
        """Give the log probability of each token of each continuation of one prompt.

        The prompt is computed once for all.

        Raises:
            ValueError: The prompt or a continuation is empty.
            AdapterNotFoundError: No adapter of that name is loaded.
            EngineError: Computing failed.
        """
        return self.score_batch([prompt_ids], continuations, adapter=adapter)[0]

    def score_batch(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[list[float]]]:
        """Give the log probability of each token of each continuation of each prompt.

        Prompts share passes of the model, and what they begin with alike is read once.

        Raises:
            ValueError: A prompt or a continuation is empty.
            AdapterNotFoundError: No adapter of that name is loaded.
            EngineError: Computing failed.
        """
        if not all(prompts) or not all(continuations):
            raise ValueError("The prompt and every continuation need at least one token.")
        internal = self._model.adapters.internal_name(adapter)
        return [
            scores
            for group in passes_of_prompts(prompts)
            for scores in score_continuations(
                self._model,
                self._run,
                group,
                continuations,
                adapter=internal,
                read=partial(self._read, adapter=internal),
            )
        ]

    def embed(
        self,
        batch: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "last",
        adapter: str | None = None,
    ) -> NDArray[np.float32]:
        """Embed token sequences by pooling the last hidden states.

        Returns:
            Vectors of length 1, ``(len(batch), hidden_size)``.

        Raises:
            ValueError: A text has no token.
            AdapterNotFoundError: No adapter of that name is loaded.
            EngineError: Computing failed.
        """
        import numpy as np
        import torch

        if not all(batch):
            raise ValueError("Each text needs at least one token.")
        internal = self._model.adapters.internal_name(adapter)
        if not batch:
            return np.zeros((0, self.loaded.model.config.hidden_size), dtype=np.float32)
        pooled = pooled_states(self._model, self._run, batch, pooling=pooling, adapter=internal)
        vectors = torch.nn.functional.normalize(torch.stack(pooled), dim=-1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def _submit(self, request: GenerationRequest, *, deliver: Callable[[Item], None]) -> Generation:
        """Refuse what cannot be computed before anything is, and let the rest wait."""
        if not request.prompt_ids:
            raise ValueError("The prompt is empty; give at least one token.")
        chat_format = self.loaded.chat_format
        lookup = None
        if self._guesses and request.sampling.temperature == 0 and request.grammar is None:
            lookup = PromptLookup(most=self._guesses)
        generation = Generation(
            request,
            adapter=self._model.adapters.internal_name(request.adapter),
            chooser=TokenChooser(request.sampling, device=self.loaded.device),
            decoder=StreamDecoder(chat_format.decode, stop=request.sampling.stop),
            stop_token_ids=chat_format.stop_token_ids,
            deliver=deliver,
            lookup=lookup,
        )
        self._scheduler.submit(generation)
        return generation

    def _begin(self, generation: Generation) -> None:
        """Compile the grammar of a request, in the computing thread."""
        request = generation.request
        if request.grammar is None:
            return
        if self._grammars is None:
            from phi3_industry.engines.constrained import GrammarCompiler

            self._grammars = GrammarCompiler(self.loaded)
        generation.rules = self._grammars.start(
            request.grammar, max_new_tokens=request.sampling.max_new_tokens
        )

    def _run(self, job: Callable[[], T]) -> T:
        """Compute something between two steps; without memory, do without the prefix cache."""
        import torch

        try:
            return self._scheduler.run(job)
        except torch.OutOfMemoryError:
            self.clear_prefix_cache()
        try:
            return self._scheduler.run(job)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"Memory ran out: {error}. Shorten the texts, or load the model quantised."
            ) from error

    def _read(
        self, texts: Sequence[tuple[SequenceCache, Sequence[int]]], *, adapter: str | None
    ) -> None:
        """Compute the keys and values of texts, in parts between the steps of others."""

        def fill() -> None:
            for cache, ids in texts:
                self._prefixes.fill(cache, ids, adapter=adapter)

        def read(spans: Sequence[PackedSpan]) -> None:
            self._model.logits(spans)
            for span in spans:
                span.cache.commit(len(span.token_ids))

        def keep() -> None:
            for cache, ids in texts:
                self._prefixes.keep(cache, ids, adapter=adapter)

        self._scheduler.run(fill)
        while spans := next_parts(texts, adapter=adapter):
            self._run(partial(read, spans))
        self._scheduler.run(keep)
