from __future__ import annotations

import pytest
from engine_parts import QUESTION, AdaptedLLM, ScriptedLLM, engine
from llama_index.core.prompts import PromptTemplate

from phi3_industry.errors import AdapterMismatchError, ConfigurationError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt


def test_all_prompts_can_be_read() -> None:
    prompts = engine().get_prompts()
    assert sorted(prompts) == [
        "abstention",
        "closed_book_instructions",
        "condense_question",
        "context_label",
        "instructions",
        "question_label",
    ]
    assert prompts["instructions"].get_template() == DEFAULT_PROMPT.instructions
    assert "{chat_history}" in prompts["condense_question"].get_template()


def test_prompts_that_were_read_can_be_put_back() -> None:
    asked = engine()
    asked.update_prompts(asked.get_prompts())
    assert asked.prompt == DEFAULT_PROMPT
    assert asked.prompt.fingerprint == DEFAULT_PROMPT.fingerprint


def test_a_replaced_prompt_is_asked_with_and_goes_along_to_other_strategies() -> None:
    llm = ScriptedLLM(prompts=[], answer="Weiß ich {nicht}.")
    asked = engine(llm=llm, strategy="rag")
    asked.update_prompts(
        {
            "question_label": PromptTemplate("Frage: "),
            "abstention": PromptTemplate("Weiß ich {nicht}."),
        }
    )
    response = asked.query(QUESTION)
    assert f"Frage: {QUESTION}" in llm.prompts[0]
    assert response.response == "[0] Weiß ich {nicht}."
    assert response.metadata["abstained"] is True
    asked.with_strategy("base").query(QUESTION)
    assert f"Frage: {QUESTION}" in llm.prompts[1]


def test_an_adapters_prompt_cannot_be_replaced_by_another() -> None:
    asked = engine(llm=AdaptedLLM(), adapter="pumps")
    with pytest.raises(AdapterMismatchError, match="the prompt should be the one it was trained"):
        asked.update_prompts({"question_label": PromptTemplate("Frage: ")})
    assert asked.prompt == DEFAULT_PROMPT
    asked.update_prompts({"condense_question": PromptTemplate("{chat_history} {question}")})
    with pytest.raises(AdapterMismatchError, match="the prompt should be the one it was trained"):
        engine(llm=AdaptedLLM(), adapter="pumps", prompt=GroundingPrompt(abstention="Unknown."))


def test_unknown_prompts_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"no prompts \['text_qa_template'\] here"):
        engine().update_prompts({"text_qa_template": PromptTemplate("x")})
