"""LlamaIndex's own components, as they are, with Phi3LLM as their LLM."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.query_engine import CitationQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel

from phi3_industry import Phi3LLM, load_embedding

FACTS = [
    "The oil of pump P-7 is Tovex 32.",
    "The discharge pressure of pump P-8 is 38.2 bar.",
    "The supplier of valve V-3 is Kelmar.",
]
OIL = "Which oil does pump P-7 have?"

# LlamaIndex's workflows walk over attributes that pydantic is about to drop
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    # LlamaIndex leaves the event loops and memory databases that it opens unclosed
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _unclosed_things_are_collected_here() -> Iterator[None]:
    """Not in the middle of another file's test."""
    yield
    gc.collect()


@pytest.fixture
def llm(embedded_llm: Phi3LLM, monkeypatch: pytest.MonkeyPatch) -> Phi3LLM:
    """What an application changes: ``Settings.llm``, here with its tokenizer."""
    for name in ("_llm", "_embed_model", "_tokenizer", "_prompt_helper", "_node_parser"):
        monkeypatch.setattr(Settings, name, None)
    Settings.embed_model = load_embedding("embedded")
    return embedded_llm.bind_settings()


@pytest.fixture
def index(llm: Phi3LLM) -> VectorStoreIndex:
    return VectorStoreIndex([TextNode(text=text, id_=f"n{i}") for i, text in enumerate(FACTS)])


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_retriever_query_engines_find_the_fact(index: VectorStoreIndex, mode: Any) -> None:
    engine = index.as_query_engine(response_mode=mode, similarity_top_k=1)
    response = engine.query(OIL)
    assert "Tovex 32" in str(response)
    assert [source.node_id for source in response.source_nodes] == ["n0"]
    assert str(asyncio.run(engine.aquery(OIL))) == str(response)
    streaming = index.as_query_engine(response_mode=mode, similarity_top_k=1, streaming=True)
    stream: Any = streaming.query(OIL)
    assert "".join(stream.response_gen) == str(response)


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_many_passages_are_packed_to_fit_the_window(
    index: VectorStoreIndex, llm: Phi3LLM, mode: Any
) -> None:
    long = [
        TextNode(text=f"{FACTS[number % 3]} " + f"Größe {number} 名称. " * 150, id_=f"long{number}")
        for number in range(6)
    ]
    engine = VectorStoreIndex(long).as_query_engine(
        response_mode=mode, similarity_top_k=6, llm=llm.model_copy(update={"max_new_tokens": 16})
    )
    response = engine.query(OIL)  # a prompt that did not fit would be refused
    assert len(response.source_nodes) == 6
    assert str(response)


class Oil(BaseModel):
    """The oil of a machine."""

    machine: Literal["P-7", "P-8", "V-3"]
    oil: str


def test_a_query_engine_answers_with_an_object(index: VectorStoreIndex) -> None:
    engine = index.as_query_engine(output_cls=Oil, similarity_top_k=1)
    response = engine.query(OIL)
    assert isinstance(response, PydanticResponse)
    assert isinstance(response.response, Oil)


def test_a_citation_query_engine_numbers_its_sources(index: VectorStoreIndex) -> None:
    engine = CitationQueryEngine.from_args(index, similarity_top_k=2)
    response = engine.query(OIL)
    assert str(response).startswith("[")  # its wording is not the one that the model learned from
    texts = [source.node.get_content() for source in response.source_nodes]
    assert len(texts) == 2
    assert all(text.startswith(f"Source {n}:") for n, text in enumerate(texts, start=1))


class PlantQuestion(BaseModel):
    """A question for one of the tools."""

    sub_question: str
    tool_name: Literal["oils", "pressures"]


class PlantQuestions(BaseModel):
    """The questions to ask."""

    items: list[PlantQuestion]


def test_a_sub_question_query_engine_asks_its_tools(index: VectorStoreIndex, llm: Phi3LLM) -> None:
    engine = index.as_query_engine(similarity_top_k=1)
    tools = [
        QueryEngineTool.from_defaults(engine, name=name, description=f"Knows the {name}")
        for name in ("oils", "pressures")
    ]
    roomy: Any = llm.model_copy(update={"max_new_tokens": 120})
    generator = LLMQuestionGenerator.from_defaults(llm=roomy.as_structured_llm(PlantQuestions))
    questions = generator.generate([tool.metadata for tool in tools], QueryBundle(OIL))
    assert {question.tool_name for question in questions} <= {"oils", "pressures"}
    combined = SubQuestionQueryEngine.from_defaults(
        tools, llm=llm, question_gen=generator, use_async=False, verbose=False
    )
    response = combined.query(OIL)
    assert str(response)
    assert len(response.source_nodes) >= len(questions)


def test_a_context_chat_engine_keeps_history_and_sources(
    index: VectorStoreIndex, llm: Phi3LLM
) -> None:
    chat = ContextChatEngine.from_defaults(retriever=index.as_retriever(similarity_top_k=1))
    first = chat.chat(OIL)
    assert [source.node_id for source in first.source_nodes] == ["n0"]
    second = chat.stream_chat("What is the discharge pressure of pump P-8?")
    assert "".join(second.response_gen)
    assert [message.role.value for message in chat.chat_history] == ["user", "assistant"] * 2
    assert [source.node_id for source in second.source_nodes] == ["n1"]


def oil_of(pump: Literal["P-7", "P-8"]) -> str:
    """The oil of a pump."""
    return {"P-7": "Tovex 32", "P-8": "Arlan 46"}[pump]


async def test_a_function_agent_works_with_a_query_tool(
    index: VectorStoreIndex, llm: Phi3LLM
) -> None:
    agent = FunctionAgent(
        tools=[FunctionTool.from_defaults(fn=oil_of)],
        llm=llm.model_copy(update={"max_new_tokens": 60}),
        initial_tool_choice="oil_of",
    )
    handler = agent.run(OIL, max_iterations=8)
    results = [
        event async for event in handler.stream_events() if isinstance(event, ToolCallResult)
    ]
    assert results[0].tool_name == "oil_of"
    assert str(results[0].tool_output) in ("Tovex 32", "Arlan 46")
    assert not results[0].tool_output.is_error
    assert str(await handler)


class Found(Event):
    """Passages that were found."""

    passages: list[str]


class Desk(Workflow):
    """Looks a question up, reads, and notes the machine it was about."""

    def __init__(self, index: VectorStoreIndex, llm: Phi3LLM, **options: Any) -> None:
        super().__init__(**options)
        self.index = index
        self.llm = llm

    @step
    async def look_up(self, event: StartEvent) -> Found:
        """Find the passage."""
        nodes = await self.index.as_retriever(similarity_top_k=1).aretrieve(event.question)
        return Found(passages=[node.get_content() for node in nodes])

    @step
    async def read(self, event: Found) -> StopEvent:
        """Read the passage twice at once: for a text and for an object."""
        from llama_index.core.prompts import PromptTemplate

        prompt = PromptTemplate("Context:\n[1] {passage}\n\nQuestion: " + OIL)
        text, record = await asyncio.gather(
            self.llm.apredict(prompt, passage=event.passages[0]),
            self.llm.astructured_predict(Oil, prompt, passage=event.passages[0]),
        )
        return StopEvent(result=(text, record))


async def test_a_workflow_asks_for_texts_and_objects(index: VectorStoreIndex, llm: Phi3LLM) -> None:
    text, record = await Desk(index, llm, timeout=60).run(question=OIL)
    assert "Tovex 32" in text
    assert isinstance(record, Oil)
