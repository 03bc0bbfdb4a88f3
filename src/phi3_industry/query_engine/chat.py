"""Conversations: a follow-up becomes a question of its own, which the query engine answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
)
from llama_index.core.chat_engine.types import BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer
from llama_index.core.prompts import BasePromptTemplate

from phi3_industry.errors import ConfigurationError
from phi3_industry.grounding.citations import parse_answer
from phi3_industry.grounding.prompt import ABSTENTION

__all__ = ["ChatMode", "CheckedChatEngine", "chat_memory", "context_chat_engine"]

ChatMode = Literal["condense_question", "condense_plus_context", "context"]


class CheckedChatEngine(CondenseQuestionChatEngine):
    """LlamaIndex's condensing chat engine over two views of one query engine.

    ``chat`` and ``achat`` give the checked answer, ``stream_chat`` and ``astream_chat`` its
    pieces as they come; LlamaIndex's own switches that for its own query engine alone.

    Args:
        query_engine: Answers whole.
        streaming_engine: Answers piece by piece.
        condense_question_prompt: Makes a follow-up a question of its own.
        memory: The conversation.
        llm: Condenses. Where it says nothing, or abstains as it was taught to, the follow-up is
            asked as it is.
        abstention: The sentence that abstains.
        callback_manager: LlamaIndex's callbacks.
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine,
        streaming_engine: BaseQueryEngine,
        *,
        condense_question_prompt: BasePromptTemplate,
        memory: BaseMemory,
        llm: LLM,
        abstention: str = ABSTENTION,
        callback_manager: Any = None,
    ) -> None:
        self._abstention = abstention
        parts: dict[str, Any] = {
            "condense_question_prompt": condense_question_prompt,
            "memory": memory,
            "llm": llm,
            "callback_manager": callback_manager,
        }
        super().__init__(query_engine, **parts)
        self._streaming: CondenseQuestionChatEngine | None = None
        if streaming_engine is not query_engine:
            # the two share the memory
            self._streaming = CheckedChatEngine(
                streaming_engine, streaming_engine, abstention=abstention, **parts
            )

    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """Answer piece by piece."""
        speak: Any = super().stream_chat if self._streaming is None else self._streaming.stream_chat
        response: StreamingAgentChatResponse = speak(message, chat_history)
        return response

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        """Answer piece by piece without blocking the event loop."""
        streaming = self._streaming
        speak: Any = super().astream_chat if streaming is None else streaming.astream_chat
        response: StreamingAgentChatResponse = await speak(message, chat_history)
        return response

    def _condense_question(self, chat_history: list[ChatMessage], last_message: str) -> str:
        return self._question(super()._condense_question(chat_history, last_message), last_message)

    async def _acondense_question(self, chat_history: list[ChatMessage], last_message: str) -> str:
        condensed = await super()._acondense_question(chat_history, last_message)
        return self._question(condensed, last_message)

    def _question(self, condensed: str, last_message: str) -> str:
        abstains = parse_answer(condensed, abstention=self._abstention).abstained
        return last_message if abstains else condensed.strip()


def chat_memory(llm: LLM, history: list[ChatMessage] | None) -> ChatMemoryBuffer:
    """Make a memory that leaves half of the window to the question and its answer."""
    return ChatMemoryBuffer.from_defaults(
        chat_history=history or [],
        token_limit=max(1, llm.metadata.context_window // 2),
        tokenizer_fn=getattr(llm, "tokenize", None),
    )


def context_chat_engine(
    mode: str, *, retriever: BaseRetriever | None, **settings: Any
) -> BaseChatEngine:
    """Make one of LlamaIndex's chat engines over a retriever.

    Raises:
        ConfigurationError: There is no such mode, or no retriever.
    """
    engines: Mapping[str, Any] = {
        "condense_plus_context": CondensePlusContextChatEngine,
        "context": ContextChatEngine,
    }
    if mode not in engines or retriever is None:
        raise ConfigurationError(
            f"chat_mode is {mode!r} with {'no' if retriever is None else 'a'} retriever; it must "
            f"be 'condense_question', or with a retriever one of {sorted(engines)}."
        )
    engine: BaseChatEngine = engines[mode].from_defaults(retriever=retriever, **settings)
    return engine
