"""Structured output: objects of a pydantic class, by decoding that cannot leave its schema."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.instrumentation import (  # type: ignore[attr-defined]  # re-exported
    get_dispatcher,
)
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.utils import create_flexible_model
from llama_index.core.prompts.base import BasePromptTemplate
from pydantic_core import from_json

from phi3_industry.engines.base import Grammar
from phi3_industry.errors import EngineError
from phi3_industry.llms.schemas import closed

__all__ = ["SCHEMA_INSTRUCTIONS", "StructuredOutput"]

SCHEMA_INSTRUCTIONS = "JSON schema: {schema}"
"""What a model is told about the form of its answer; ``{schema}`` stands for the schema."""

Output = TypeVar("Output", bound=BaseModel)

_dispatcher = get_dispatcher(__name__)


class StructuredOutput(FunctionCallingLLM):
    """The part of an LLM that answers with objects.

    Every answer validates, whatever the model would rather say. One that ``max_new_tokens`` cut
    short was led to a legal end and has the finish reason ``"length"``; an object that cannot fit
    at all is refused before any computing.
    """

    schema_instructions: str = Field(default=SCHEMA_INSTRUCTIONS)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type checkers take the fields above for all there are

    @_dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Output],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Output:
        """Answer a prompt with an object.

        Args:
            output_cls: The pydantic class of the answer.
            prompt: The prompt.
            llm_kwargs: Options of :meth:`chat` for this call.
            **prompt_args: What fills the prompt's gaps.

        Raises:
            ConfigurationError: The schema of the class cannot be enforced, or its shortest
                object does not fit into ``max_new_tokens``.
            MissingDependencyError: llguidance is not installed.
            ValidationError: A validator of the class asks for more than its schema says.
        """
        messages, options = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        output = _read(self.chat(messages, **options), output_cls)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    @_dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Output],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Output:
        """Answer a prompt with an object without blocking the event loop."""
        messages, options = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        output = _read(await self.achat(messages, **options), output_cls)
        _dispatcher.event(LLMStructuredPredictEndEvent(output=output))
        return output

    def _structured_stream_call(
        self,
        output_cls: type[Output],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Give what an object is known to hold so far, again and again, and the object at last."""
        messages, options = self._structured_call(
            output_cls, prompt, llm_kwargs, prompt_args, event=False
        )
        partial = _PartialObjects(output_cls)
        for response in self.stream_chat(messages, **options):
            yield from partial.take(response)

    async def _structured_astream_call(
        self,
        output_cls: type[Output],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        messages, options = self._structured_call(
            output_cls, prompt, llm_kwargs, prompt_args, event=False
        )
        responses = await self.astream_chat(messages, **options)

        async def stream() -> AsyncGenerator[Any, None]:
            partial = _PartialObjects(output_cls)
            async for response in responses:
                for item in partial.take(response):
                    yield item

        return stream()

    def _structured_call(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None,
        prompt_args: Mapping[str, Any],
        *,
        event: bool = True,
    ) -> tuple[list[ChatMessage], dict[str, Any]]:
        """Build messages and options of a call; streams have their events from LlamaIndex."""
        if event:
            _dispatcher.event(
                LLMStructuredPredictStartEvent(
                    output_cls=output_cls, template=prompt, template_args=dict(prompt_args)
                )
            )
        schema = output_cls.model_json_schema()
        text = json.dumps(schema, ensure_ascii=False)
        # no str.format: a user's own wording may hold braces
        told = self.schema_instructions.replace("{schema}", text)
        messages = with_system_text(self._get_messages(prompt, **prompt_args), told)
        grammar = Grammar(kind="json_schema", text=json.dumps(closed(schema)))
        return messages, {**(llm_kwargs or {}), "grammar": grammar}


def with_system_text(messages: list[ChatMessage], text: str) -> list[ChatMessage]:
    """Put a text behind the first system message, or make it one."""
    if messages and messages[0].role == MessageRole.SYSTEM:
        joined = f"{messages[0].content or ''}\n\n{text}"
        return [ChatMessage(role=MessageRole.SYSTEM, content=joined), *messages[1:]]
    return [ChatMessage(role=MessageRole.SYSTEM, content=text), *messages]


class _PartialObjects:
    """Reads an object while it grows."""

    def __init__(self, output_cls: type[BaseModel]) -> None:
        self._output_cls = output_cls
        self._flexible = create_flexible_model(output_cls)
        self._last: Any = None

    def take(self, response: ChatResponse) -> Generator[BaseModel, None, None]:
        """Read on; give the object if more of it is known."""
        if (response.raw or {}).get("finish_reason"):
            yield _read(response, self._output_cls)
            return
        text = response.message.content or ""
        if not text.strip():
            return
        value = from_json(text, allow_partial="trailing-strings")
        if isinstance(value, dict) and value != self._last:
            self._last = value
            yield self._flexible.model_validate(value)


def _read(response: ChatResponse, output_cls: type[Output]) -> Output:
    text = response.message.content or ""
    try:
        from_json(text)
    except ValueError as error:
        raw: Any = response.raw or {}
        raise EngineError(
            f"The answer is no complete {output_cls.__name__}: it broke off after "
            f"{raw['usage']['completion_tokens']} tokens ({error}). Raise max_new_tokens, or put "
            "bounds into the schema (maxLength, maxItems)."
        ) from error
    return output_cls.model_validate_json(text)
