"""Concurrent requests share one running batch; they join and leave between steps.

transformers' continuous batching (5.23) does not serve here: it knows the active adapter alone,
none of its files mentions PEFT, and a single request runs at 0.64 of the speed of plain
``generate`` on a CPU. Its idea of packed tokens does; see :mod:`phi3_industry.engines.packing`.

One thread computes, and lives only while there is something to compute: no thread waits in an
idle program, and none stands in the way of its end. Callers wait in queues of their own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from phi3_industry.engines.generation import Generation
from phi3_industry.engines.packed_model import PASS_TOKENS, PackedModel
from phi3_industry.engines.packing import PackedSpan
from phi3_industry.errors import EngineError, EngineOverloadedError

if TYPE_CHECKING:
    import torch

__all__ = ["Scheduler", "SchedulerStatistics"]

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

_LINGER_S = 0.05
"""How long the thread waits for work before it ends."""


@dataclass
class SchedulerStatistics:
    """What a scheduler has done.

    Attributes:
        steps: Passes of the model.
        tokens: Tokens that were computed, those of prompts included.
        recomputed: Sequences that were computed anew: at the switch of their rotary factors, or
            because memory ran out.
        memory_shortages: How often memory ran out.
    """

    steps: int = 0
    tokens: int = 0
    recomputed: int = 0
    memory_shortages: int = 0


class Scheduler:
    """Joins requests into batches, first come first served.

    Every running request gets its next token in each step; the prompts of new ones are computed
    in parts beside them, so that a long prompt holds up nobody for long.

    Args:
        model: Computes the passes.
        begin: Called before the first pass of a request, in the computing thread.
        max_batch_size: The most requests in one step.
        max_queue: The most requests that wait for their first step.
        prefill_chunk: Prompt tokens in one step beside running requests.
    """

    def __init__(
        self,
        model: PackedModel,
        *,
        begin: Callable[[Generation], None],
        max_batch_size: int,
        max_queue: int,
        prefill_chunk: int,
    ) -> None:
        self.statistics = SchedulerStatistics()
        self._model = model
        self._begin = begin
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._prefill_chunk = prefill_chunk
        self._reset()

    def _reset(self) -> None:
        self._process_id = os.getpid()
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._worker: threading.Thread | None = None
        self._limit = self._max_batch_size

    # --- for callers --------------------------------------------------------------------------

    def submit(self, generation: Generation) -> None:
        """Let a request wait for its turn.

        Raises:
            EngineOverloadedError: The queue is full.
        """
        self._check_process()
        with self._changed:
            waiting = sum(not other.gone for other in self._waiting)
            # those that fit into the batch do not really wait
            room = self._max_batch_size - sum(not other.gone for other in self._running)
            if waiting >= self._max_queue + max(0, room):
                raise EngineOverloadedError(waiting=waiting, limit=self._max_queue)
            self._waiting.append(generation)
            self._wake()

    def ask(self, generation: Generation) -> None:
        """Ask for one more event of a request."""
        with self._changed:
            generation.asked += 1
            self._wake()

    def cancel(self, generation: Generation) -> None:
        """Give up a request; nothing is computed for it after the step under way."""
        with self._changed:
            generation.cancelled = True
            self._changed.notify_all()

    def run(self, job: Callable[[], T]) -> T:
        """Do something with the model between two steps, and wait for it.

        Args:
            job: What to do; the shorter it is, the more evenly the requests run.
        """
        self._check_process()
        future: Future[T] = Future()
        with self._changed:
            self._jobs.append((job, future))
            self._wake()
        return future.result()

    def uses(self, adapter: str | None) -> int:
        """Count the requests that compute with an adapter, by its internal name."""
        with self._changed:
            everyone = [*self._waiting, *self._running]
            return sum(one.adapter == adapter and not one.gone for one in everyone)

    def _check_process(self) -> None:
        if self._process_id != os.getpid():
            self._reset()  # a fork has the requests of its parent, and not the thread

    def _wake(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="phi3-industry engine")
            self._worker.start()
        self._changed.notify_all()

    # --- the computing thread -----------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                job, chosen = self._next()
                if job is None and not chosen:
                    self._changed.wait(_LINGER_S)
                    job, chosen = self._next()
                if job is None and not chosen:
                    self._worker = None
                    return
            if job is not None:
                _do(*job)
            try:
                self._step(chosen)
            except Exception as error:  # whatever it is, nobody may wait for ever
                _fail(chosen, error)

    def _next(self) -> tuple[tuple[Callable[[], Any], Future[Any]] | None, list[Generation]]:
        return (self._jobs.popleft() if self._jobs else None), self._choose()

    def _choose(self) -> list[Generation]:
        """Sweep out who is gone, let others in, and say who is computed next."""
        for generation in (*self._waiting, *self._running):
            try:
                generation.check_time()
            except EngineError as error:
                generation.fail(error)
        self._waiting = deque(one for one in self._waiting if not one.gone)
        self._running = [one for one in self._running if not one.gone]
        if not self._running:
            self._limit = self._max_batch_size
        wanted = [one for one in self._running if one.wanted]
        while self._waiting and len(wanted) < self._limit:
            generation = self._waiting.popleft()
            self._running.append(generation)
            wanted.append(generation)
        if len(wanted) > self._limit:
            # callers that paused came back all at once: who was computed longest ago goes first
            wanted.sort(key=lambda one: one.last_step)
        return wanted[: self._limit]

    def _step(self, chosen: list[Generation]) -> None:
        for generation in chosen:
            generation.last_step = self.statistics.steps
            try:
                self._prepare(generation)
            except Exception as error:
                generation.fail(error)
        groups: dict[Any, list[tuple[Generation, PackedSpan]]] = {}
        for generation, span in self._spans([one for one in chosen if not one.gone]):
            groups.setdefault(self._model.can_share(span), []).append((generation, span))
        for group in groups.values():
            try:
                self._compute(group)
            except Exception as error:
                _fail((generation for generation, _ in group), error)

    def _prepare(self, generation: Generation) -> None:
        """Begin a request, or begin it anew where its keys do not fit any longer."""
        length = len(generation.ids)
        cache = generation.cache
        if cache is None:
            if generation.completion_tokens == 0:
                self._begin(generation)
            generation.cache = self._model.new_cache(length)
        elif cache.long_rope != self._model.needs_long_rope(length):
            # transformers' own generation computes everything anew at this place, too
            self.statistics.recomputed += 1
            generation.cache = self._model.new_cache(length)

    def _spans(self, chosen: list[Generation]) -> Iterable[tuple[Generation, PackedSpan]]:
        """Say which tokens are computed in this step."""
        answering = any(one.completion_tokens for one in self._running)
        budget = self._prefill_chunk if answering else PASS_TOKENS
        for generation in chosen:
            assert generation.cache is not None  # noqa: S101 - it is prepared
            tokens = generation.uncomputed
            if len(tokens) > 1:
                whole = len(tokens)
                tokens = tokens[:budget]
                budget -= len(tokens)
                last = len(tokens) == whole
            else:
                last = True
            if tokens:
                yield (
                    generation,
                    PackedSpan(
                        cache=generation.cache,
                        token_ids=tokens,
                        adapter=generation.adapter,
                        keep=1 if last else 0,
                    ),
                )

    def _compute(self, group: list[tuple[Generation, PackedSpan]]) -> None:
        """Compute a pass and deliver its tokens; halve it when memory runs out."""
        import torch

        try:
            logits = self._model.logits([span for _, span in group])
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            self._make_room(group)
            half = (len(group) + 1) // 2
            self._compute(group[:half])
            return
        self.statistics.steps += 1
        self.statistics.tokens += sum(len(span.token_ids) for _, span in group)
        for (generation, span), kept in zip(group, logits, strict=True):
            span.cache.commit(len(span.token_ids))
            if span.keep and not generation.gone:
                self._advance(generation, kept)

    def _advance(self, generation: Generation, logits: torch.Tensor) -> None:
        try:
            generation.advance(logits[-1])
        except Exception as error:
            generation.fail(error)

    def _make_room(self, group: list[tuple[Generation, PackedSpan]]) -> None:
        """Send the later half of a batch back to the queue, and free what it holds."""
        half = (len(group) + 1) // 2
        back = [generation for generation, _ in group[half:]]
        _LOGGER.warning(
            "Memory ran out with %d sequences in a batch; going on with %d.", len(group), half
        )
        with self._changed:
            self.statistics.memory_shortages += 1
            self.statistics.recomputed += len(back)
            self._limit = half
            self._running = [one for one in self._running if one not in back]
            self._waiting.extendleft(reversed(back))
        for generation in back:
            generation.cache = None


def _do(job: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)


def _fail(generations: Iterable[Generation], error: Exception) -> None:
    """Give each request an error of its own: callers in several threads raise them."""
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
