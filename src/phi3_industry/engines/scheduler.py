"""Concurrent requests share one running batch; they join and leave between steps.

transformers' continuous batching (5.23) does not serve here: it knows the active adapter alone,
none of its files mentions PEFT, and a single request runs at 0.64 of the speed of plain
``generate`` on a CPU. Its idea of packed tokens does; see :mod:`phi3_industry.engines.packing`.

One thread computes, and lives only while there is something to compute: no thread waits in an
idle program, and none stands in the way of its end. Callers wait in queues of their own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from phi3_industry.engines.generation import Generation
from phi3_industry.engines.steps import Steps, fail_all
from phi3_industry.errors import EngineError, EngineOverloadedError

__all__ = ["Scheduler"]

T = TypeVar("T")

_LINGER_S = 0.05
"""How long the thread waits for work before it ends."""


class Scheduler:
    """Joins requests into batches, first come first served.

    Every running request gets its next token in each step; the prompts of new ones are computed
    in parts beside them, so that a long prompt holds up nobody for long.

    Args:
        steps: Computes the steps, in the scheduler's thread.
        max_batch_size: The most requests in one step.
        max_queue: The most requests that wait for their first step.
    """

    def __init__(
        self,
        steps: Steps,
        *,
        max_batch_size: int,
        max_queue: int,
    ) -> None:
        self._steps = steps
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._reset()

    def _reset(self) -> None:
        self._process_id = os.getpid()
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._worker: threading.Thread | None = None
        self._limit = self._max_batch_size
        self._turn = 0

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
        try:
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
                self._step(chosen)
        except BaseException as error:
            with self._changed:
                self._worker = None
                fail_all((*self._waiting, *self._running), error)
            raise

    def _step(self, chosen: list[Generation]) -> None:
        try:
            back = self._steps.run(chosen, beside=self._running)
        except Exception as error:
            fail_all(chosen, error)
        else:
            self._send_back(back)

    def _send_back(self, back: list[Generation]) -> None:
        """Let those wait again for whom there is no memory, and let nobody into their place."""
        if not back:
            return
        with self._changed:
            self._running = [one for one in self._running if one not in back]
            self._waiting.extendleft(reversed(back))
            self._limit = max(1, len(self._running))

    def _next(self) -> tuple[tuple[Callable[[], Any], Future[Any]] | None, list[Generation]]:
        return (self._jobs.popleft() if self._jobs else None), self._choose()

    def _choose(self) -> list[Generation]:
        """Sweep out who is gone, let others in, and say who is computed next."""
        for generation in (*self._waiting, *self._running):
            try:
                generation.check_time()
            except EngineError as error:
                generation.fail(error)
            if generation.gone:
                generation.cache = None  # callers may hold on to a stream that has ended
        self._waiting = deque(one for one in self._waiting if not one.gone)
        self._running = [one for one in self._running if not one.gone]
        if not self._running:
            self._limit = self._max_batch_size
        wanted = [one for one in self._running if one.wanted]
        self._bound_idle()
        while self._waiting and len(wanted) < self._limit:
            generation = self._waiting.popleft()
            self._running.append(generation)
            wanted.append(generation)
        if len(wanted) > self._limit:
            # callers that paused came back all at once: who was computed longest ago goes first
            wanted.sort(key=lambda one: one.last_step)
        chosen = wanted[: self._limit]
        self._turn += 1
        for generation in chosen:
            generation.last_step = self._turn
        return chosen

    def _bound_idle(self) -> None:
        """Free what streams hold that nobody reads; they are computed anew when somebody does."""
        idle = [one for one in self._running if one.cache is not None and not one.wanted]
        for generation in idle[: max(0, len(idle) - self._max_batch_size)]:
            generation.cache = None


def _do(job: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)
