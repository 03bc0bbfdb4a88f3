"""The engine over plain LlamaIndex parts: a scripted LLM and a fixed retriever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool

from phi3_industry.errors import AdapterMismatchError, ConfigurationError, PromptTooLongError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt
from phi3_industry.query_engine.hybrid import HybridQueryEngine

QUESTION = "What is the discharge pressure of P-4471?"


class ScriptedLLM(CustomLLM):
    """Gives one answer and keeps the prompts it saw."""

    answer: str = "[2] 38.2 bar"
    window: int = 2048
    prompts: list[str] = []

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.window, num_output=32, model_name="scripted", is_chat_model=True
        )

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        return CompletionResponse(text=self.answer, raw={"usage": {"total_tokens": 7}})

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **_: Any
    ) -> CompletionResponseGen:
        self.prompts.append(prompt)

        def stream() -> CompletionResponseGen:
            for end in range(1, len(self.answer) + 1):
                yield CompletionResponse(
                    text=self.answer[:end], delta=self.answer[end - 1], raw={"usage": {"n": end}}
                )

        return stream()


class AdaptedLLM(ScriptedLLM):
    """A scripted LLM that has one adapter."""

    adapter: str | None = None
    prompt_fingerprint: str = DEFAULT_PROMPT.fingerprint

    def with_adapter(self, adapter: str | None) -> AdaptedLLM:
        answer = "[2] 38.2 bar | PDIS" if adapter else "[2] 38.2 bar"
        return self.model_copy(update={"adapter": adapter, "answer": answer})

    def adapter_manifest(self) -> SimpleNamespace:
        return SimpleNamespace(prompt_fingerprint=self.prompt_fingerprint)


class FixedRetriever(BaseRetriever):
    """Finds the same nodes for every question."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self.nodes = nodes
        self.calls = 0

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.calls += 1
        return list(self.nodes)


def found(*texts: str, scores: tuple[float, ...] = (0.9, 0.8, 0.7)) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=f"n{number}", text=text), score=score)
        for number, (text, score) in enumerate(zip(texts, scores, strict=False), start=1)
    ]


TWO = ("Tag: P-4472; Discharge pressure: 31 bar", "Tag: P-4471; Discharge pressure: 38.2 bar")


def engine(**options: Any) -> HybridQueryEngine:
    options.setdefault("retriever", FixedRetriever(found(*TWO)))
    options.setdefault("llm", ScriptedLLM())
    return HybridQueryEngine(**options)


def test_an_answer_comes_with_its_checked_source() -> None:
    response = engine(strategy="rag").query(QUESTION)
    assert response.response == "[2] 38.2 bar"
    assert [node.node.node_id for node in response.source_nodes] == ["n1", "n2"]
    assert response.metadata == {
        "strategy": "rag",
        "reason": "The strategy 'rag' was asked for.",
        "adapter": None,
        "model": "scripted",
        "abstained": False,
        "citations": [{"marker": 2, "node_id": "n2", "quote": "38.2 bar", "verified": True}],
        "usage": {"total_tokens": 7},
    }


def test_the_prompt_is_the_one_of_the_grounding_module() -> None:
    llm = ScriptedLLM(prompts=[])
    engine(llm=llm, strategy="rag").query(QUESTION)
    system, user = DEFAULT_PROMPT.grounded(QUESTION, TWO)
    assert system["content"] in llm.prompts[0]
    assert user["content"] in llm.prompts[0]


def test_all_ways_of_asking_give_the_same_answer() -> None:
    plain, streaming = engine(strategy="rag"), engine(strategy="rag", streaming=True)
    expected = plain.query(QUESTION).response

    async def ask() -> list[str]:
        stream = await streaming.aquery(QUESTION)
        assert isinstance(stream, AsyncStreamingResponse)
        parts = [part async for part in stream.response_gen]
        assert stream.metadata is not None
        assert stream.metadata["answer"] == expected
        return [str(await plain.aquery(QUESTION)), "".join(parts)]

    assert asyncio.run(ask()) == [expected, expected]
    stream = streaming.query(QUESTION)
    assert isinstance(stream, StreamingResponse)
    assert stream.metadata is not None
    assert stream.metadata["strategy"] == "rag"
    assert "answer" not in stream.metadata
    assert str(stream) == expected
    assert stream.metadata["answer"] == expected
    assert stream.metadata["citations"][0]["verified"]
    assert not stream.metadata["abstained"]


def test_a_wrong_citation_is_put_right_and_the_raw_answer_kept() -> None:
    response = engine(llm=ScriptedLLM(answer="[1] 38.2 bar"), strategy="rag").query(QUESTION)
    assert response.response == "[2] 38.2 bar"
    assert response.metadata["raw_answer"] == "[1] 38.2 bar"


def test_an_invented_quote_loses_its_citation() -> None:
    response = engine(llm=ScriptedLLM(answer="[1] 99 bar"), strategy="rag").query(QUESTION)
    assert response.response == "99 bar"
    assert response.metadata["citations"][0]["verified"] is False


def test_abstention_is_reported() -> None:
    llm = ScriptedLLM(answer=DEFAULT_PROMPT.abstention_answer)
    response = engine(llm=llm, strategy="rag").query(QUESTION)
    assert response.metadata["abstained"] is True
    assert response.metadata["citations"] == []


def test_nothing_found_is_abstained_from_without_asking_the_model() -> None:
    llm = ScriptedLLM(prompts=[])
    response = engine(llm=llm, retriever=FixedRetriever([]), strategy="rag").query(QUESTION)
    assert response.response == "[0] I don't know."
    assert response.metadata["abstained"] is True
    assert response.metadata["usage"]["total_tokens"] == 0
    assert llm.prompts == []


def test_the_four_strategies_use_what_they_say() -> None:
    llm = AdaptedLLM(prompts=[])
    whole = engine(llm=llm, adapter="pumps")
    for strategy, passages, adapted in (
        ("base", False, False),
        ("rag", True, False),
        ("fine_tuned", False, True),
        ("rag_fine_tuned", True, True),
    ):
        llm.prompts.clear()
        response = whole.with_strategy(strategy).query(QUESTION)
        assert response.metadata["strategy"] == strategy
        assert response.metadata["adapter"] == ("pumps" if adapted else None)
        assert ("| PDIS" in str(response)) == adapted
        assert (TWO[0] in llm.prompts[0]) == passages
        assert bool(response.source_nodes) == passages


def test_closed_book_strategies_do_not_retrieve() -> None:
    retriever = FixedRetriever(found(*TWO))
    engine(retriever=retriever, strategy="base").query(QUESTION)
    assert retriever.calls == 0
    assert str(engine(retriever=None, strategy="base").query(QUESTION))


def test_auto_takes_both_where_there_is_both() -> None:
    response = engine(llm=AdaptedLLM(), adapter="pumps").query(QUESTION)
    assert response.metadata["strategy"] == "rag_fine_tuned"
    assert "2 passages were found (best score 0.900)" in response.metadata["reason"]
    assert engine().query(QUESTION).metadata["strategy"] == "rag"


def test_auto_asks_the_weights_where_nothing_is_close_enough() -> None:
    close = {"min_score": 0.95}
    response = engine(llm=AdaptedLLM(), adapter="pumps", **close).query(QUESTION)
    assert response.metadata["strategy"] == "fine_tuned"
    abstained = engine(**close).query(QUESTION)
    assert abstained.metadata["abstained"] is True
    assert "0.950 is required" in abstained.metadata["reason"]


def test_passages_that_do_not_fit_are_left_out_whole_and_counted() -> None:
    long = "word " * 2500
    response = engine(retriever=FixedRetriever(found(long, TWO[1])), strategy="rag").query(QUESTION)
    assert [node.node.node_id for node in response.source_nodes] == ["n2"]
    assert "1 of them did not fit" in response.metadata["reason"]
    # what was cited as [2] is the first of the passages shown
    assert response.response == "[1] 38.2 bar"


def test_a_question_that_does_not_fit_is_refused() -> None:
    with pytest.raises(PromptTooLongError, match="Shorten the question"):
        engine(strategy="rag").query("pressure " * 12_000)


def test_a_strategy_without_its_parts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="answers from passages and no retriever"):
        engine(retriever=None, strategy="rag")
    with pytest.raises(ConfigurationError, match="answers with an adapter and none was given"):
        engine(strategy="fine_tuned")
    with pytest.raises(ConfigurationError, match="ScriptedLLM, which has no adapters"):
        engine(adapter="pumps")
    with pytest.raises(ValueError, match="it must be 'auto' or one of"):
        engine(strategy="both")


def test_an_adapter_of_another_prompt_is_refused() -> None:
    with pytest.raises(AdapterMismatchError, match="the prompt should be the one it was trained"):
        engine(llm=AdaptedLLM(), adapter="pumps", prompt=GroundingPrompt(abstention="Unknown."))


def test_prompts_are_changed_where_training_sees_it_too() -> None:
    with pytest.raises(ConfigurationError, match="Pass prompt=GroundingPrompt"):
        engine().update_prompts({"text_qa": "x"})  # type: ignore[dict-item]
    assert engine().get_prompts() == {}


def test_postprocessors_are_applied() -> None:
    cut = SimilarityPostprocessor(similarity_cutoff=0.85)
    response = engine(strategy="rag", node_postprocessors=[cut]).query(QUESTION)
    assert [node.node.node_id for node in response.source_nodes] == ["n1"]

    async def ask() -> Any:
        return await engine(strategy="rag", node_postprocessors=[cut]).aquery(QUESTION)

    assert len(asyncio.run(ask()).source_nodes) == 1


def test_each_query_is_one_query_event() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    engine(strategy="rag", callback_manager=CallbackManager([debug])).query(QUESTION)
    assert len(debug.get_event_pairs(CBEventType.QUERY)) == 1


def test_it_serves_as_a_tool() -> None:
    tool = QueryEngineTool.from_defaults(engine(strategy="rag"), name="manuals", description="d")
    assert str(tool.call(QUESTION)) == "[2] 38.2 bar"


def test_given_nodes_can_be_synthesized() -> None:
    response = engine(strategy="rag").synthesize(QueryBundle(QUESTION), found(*TWO))
    assert str(response) == "[2] 38.2 bar"
