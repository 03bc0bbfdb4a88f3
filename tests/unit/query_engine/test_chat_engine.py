from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_parts import QUESTION, FixedRetriever, ScriptedLLM, engine, found
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.prompts import PromptTemplate

from phi3_industry.errors import ConfigurationError

FOLLOW_UP = "And its oil?"
CONDENSED = "What is the oil of P-4471?"
ROWS = ("Tag: P-4471; Discharge pressure: 38.2 bar", "Oil of P-4471: Tovex 32")


class Talker(ScriptedLLM):
    """Condenses the follow-up, and reads."""

    condensed: str = CONDENSED

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        return CompletionResponse(text=self._reply(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        self.prompts.append(prompt)
        text = self._reply(prompt)
        return (
            CompletionResponse(text=text[: end + 1], delta=text[end]) for end in range(len(text))
        )

    def _reply(self, prompt: str) -> str:
        if "Context:" not in prompt:
            return self.condensed
        # cites wrongly on purpose: the checked answer differs from what is streamed
        return "[1] Tovex 32" if "oil" in prompt.rsplit("Question:")[-1] else "[1] 38.2 bar"


def chat(llm: Talker, **options: Any) -> Any:
    made = engine(llm=llm, retriever=FixedRetriever(found(*ROWS)), strategy="rag", **options)
    return made.as_chat_engine()


def test_a_follow_up_becomes_a_question_of_its_own_and_is_checked() -> None:
    llm = Talker(prompts=[])
    talk = chat(llm)
    assert str(talk.chat(QUESTION)) == "[1] 38.2 bar"
    assert f"Question: {QUESTION}" in llm.prompts[0]
    answer = talk.chat(FOLLOW_UP)
    assert str(answer) == "[2] Tovex 32"
    assert QUESTION in llm.prompts[1]
    assert FOLLOW_UP in llm.prompts[1]
    assert f"Question: {CONDENSED}" in llm.prompts[2]
    assert [node.node.node_id for node in answer.source_nodes] == ["n1", "n2"]
    assert answer.sources[0].raw_output.metadata["citations"][0]["node_id"] == "n2"
    assert [message.content for message in talk.chat_history] == [
        QUESTION,
        "[1] 38.2 bar",
        FOLLOW_UP,
        "[2] Tovex 32",
    ]
    talk.reset()
    assert talk.chat_history == []


async def test_all_ways_of_talking_share_one_conversation() -> None:
    talk = chat(Talker(prompts=[]), streaming=True)
    assert "".join(talk.stream_chat(QUESTION).response_gen) == "[1] 38.2 bar"
    assert str(await talk.achat(FOLLOW_UP)) == "[2] Tovex 32"
    stream = await talk.astream_chat(FOLLOW_UP)
    assert "".join([piece async for piece in stream.async_response_gen()]) == "[1] Tovex 32"
    while len(talk.chat_history) < 6:  # LlamaIndex writes it down in a task of its own
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("condensed", [" \n", "[0] I don't know.", "I don't know."])
def test_a_model_that_cannot_condense_is_asked_the_follow_up_itself(condensed: str) -> None:
    llm = Talker(prompts=[], condensed=condensed)
    talk = chat(llm)
    talk.chat(QUESTION)
    talk.chat(FOLLOW_UP)
    assert f"Question: {FOLLOW_UP}" in llm.prompts[2]


def test_the_condensing_prompt_and_the_history_can_be_given() -> None:
    llm = Talker(prompts=[])
    asked = engine(llm=llm, retriever=FixedRetriever(found(*ROWS)), strategy="rag")
    asked.update_prompts(
        {"condense_question": PromptTemplate("Umformen: {chat_history}{question}")}
    )
    history = [
        ChatMessage(role="user", content="Hello."),
        ChatMessage(role="assistant", content="?"),
    ]
    asked.as_chat_engine(chat_history=history).chat(FOLLOW_UP)
    assert "Umformen: user: Hello." in llm.prompts[0]


def test_a_long_conversation_leaves_room_for_the_question() -> None:
    llm = Talker(prompts=[], window=400)
    talk = chat(llm)
    for _ in range(30):
        talk.chat(FOLLOW_UP)
    kept = talk._memory.get()
    assert 2 < len(kept) < 60


def test_llamaindexs_own_chat_engines_are_there() -> None:
    asked = engine(llm=Talker(prompts=[]), strategy="rag")
    assert isinstance(asked.as_chat_engine("context"), ContextChatEngine)
    condensing = asked.as_chat_engine("condense_plus_context")
    assert isinstance(condensing, CondensePlusContextChatEngine)
    assert str(condensing.chat(QUESTION))
    with pytest.raises(ConfigurationError, match="must be 'condense_question', or with a retr"):
        asked.as_chat_engine("best")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'context' with no retriever"):
        engine(retriever=None, strategy="base").as_chat_engine("context")
