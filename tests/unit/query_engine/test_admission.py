from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from engine_parts import FixedRetriever, ScriptedLLM, engine, found
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.schema import NodeWithScore, QueryBundle

from phi3_industry import HybridQueryEngine, Phi3LLM
from phi3_industry.errors import EngineOverloadedError
from phi3_industry.query_engine.admission import Admission


class OwnRows(BaseRetriever):
    """Finds for each tag its own row, after a while."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        tag = query_bundle.query_str.split()[-1].rstrip("?")
        return found(f"Tag: {tag}; Oil: Tovex {tag[2:]}")

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        await asyncio.sleep(0)
        return self._retrieve(query_bundle)


class Reader(ScriptedLLM):
    """Reads the one row that it is shown, and counts how many do so at once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._running = 0
        self._most = 0

    _running: int = 0
    _most: int = 0

    async def achat(self, messages: Any, **_: Any) -> ChatResponse:
        self._running += 1
        self._most = max(self._most, self._running)
        await asyncio.sleep(random.Random(messages[-1].content).random() / 200)
        self._running -= 1
        oil = messages[-1].content.split("Oil: ")[1].split("\n")[0]
        return ChatResponse(message=ChatMessage(role="assistant", content=f"[1] {oil}"))


def reading(**options: Any) -> tuple[HybridQueryEngine, Reader]:
    llm = Reader()
    return engine(retriever=OwnRows(), llm=llm, strategy="rag", **options), llm


async def ask(asked: HybridQueryEngine, number: int) -> str:
    response = await asked.aquery(f"What is the oil of P-{number}?")
    assert [item.node.get_content() for item in response.source_nodes] == [
        f"Tag: P-{number}; Oil: Tovex {number}"
    ]
    return str(response)


@pytest.mark.parametrize("questions", [60, pytest.param(1000, marks=pytest.mark.slow)])
async def test_none_is_lost_none_is_mixed_up_and_few_run_at_once(questions: int) -> None:
    asked, llm = reading(max_concurrency=16)
    answers = await asyncio.gather(*(ask(asked, number) for number in range(questions)))
    assert answers == [f"[1] Tovex {number}" for number in range(questions)]
    assert 1 < llm._most <= 16


async def test_overload_is_refused_at_once_and_the_rest_is_answered() -> None:
    asked, _ = reading(max_concurrency=4, max_waiting=6)
    outcomes = await asyncio.gather(
        *(ask(asked, number) for number in range(30)), return_exceptions=True
    )
    kinds = Counter(type(outcome) for outcome in outcomes)
    assert kinds == {str: 10, EngineOverloadedError: 20}
    refused = next(o for o in outcomes if isinstance(o, EngineOverloadedError))
    assert "6 requests are waiting and at most 6 may" in str(refused)
    assert await ask(asked, 99) == "[1] Tovex 99"


async def test_a_query_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    admission = Admission(most_running=1, most_waiting=1)

    async def fail() -> None:
        async with admission.admitted():
            raise RuntimeError("broken")

    async def wait() -> None:
        async with admission.admitted():
            await asyncio.sleep(60)

    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            await fail()
    tasks = [asyncio.create_task(wait()) for _ in range(2)]
    await asyncio.sleep(0)
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), admission.admitted():
        pass


def test_each_event_loop_has_its_own_places_and_closed_ones_are_forgotten() -> None:
    asked, _ = reading(max_concurrency=2)
    for number in range(3):
        assert asyncio.run(ask(asked, number)) == f"[1] Tovex {number}"
    assert len(asked._admission._queues) == 1


def test_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="max_concurrency is 0"):
        engine(max_concurrency=0)


async def test_the_embedded_model_answers_many_at_once(embedded_llm: Phi3LLM) -> None:
    rows = [f"Tag: P-{number}; Oil: Tovex {number}" for number in (21, 32, 46)]
    asked = engine(retriever=FixedRetriever(found(*rows)), llm=embedded_llm, strategy="rag")
    numbers = [21, 32, 46] * 4
    answers = await asyncio.gather(
        *(asked.aquery(f"What is the oil of P-{number}?") for number in numbers)
    )
    expected = {n: f"[{i}] Tovex {n}" for i, n in enumerate((21, 32, 46), start=1)}
    assert [str(answer) for answer in answers] == [expected[number] for number in numbers]
