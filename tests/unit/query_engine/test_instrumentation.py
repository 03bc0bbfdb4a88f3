from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from engine_parts import QUESTION, FixedRetriever, ScriptedLLM, engine, found
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

from phi3_industry import Phi3LLM

ROWS = (
    "Tag: P-4472; Kind: pump; Discharge pressure: 31 bar",
    "Tag: P-4471; Kind: pump; Discharge pressure: 38.2 bar",
)


class Events(BaseEventHandler):
    """Keeps the names of events."""

    names: list[str] = []

    def handle(self, event: Any, **_: Any) -> None:
        self.names.append(event.class_name())


class Spans(BaseSpanHandler[SimpleSpan]):
    """Keeps the names of spans, and how they ended."""

    begun: list[str] = []
    ended: list[str] = []

    def new_span(
        self, id_: str, bound_args: inspect.BoundArguments, *_: Any, **__: Any
    ) -> SimpleSpan:
        self.begun.append(id_.rsplit("-", 5)[0])
        return SimpleSpan(id_=id_)

    def prepare_to_exit_span(self, id_: str, *_: Any, **__: Any) -> SimpleSpan:
        self.ended.append(id_.rsplit("-", 5)[0])
        return self.open_spans[id_]

    def prepare_to_drop_span(self, id_: str, *_: Any, **__: Any) -> SimpleSpan:
        self.ended.append(f"dropped {id_.rsplit('-', 5)[0]}")
        return self.open_spans[id_]


@pytest.fixture
def seen() -> Iterator[tuple[Events, Spans]]:
    root = get_dispatcher()
    events, spans = Events(names=[]), Spans()
    spans.begun, spans.ended = [], []
    root.add_event_handler(events)
    root.add_span_handler(spans)
    yield events, spans
    root.event_handlers.remove(events)
    root.span_handlers.remove(spans)


ONCE = {
    "QueryStartEvent": 1,
    "QueryEndEvent": 1,
    "RetrievalStartEvent": 1,
    "RetrievalEndEvent": 1,
    "SynthesizeStartEvent": 1,
    "SynthesizeEndEvent": 1,
    "LLMChatStartEvent": 1,
    "LLMChatEndEvent": 1,
}
SPANS = {
    "HybridQueryEngine.query": 1,
    "HybridQueryEngine._query": 1,
    "HybridQueryEngine.synthesize": 1,
    "FixedRetriever.retrieve": 1,
    "FixedRetriever._retrieve": 1,
    "Phi3LLM.chat": 1,
}


def counted(names: list[str]) -> Counter[str]:
    return Counter(name for name in names if "InProgress" not in name)


@pytest.mark.parametrize("strategy", ["rag", "auto"])
def test_every_event_and_span_of_a_query_comes_once(
    seen: tuple[Events, Spans], embedded_llm: Phi3LLM, strategy: str
) -> None:
    events, spans = seen
    asked = engine(retriever=FixedRetriever(found(*ROWS)), llm=embedded_llm, strategy=strategy)
    assert str(asked.query(QUESTION)) == "[2] 38.2 bar"
    assert counted(events.names) == ONCE
    assert counted(spans.begun) == SPANS
    assert counted(spans.ended) == SPANS


async def test_so_do_those_of_an_asynchronous_one(
    seen: tuple[Events, Spans], embedded_llm: Phi3LLM
) -> None:
    events, spans = seen
    asked = engine(retriever=FixedRetriever(found(*ROWS)), llm=embedded_llm, strategy="rag")
    assert str(await asked.aquery(QUESTION)) == "[2] 38.2 bar"
    assert counted(events.names) == ONCE
    assert set(counted(spans.begun).values()) == {1}
    assert counted(spans.begun) == counted(spans.ended)


def test_a_streamed_query_ends_its_llm_event_with_its_stream(
    seen: tuple[Events, Spans], embedded_llm: Phi3LLM
) -> None:
    events, _ = seen
    asked = engine(
        retriever=FixedRetriever(found(*ROWS)), llm=embedded_llm, strategy="rag", streaming=True
    )
    stream = asked.query(QUESTION)
    assert "LLMChatEndEvent" not in events.names
    assert str(stream) == "[2] 38.2 bar"
    assert counted(events.names) == ONCE


def test_callbacks_of_the_query_come_once_and_end_with_the_response() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    asked = engine(strategy="rag", callback_manager=CallbackManager([debug]))
    response = asked.query(QUESTION)
    for kind in (CBEventType.QUERY, CBEventType.SYNTHESIZE):
        pairs = debug.get_event_pairs(kind)
        assert len(pairs) == 1
        assert pairs[0][1].payload["response"] is response


def test_a_failing_llm_drops_the_spans_it_was_in(seen: tuple[Events, Spans]) -> None:
    class Broken(ScriptedLLM):
        def complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        engine(llm=Broken(), strategy="rag").query(QUESTION)
    dropped = [name for name in seen[1].ended if name.startswith("dropped HybridQueryEngine")]
    assert len(dropped) == 3
