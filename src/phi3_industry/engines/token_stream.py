"""The events of one request, as its caller takes them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Self

from phi3_industry.engines.base import TokenEvent
from phi3_industry.engines.generation import Generation
from phi3_industry.engines.scheduler import Scheduler

__all__ = ["Item", "TokenStream"]

Item = TokenEvent | BaseException


class TokenStream(Iterator[TokenEvent]):
    """The events of one request.

    At most two tokens are computed ahead of those that were asked for. A stream that is closed or
    forgotten gives its place in the batch to others.

    Args:
        scheduler: Where the request is computed.
        generation: The request.
        items: Its events, or the error that ended it.
    """

    def __init__(
        self, scheduler: Scheduler, generation: Generation, items: queue.SimpleQueue[Item]
    ) -> None:
        self._scheduler = scheduler
        self._generation = generation
        self._items = items
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenEvent:
        if self._ended:
            raise StopIteration
        self._scheduler.ask(self._generation)
        try:
            item = self._items.get(timeout=self._seconds_left())
        except queue.Empty:
            item = self._generation.timeout_error()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._ended = item.finish_reason is not None
        return item

    def close(self) -> None:
        """Stop: at most the step under way is still computed."""
        if not self._ended:
            self._ended = True
            self._scheduler.cancel(self._generation)

    def __del__(self) -> None:
        self.close()

    def _seconds_left(self) -> float | None:
        left = self._generation.seconds_left()
        return None if left is None else max(0.0, left)
