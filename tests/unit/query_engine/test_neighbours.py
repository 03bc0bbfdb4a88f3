"""The engine among LlamaIndex's own parts: other LLMs, other stores, routers, agents."""

from __future__ import annotations

import gc
import json
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from engine_parts import QUESTION, FixedRetriever, ScriptedLLM, engine, found
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from phi3_industry import HybridQueryEngine, HybridRetriever, Phi3LLM
from phi3_industry.grounding.matching import words_of

FACTS = {
    "p1": "Tag: P-4471; Kind: pump; Discharge pressure: 38.2 bar",
    "p2": "Tag: P-4472; Kind: pump; Discharge pressure: 31 bar",
    "v9": "Tag: V-9; Kind: valve; Oil: Tovex 32",
}
OIL = "What is the oil of V-9?"

pytestmark = [
    # LlamaIndex's workflows walk over attributes that pydantic is about to drop, and leave the
    # event loops and memory databases that they open unclosed
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _unclosed_things_are_collected_here() -> Iterator[None]:
    yield
    gc.collect()


class WordEmbedding(BaseEmbedding):
    """A vector has a place for each word, by its checksum."""

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * 64
        for word in words_of(text):
            vector[zlib.crc32(word.encode()) % 64] += 1.0
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


def nodes() -> list[TextNode]:
    return [TextNode(id_=name, text=text) for name, text in FACTS.items()]


@pytest.mark.parametrize("strategy", ["auto", "rag", "base"])
async def test_a_mock_llm_answers_in_every_way_of_asking(strategy: str) -> None:
    made = engine(llm=MockLLM(max_tokens=8), strategy=strategy)
    for asked in (made, made.with_settings(streaming=True)):
        response = asked.query(QUESTION)
        assert str(response)
        assert response.metadata is not None
        assert response.metadata["strategy"] == ("base" if strategy == "base" else "rag")
        assert json.loads(json.dumps(response.metadata)) == response.metadata
        streamed: Any = await asked.aquery(QUESTION)
        whole = await streamed.get_response() if asked.streaming else streamed
        assert str(whole)
    chat = made.as_chat_engine()
    assert str(chat.chat(QUESTION))
    assert str(chat.chat(QUESTION))


async def test_any_vector_store_index_and_retriever_will_do(embedded_llm: Phi3LLM) -> None:
    index = VectorStoreIndex(nodes(), embed_model=WordEmbedding())
    for retriever in (
        index.as_retriever(similarity_top_k=2),
        HybridRetriever(index, similarity_top_k=2, weights=(1.0, 0.0)),
    ):
        asked = HybridQueryEngine(retriever=retriever, llm=embedded_llm)
        response = asked.query(OIL)
        assert response.response == "[1] Tovex 32" or response.response == "[2] Tovex 32"
        assert response.metadata is not None
        assert response.metadata["citations"][0]["node_id"] == "v9"
        assert str(await asked.aquery(OIL)) == response.response


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
async def test_qdrant_in_place_of_our_store(embedded_llm: Phi3LLM) -> None:
    import qdrant_client
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    client = qdrant_client.QdrantClient(location=":memory:")
    store = QdrantVectorStore(collection_name="plant", client=client)
    made = nodes()
    for node in made:  # Qdrant takes no other names
        node.id_ = str(uuid.uuid5(uuid.NAMESPACE_OID, node.id_))
    index = VectorStoreIndex(
        made,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=WordEmbedding(),
    )
    asked = HybridQueryEngine(
        retriever=HybridRetriever(index, similarity_top_k=2, weights=(1.0, 0.0)),
        llm=embedded_llm,
        provenance=True,
    )
    response = asked.query(OIL)
    assert response.metadata is not None
    assert "Tovex 32" in str(response)
    assert response.metadata["citations"] == [
        {
            "marker": response.metadata["citations"][0]["marker"],
            "node_id": made[2].node_id,
            "quote": "Tovex 32",
            "verified": True,
        }
    ]
    assert response.metadata["provenance"]["passages"]
    assert asked.query("What is the oil of X-77?").metadata["abstained"]
    client.close()


def tools(embedded_llm: Phi3LLM) -> list[QueryEngineTool]:
    pumps = engine(
        llm=embedded_llm, retriever=FixedRetriever(found(FACTS["p1"], FACTS["p2"])), strategy="rag"
    )
    valves = engine(llm=embedded_llm, retriever=FixedRetriever(found(FACTS["v9"])), strategy="rag")
    return [
        QueryEngineTool.from_defaults(pumps, name="pumps", description="Knows pumps"),
        QueryEngineTool.from_defaults(valves, name="valves", description="Knows valves"),
    ]


class Selecting(ScriptedLLM):
    """Chooses the second tool."""

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text='[{"choice": 2, "reason": "it is about a valve"}]')


async def test_a_router_reaches_it(embedded_llm: Phi3LLM) -> None:
    router = RouterQueryEngine(
        selector=LLMSingleSelector.from_defaults(llm=Selecting()),
        query_engine_tools=tools(embedded_llm),
        llm=Selecting(),
    )
    response = router.query(OIL)
    assert str(response) == "[1] Tovex 32"
    assert response.metadata is not None
    assert response.metadata["citations"][0]["verified"]
    assert response.metadata["selector_result"].selections[0].index == 1
    assert str(await router.aquery(OIL)) == "[1] Tovex 32"


class TwoQuestions(BaseQuestionGenerator):
    """Asks each tool what it knows."""

    def generate(self, tools: Any, query: QueryBundle) -> list[SubQuestion]:
        return [
            SubQuestion(sub_question=QUESTION, tool_name="pumps"),
            SubQuestion(sub_question=OIL, tool_name="valves"),
        ]

    async def agenerate(self, tools: Any, query: QueryBundle) -> list[SubQuestion]:
        return self.generate(tools, query)

    def _get_prompts(self) -> Any:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        pass


def test_a_sub_question_engine_asks_it_for_each_part(embedded_llm: Phi3LLM) -> None:
    combined = SubQuestionQueryEngine(
        question_gen=TwoQuestions(),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        query_engine_tools=tools(embedded_llm),
        verbose=False,
        use_async=False,
    )
    response = combined.query("Tell me all.")
    texts = [source.node.get_content() for source in response.source_nodes]
    answers = [text.split("Response: ")[1] for text in texts if "Response: " in text]
    assert answers == ["[1] 38.2 bar", "[1] Tovex 32"]
    assert FACTS["v9"] in texts


async def test_a_function_agent_calls_it_as_a_tool(embedded_llm: Phi3LLM) -> None:
    agent = FunctionAgent(
        tools=[tools(embedded_llm)[1]],
        llm=embedded_llm.model_copy(update={"max_new_tokens": 60}),
        initial_tool_choice="valves",
    )
    handler = agent.run(OIL, max_iterations=8)
    results = [e async for e in handler.stream_events() if isinstance(e, ToolCallResult)]
    assert results[0].tool_name == "valves"
    assert not results[0].tool_output.is_error
    asked = results[0].tool_output.raw_output
    assert asked.metadata["strategy"] == "rag"
    assert [source.node.node_id for source in asked.source_nodes] == ["n1"]
    assert str(await handler)


def test_its_tool_says_what_the_engine_says(embedded_llm: Phi3LLM) -> None:
    tool = tools(embedded_llm)[1]
    assert isinstance(tool.metadata, ToolMetadata)
    output = tool.call(OIL)
    assert str(output) == "[1] Tovex 32"
    assert output.raw_output.metadata["citations"][0]["node_id"] == "n1"
