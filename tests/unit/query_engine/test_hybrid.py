"""The engine over plain LlamaIndex parts: a scripted LLM and a fixed retriever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_parts import (
    QUESTION,
    TWO,
    AdaptedLLM,
    FixedRetriever,
    ScoringLLM,
    ScriptedLLM,
    engine,
    found,
)
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import QueryEngineTool

from phi3_industry.errors import AdapterMismatchError, ConfigurationError, PromptTooLongError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt


def test_an_answer_comes_with_its_checked_source() -> None:
    response = engine(strategy="rag").query(QUESTION)
    assert response.response == "[2] 38.2 bar"
    assert [node.node.node_id for node in response.source_nodes] == ["n1", "n2"]
    assert response.metadata == {
        "strategy": "rag",
        "reason": "The strategy 'rag' was asked for.",
        "ground": "passages",
        "adapter": None,
        "model": "scripted",
        "abstained": False,
        "supported": True,
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


def test_an_answer_that_no_passage_bears_is_abstained_from() -> None:
    response = engine(llm=ScriptedLLM(answer="[1] 99 bar"), strategy="rag").query(QUESTION)
    assert response.response == "[0] I don't know."
    assert response.metadata["abstained"] is True
    assert response.metadata["supported"] is False
    assert response.metadata["raw_answer"] == "[1] 99 bar"


def test_an_answer_that_no_passage_bears_can_be_marked_instead() -> None:
    marking = engine(llm=ScriptedLLM(answer="[1] 99 bar"), strategy="rag", unsupported="mark")
    response = marking.query(QUESTION)
    assert response.response == "99 bar"
    assert response.metadata["citations"][0]["verified"] is False
    assert (response.metadata["abstained"], response.metadata["supported"]) == (False, False)
    with pytest.raises(ValueError, match="must be 'abstain' or 'mark'"):
        engine(unsupported="keep")


@pytest.mark.parametrize("answer", ["[0] I don't know.", "[0] 38.2 bar", "", "[1] 99 bar"])
def test_users_are_told_in_their_own_language_that_nothing_is_known(answer: str) -> None:
    czech = engine(llm=ScriptedLLM(answer=answer), strategy="rag", abstention="Nevím.")
    assert czech.query(QUESTION).response == "Nevím."
    nothing = engine(retriever=FixedRetriever([]), strategy="rag", abstention="Nevím.")
    assert nothing.query(QUESTION).response == "Nevím."


def test_answers_say_what_they_rest_on() -> None:
    whole = engine(llm=AdaptedLLM(), adapter="pumps")
    grounds = {
        strategy: whole.with_strategy(strategy).query(QUESTION).metadata["ground"]
        for strategy in ("base", "rag", "fine_tuned", "rag_fine_tuned")
    }
    assert grounds == {
        "base": "weights",
        "rag": "passages",
        "fine_tuned": "weights",
        "rag_fine_tuned": "passages",
    }
    nothing = engine(retriever=FixedRetriever([]), strategy="rag").query(QUESTION)
    assert nothing.metadata["ground"] == "none"


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


def test_an_engine_names_the_strategies_that_its_parts_allow() -> None:
    assert engine().strategies == ("base", "rag", "auto")
    assert engine(retriever=None).strategies == ("base", "auto")
    both = engine(llm=AdaptedLLM(), adapter="pumps")
    assert both.strategies == ("base", "rag", "fine_tuned", "rag_fine_tuned", "auto")


def test_closed_book_strategies_do_not_retrieve() -> None:
    retriever = FixedRetriever(found(*TWO))
    engine(retriever=retriever, strategy="base").query(QUESTION)
    assert retriever.calls == 0
    assert str(engine(retriever=None, strategy="base").query(QUESTION))


def test_auto_takes_both_where_there_is_both() -> None:
    response = engine(llm=AdaptedLLM(), adapter="pumps").query(QUESTION)
    assert response.metadata["strategy"] == "rag_fine_tuned"
    assert (
        "2 passages were found (best score 0.900, 11% ahead of the next)"
        in response.metadata["reason"]
    )
    assert engine().query(QUESTION).metadata["strategy"] == "rag"


def test_auto_answers_from_weights_only_where_they_are_certain() -> None:
    draft = "[2] 38.2 bar | PDIS"
    for chance, strategy in ((0.9, "fine_tuned"), (0.5, "rag_fine_tuned")):
        llm = ScoringLLM(chances={("pumps", draft): chance}, prompts=[])
        response = engine(llm=llm, adapter="pumps", min_score=0.95).query(QUESTION)
        assert response.metadata["strategy"] == strategy
        assert response.metadata["abstained"] is (strategy != "fine_tuned")
        assert "0.950 is required" in response.metadata["reason"]
        assert f"certainty {chance**0.5:.2f}" in response.metadata["reason"]
        assert len(llm.prompts) == 1  # the draft is the answer and is not asked for again


def test_auto_without_scores_does_not_trust_weights() -> None:
    response = engine(llm=AdaptedLLM(), adapter="pumps", min_score=0.95).query(QUESTION)
    assert response.metadata["abstained"] is True
    assert "cannot be measured here" in response.metadata["reason"]
    abstained = engine(min_score=0.95).query(QUESTION)
    assert abstained.metadata["abstained"] is True
    assert "0.950 is required" in abstained.metadata["reason"]


def test_auto_abstains_without_asking_where_passages_do_not_suffice() -> None:
    llm = ScoringLLM(chances={(None, "[0]"): 0.5, (None, "[1]"): 0.1}, prompts=[])
    response = engine(llm=llm).query(QUESTION)
    assert response.metadata["abstained"] is True
    assert llm.prompts == []
    assert response.metadata["signals"]["sufficiency"] == pytest.approx(0.11 / 0.61)
    assert "do not suffice (probability 0.18" in response.metadata["reason"]
    sure = ScoringLLM(chances={(None, "[2]"): 0.9}, prompts=[])
    assert engine(llm=sure).query(QUESTION).response == "[2] 38.2 bar"


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


def test_postprocessors_are_applied() -> None:
    cut = SimilarityPostprocessor(similarity_cutoff=0.85)
    response = engine(strategy="rag", node_postprocessors=[cut]).query(QUESTION)
    assert [node.node.node_id for node in response.source_nodes] == ["n1"]

    async def ask() -> Any:
        return await engine(strategy="rag", node_postprocessors=[cut]).aquery(QUESTION)

    assert len(asyncio.run(ask()).source_nodes) == 1


def test_it_serves_as_a_tool() -> None:
    tool = QueryEngineTool.from_defaults(engine(strategy="rag"), name="manuals", description="d")
    assert str(tool.call(QUESTION)) == "[2] 38.2 bar"


def test_given_nodes_can_be_synthesized() -> None:
    response = engine(strategy="rag").synthesize(QueryBundle(QUESTION), found(*TWO))
    assert str(response) == "[2] 38.2 bar"
