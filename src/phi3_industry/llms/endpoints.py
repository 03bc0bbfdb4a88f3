"""The eight endpoints of an LLM over one path: a request goes in, token events come out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen

from phi3_industry.engines.base import Engine, GenerationRequest, TokenEvent
from phi3_industry.llms.messages import log_probabilities, raw_response
from phi3_industry.llms.tools import offers_tools, read_calls

__all__ = ["Endpoints"]


class Endpoints(FunctionCallingLLM):
    """The endpoints that every LLM of LlamaIndex has.

    Each builds one request; ``_events`` and ``_aevents`` alone compute. None calls another, so
    that LlamaIndex sees one event and one span for each call.
    """

    if TYPE_CHECKING:
        # declared and not abstract: LlamaIndex would draw a span for each call of an abstract one

        def _engine(self) -> Engine:
            """Give the engine; the first time it may take long."""

        def _chat_request(
            self, messages: Sequence[ChatMessage], *, options: Mapping[str, Any]
        ) -> GenerationRequest:
            """Build the request of a chat."""

        def _completion_request(
            self, prompt: str, *, formatted: bool, options: Mapping[str, Any]
        ) -> GenerationRequest:
            """Build the request of a completion."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a text as one user message; see :meth:`chat` for the options."""
        request = self._completion_request(prompt, formatted=formatted, options=kwargs)
        return self._completion(list(self._events(request)), request)

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Answer a text without blocking the event loop."""
        request = await asyncio.to_thread(
            self._completion_request, prompt, formatted=formatted, options=kwargs
        )
        return self._completion([event async for event in self._aevents(request)], request)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Answer a text piece by piece; closing the stream stops the work."""
        request = self._completion_request(prompt, formatted=formatted, options=kwargs)

        def stream() -> CompletionResponseGen:
            events: list[TokenEvent] = []
            for event in self._events(request):
                events.append(event)
                yield self._completion(events, request)

        return stream()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a text piece by piece without blocking the event loop."""
        request = await asyncio.to_thread(
            self._completion_request, prompt, formatted=formatted, options=kwargs
        )

        async def stream() -> CompletionResponseAsyncGen:
            events: list[TokenEvent] = []
            async for event in self._aevents(request):
                events.append(event)
                yield self._completion(events, request)

        return stream()

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer messages.

        Args:
            messages: The messages; text alone.
            **kwargs: ``max_new_tokens``, ``temperature``, ``top_p``, ``top_k``, ``stop``,
                ``seed``, ``logprobs``, ``adapter`` and ``timeout_s`` for this call alone;
                ``grammar``, a :class:`~phi3_industry.engines.base.Grammar` that the answer
                obeys; ``tools``, ``tool_choice`` and ``parallel_tool_calls``, as
                :meth:`chat_with_tools` gives them.

        Returns:
            The answer. ``raw`` is plain JSON: ``model``, ``adapter``, ``finish_reason`` and
            ``usage`` with exact token counts.

        Raises:
            TypeError: An option is unknown.
            ValueError: A message holds something else than text.
            PromptTooLongError: Prompt and answer do not fit into the context window.
            AdapterNotFoundError: No adapter of that name is loaded.
            RequestTimeoutError: ``timeout_s`` is over.
            ConfigurationError: The grammar cannot be enforced, or its shortest answer does not
                fit into ``max_new_tokens``.
            EngineError: Computing failed.
        """
        request = self._chat_request(messages, options=kwargs)
        return self._chat(list(self._events(request)), request, tools=offers_tools(kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer messages without blocking the event loop."""
        request = await asyncio.to_thread(self._chat_request, messages, options=kwargs)
        events = [event async for event in self._aevents(request)]
        return self._chat(events, request, tools=offers_tools(kwargs))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer messages piece by piece; closing the stream stops the work."""
        request = self._chat_request(messages, options=kwargs)

        def stream() -> ChatResponseGen:
            events: list[TokenEvent] = []
            for event in self._events(request):
                events.append(event)
                yield self._chat(events, request, tools=offers_tools(kwargs))

        return stream()

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Answer messages piece by piece without blocking the event loop."""
        request = await asyncio.to_thread(self._chat_request, messages, options=kwargs)

        async def stream() -> ChatResponseAsyncGen:
            events: list[TokenEvent] = []
            async for event in self._aevents(request):
                events.append(event)
                yield self._chat(events, request, tools=offers_tools(kwargs))

        return stream()

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Answer a prompt piece by piece; what an output parser has to read comes as one piece."""
        if self.output_parser is None and prompt.output_parser is None:
            return super().stream(prompt, **prompt_args)
        return (text for text in (self.predict(prompt, **prompt_args),))

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Answer a prompt piece by piece without blocking the event loop."""
        if self.output_parser is None and prompt.output_parser is None:
            return await super().astream(prompt, **prompt_args)

        async def parsed() -> TokenAsyncGen:
            yield await self.apredict(prompt, **prompt_args)

        return parsed()

    def _events(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        return self._engine().generate(request)

    def _aevents(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        return self._engine().agenerate(request)

    def _completion(
        self, events: Sequence[TokenEvent], request: GenerationRequest
    ) -> CompletionResponse:
        return CompletionResponse(
            text="".join(event.text for event in events),
            delta=events[-1].text,
            raw=raw_response(events[-1], request, model=self.metadata.model_name),
            logprobs=log_probabilities(events, request),
        )

    def _chat(
        self, events: Sequence[TokenEvent], request: GenerationRequest, *, tools: bool
    ) -> ChatResponse:
        text = "".join(event.text for event in events)
        delta = events[-1].text
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
        if tools and text.lstrip().startswith("{"):
            # half a call is nothing to show: it is given whole, with the last piece
            delta = ""
            ended = events[-1].finish_reason is not None
            message = ChatMessage(
                role=MessageRole.ASSISTANT, blocks=read_calls(text) if ended else []
            )
        return ChatResponse(
            message=message,
            delta=delta,
            raw=raw_response(events[-1], request, model=self.metadata.model_name),
            logprobs=log_probabilities(events, request),
        )
