"""How many asynchronous queries run at once, how many wait, and what becomes of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Lock

from phi3_industry.errors import EngineOverloadedError

__all__ = ["Admission"]


@dataclass
class _Queue:
    free: asyncio.Semaphore
    waiting: int = field(default=0)


class Admission:
    """Lets a bounded number of queries in and a bounded number wait, for each event loop.

    Memory stays bounded however many queries are begun: one that waits holds its question alone.

    Args:
        most_running: The most queries that run at once, at least 1.
        most_waiting: The most that wait for their turn; one more is refused at once.
    """

    def __init__(self, *, most_running: int, most_waiting: int) -> None:
        if most_running < 1 or most_waiting < 0:
            raise ValueError(
                f"max_concurrency is {most_running} and max_waiting {most_waiting}; they must be "
                "at least 1 and 0."
            )
        self.most_running = most_running
        self.most_waiting = most_waiting
        self._lock = Lock()
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises:
            EngineOverloadedError: As many as may are waiting already.
        """
        queue = self._queue()
        if queue.free.locked() and queue.waiting >= self.most_waiting:
            raise EngineOverloadedError(waiting=queue.waiting, limit=self.most_waiting)
        queue.waiting += 1
        try:
            await queue.free.acquire()
        finally:
            queue.waiting -= 1
        try:
            yield
        finally:
            queue.free.release()

    def _queue(self) -> _Queue:
        loop = asyncio.get_running_loop()
        with self._lock:  # event loops of other threads may come at the same time
            if loop not in self._queues:
                open_loops = {key: own for key, own in self._queues.items() if not key.is_closed()}
                self._queues = open_loops
                self._queues[loop] = _Queue(asyncio.Semaphore(self.most_running))
            return self._queues[loop]
