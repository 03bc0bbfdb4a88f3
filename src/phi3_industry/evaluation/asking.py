"""Ask engines: one question after the other, or some at once, with their times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    StreamingResponse,
)

from phi3_industry.grounding.questions import Question

__all__ = ["QuestionEngine", "Reply", "ask_all", "run_to_end"]

Block = tuple[str, Sequence[Question]]
"""A way of answering, and the questions that it is asked at once."""


class QuestionEngine(Protocol):
    """Whatever answers a question; every LlamaIndex query engine does."""

    def query(self, str_or_query_bundle: str, /) -> RESPONSE_TYPE:
        """Answer a question."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of one query.

    Attributes:
        response: The answer; ``None`` if the query failed.
        error: What went wrong, if it did.
        latency_s: Time of the query in seconds.
        machine_s: Its share of the time in which its block was answered, in seconds.
    """

    response: RESPONSE_TYPE | None
    error: Exception | None
    latency_s: float
    machine_s: float


def ask_all(
    engines: Mapping[str, QuestionEngine],
    blocks: Iterable[Block],
    receive: Callable[[str, Question, Reply], None],
) -> None:
    """Ask blocks of questions, one block after the other.

    A block of one question goes through ``query``, a larger one through ``aquery``, all of its
    questions at once.

    Args:
        engines: The engine of each way.
        blocks: Who is to be asked what.
        receive: Is handed each reply, in the order of the blocks.
    """
    every = list(blocks)
    if all(len(questions) == 1 for _, questions in every):
        for name, questions in every:
            receive(name, questions[0], _ask(engines[name], questions[0]))
        return

    async def ask() -> None:
        for name, questions in every:
            started = time.perf_counter()
            replies = await asyncio.gather(*(_aask(engines[name], one) for one in questions))
            share_s = (time.perf_counter() - started) / len(questions)
            for question, reply in zip(questions, replies, strict=True):
                receive(name, question, replace(reply, machine_s=share_s))

    run_to_end(ask())


def _ask(engine: QuestionEngine, question: Question) -> Reply:
    started = time.perf_counter()
    response, problem = None, None
    try:
        response = engine.query(question.question)
        if isinstance(response, StreamingResponse):
            response = response.get_response()
    except Exception as error:  # one question must not cost the answers to all others
        problem = error
    taken = time.perf_counter() - started
    return Reply(response=response, error=problem, latency_s=taken, machine_s=taken)


async def _aask(engine: Any, question: Question) -> Reply:
    started = time.perf_counter()
    response, problem = None, None
    try:
        response = await engine.aquery(question.question)
        if isinstance(response, AsyncStreamingResponse):
            response = await response.get_response()
        elif isinstance(response, StreamingResponse):
            response = await asyncio.to_thread(response.get_response)
    except Exception as error:  # as above
        problem = error
    taken = time.perf_counter() - started
    return Reply(response=response, error=problem, latency_s=taken, machine_s=taken)


def run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run to its end, in a thread of its own where an event loop runs already, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, work).result()
