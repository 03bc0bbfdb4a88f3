"""Phi3LLM: a Phi-3 model as a LlamaIndex LLM, with any number of adapters over one base."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    LogProb,
    MessageRole,
    TextBlock,
)
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM

from phi3_industry.engines.base import GenerationRequest, SamplingParams, TokenEvent
from phi3_industry.errors import AdapterNotFoundError, ConfigurationError, PromptTooLongError
from phi3_industry.models.adapter import AdapterManifest, read_manifest
from phi3_industry.models.catalog import EMBEDDED, Checkpoint, resolve_model
from phi3_industry.models.loading import DType, Quantization, load_base_model, load_checkpoint

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

    from phi3_industry.engines.local import LocalEngine

__all__ = ["Phi3LLM"]

_ROLES: Mapping[MessageRole, str] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    # Phi-3 has no turn for tool results; what a tool said is said to the model
    MessageRole.TOOL: "user",
    MessageRole.FUNCTION: "user",
}

_SAMPLING_OPTIONS = ("max_new_tokens", "temperature", "top_p", "top_k", "stop", "seed", "logprobs")
_CALL_OPTIONS = (*_SAMPLING_OPTIONS, "adapter", "timeout_s")


class Phi3LLM(FunctionCallingLLM):
    r"""A Phi-3 model as a LlamaIndex LLM.

    Weights are loaded at the first use, or by :meth:`load`. Views made by :meth:`with_adapter`
    share them.

    Args:
        model: ``"embedded"``, a folder, or a hub id such as
            ``"microsoft/Phi-3-mini-4k-instruct"``.
        quantization: ``"nf4"`` or ``"int8"`` to store the linear layers in 4 or 8 bits.
        dtype: The type to compute in; ``"auto"`` follows the checkpoint.
        device: A torch device; ``"auto"`` takes the first CUDA device, else the CPU.
        revision: Revision on the hub.
        local_files_only: Whether to keep off the network.
        context_window: Tokens of prompt and answer together, if fewer than the model's own.
        max_new_tokens, temperature, top_p, top_k, stop, seed: As in
            :class:`~phi3_industry.engines.base.SamplingParams`; each call may give its own.
        timeout_s: Seconds after which a call is stopped.
        adapter: Name of the adapter to answer with; ``None`` is the base model.
        adapter_paths: Adapter folders by name, loaded together with the model.

    Example:
        >>> llm = Phi3LLM(model="embedded")
        >>> str(llm.complete("Context:\n[1] The oil of pump P-7 is Tovex 32.\n\n"
        ...                  "Question: Which oil does pump P-7 have?"))
        '[1] Tovex 32'
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    model: str = EMBEDDED
    quantization: Quantization | None = None
    dtype: DType = "auto"
    device: str = "auto"
    revision: str | None = None
    local_files_only: bool = False
    context_window: int | None = Field(default=None, gt=0)
    max_new_tokens: int = Field(default=256, gt=0)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    stop: list[str] = Field(default_factory=list)
    seed: int | None = None
    timeout_s: float | None = Field(default=None, gt=0)
    adapter: str | None = None
    adapter_paths: dict[str, str] = Field(default_factory=dict)

    _shared: _SharedEngine = PrivateAttr()

    def __init__(self, model: str = EMBEDDED, **kwargs: Any) -> None:
        super().__init__(model=model, **kwargs)
        if self.adapter is not None and self.adapter not in self.adapter_paths:
            raise AdapterNotFoundError(self.adapter, list(self.adapter_paths))
        self._shared = _SharedEngine(self)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised form."""
        return "Phi3LLM"

    # --- what it is ---------------------------------------------------------------------------

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know; reads the configuration but loads no weights."""
        return LLMMetadata(
            context_window=self._context_window,
            num_output=self.max_new_tokens,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=resolve_model(self.model)[1],
            system_role=MessageRole.SYSTEM,
        )

    def to_payload(self) -> dict[str, Any]:
        """Describe the LLM for events and traces; holds no path."""
        return {
            "class_name": self.class_name(),
            **self.metadata.model_dump(),
            "model": resolve_model(self.model)[1],
            "temperature": self.temperature,
            "adapter": self.adapter,
        }

    @property
    def prompt_budget(self) -> int:
        """Tokens that a prompt should stay within to be clear of the model's length cliffs."""
        return min(self._shared.checkpoint.prompt_budget, self._context_window)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that can be answered with, sorted."""
        return tuple(sorted(self.adapter_paths))

    def load(self) -> Self:
        """Load the weights now and not at the first use.

        Raises:
            ModelLoadError: The model does not load.
            AdapterError: One of ``adapter_paths`` does not fit.
        """
        self._shared.engine  # noqa: B018 - asking for it loads it
        return self

    # --- adapters -----------------------------------------------------------------------------

    def load_adapter(self, path: str | PathLike[str], name: str) -> None:
        """Load an adapter folder and make it known by a name, to this LLM and all its views.

        Args:
            path: The adapter folder.
            name: The name to call it by.

        Raises:
            ValueError: The name is empty or taken.
            AdapterNotFoundError: There is no adapter at the path.
            AdapterError: The adapter is damaged or was made for something else.
        """
        self._shared.engine.load_adapter(path, name=name)
        self.adapter_paths[name] = str(path)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory.

        Raises:
            AdapterNotFoundError: No adapter of that name is loaded.
        """
        self._shared.engine.unload_adapter(name)
        self.adapter_paths.pop(name, None)

    def with_adapter(self, adapter: str | None) -> Self:
        """Give a view of the same weights that answers with an adapter.

        Args:
            adapter: Name of a loaded adapter, or the path of an adapter folder, which is then
                loaded under its path; ``None`` is the base model.

        Raises:
            AdapterNotFoundError: There is no such adapter.
        """
        if adapter is not None and adapter not in self.adapter_paths:
            if not Path(adapter).is_dir():
                raise AdapterNotFoundError(adapter, self.adapters)
            self.load_adapter(adapter, adapter)
        # a shallow copy: the engine and the table of adapters stay shared
        return self.model_copy(update={"adapter": adapter})

    def adapter_manifest(self) -> AdapterManifest | None:
        """Say what the adapter of this view was made for; ``None`` for the base model."""
        return None if self.adapter is None else read_manifest(self.adapter_paths[self.adapter])

    # --- tokens -------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Turn text into token ids, as content; fits ``Settings.tokenizer``."""
        return self._shared.engine.loaded.chat_format.encode_text(text)

    def count_tokens(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Count the tokens of a prompt, the chat template's own included.

        Args:
            messages: ``{"role", "content"}`` each.
        """
        return len(self._shared.engine.loaded.chat_format.encode_messages(messages))

    def score(
        self, messages: Sequence[Mapping[str, str]], continuations: Sequence[str]
    ) -> list[list[float]]:
        """Give the log probability of each token of possible answers to one prompt.

        Args:
            messages: The prompt, ``{"role", "content"}`` each.
            continuations: The possible answers.

        Returns:
            For each answer the natural log probabilities of its tokens.
        """
        engine = self._shared.engine
        chat_format = engine.loaded.chat_format
        return engine.score(
            chat_format.encode_messages(messages),
            [chat_format.encode_text(text) for text in continuations],
            adapter=self.adapter,
        )

    # --- the eight endpoints ------------------------------------------------------------------
    # Each builds one request; _events and _aevents alone compute. None calls another, so that
    # LlamaIndex sees one event for each call.

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
                ``seed``, ``logprobs``, ``adapter`` and ``timeout_s`` for this call alone.

        Returns:
            The answer. ``raw`` is plain JSON: ``model``, ``adapter``, ``finish_reason`` and
            ``usage`` with exact token counts.

        Raises:
            TypeError: An option is unknown.
            ValueError: A message holds something else than text.
            PromptTooLongError: Prompt and answer do not fit into the context window.
            AdapterNotFoundError: No adapter of that name is loaded.
            RequestTimeoutError: ``timeout_s`` is over.
            EngineError: Computing failed.
        """
        request = self._chat_request(messages, options=kwargs)
        return self._chat(list(self._events(request)), request)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer messages without blocking the event loop."""
        request = await asyncio.to_thread(self._chat_request, messages, options=kwargs)
        return self._chat([event async for event in self._aevents(request)], request)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer messages piece by piece; closing the stream stops the work."""
        request = self._chat_request(messages, options=kwargs)

        def stream() -> ChatResponseGen:
            events: list[TokenEvent] = []
            for event in self._events(request):
                events.append(event)
                yield self._chat(events, request)

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
                yield self._chat(events, request)

        return stream()

    def _prepare_chat_with_tools(
        self, tools: Sequence[BaseTool], *_: Any, **__: Any
    ) -> dict[str, Any]:
        names = [tool.metadata.name for tool in tools]
        raise ConfigurationError(
            f"The tools {names} were given to '{self.metadata.model_name}', which calls no tools "
            "(metadata.is_function_calling_model is False). Use an agent that works through "
            "plain text, such as LlamaIndex's ReActAgent."
        )

    # --- one path for all ---------------------------------------------------------------------

    @property
    def _context_window(self) -> int:
        own = self._shared.checkpoint.context_window
        return own if self.context_window is None else min(own, self.context_window)

    def _chat_request(
        self, messages: Sequence[ChatMessage], *, options: Mapping[str, Any]
    ) -> GenerationRequest:
        turns = [_plain_message(message) for message in messages]
        if self.system_prompt:
            system = {"role": "system", "content": self.system_prompt}
            if turns[:1] != [system]:  # predict() has put it there already
                turns.insert(0, system)
        chat_format = self._shared.engine.loaded.chat_format
        return self._request(chat_format.encode_messages(turns), options)

    def _completion_request(
        self, prompt: str, *, formatted: bool, options: Mapping[str, Any]
    ) -> GenerationRequest:
        if not formatted:
            text = self.completion_to_prompt(prompt) if self.completion_to_prompt else prompt
            return self._chat_request([ChatMessage(role="user", content=text)], options=options)
        chat_format = self._shared.engine.loaded.chat_format
        control = chat_format.control_text_in(prompt)
        if control is not None:
            raise ValueError(
                f"The formatted prompt spells out the control token {control!r}. Text never "
                "becomes a control token here: give the turns as messages to chat()."
            )
        return self._request(chat_format.encode_text(prompt), options)

    def _request(self, prompt_ids: list[int], options: Mapping[str, Any]) -> GenerationRequest:
        unknown = sorted(set(options) - set(_CALL_OPTIONS))
        if unknown:
            raise TypeError(
                f"The options {unknown} are unknown to Phi3LLM; it takes {list(_CALL_OPTIONS)}."
            )
        sampling = SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=tuple(self.stop),
            seed=self.seed,
        )
        given = {key: options[key] for key in _SAMPLING_OPTIONS if key in options}
        if "stop" in given:
            stop = given["stop"] or ()
            given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        sampling = replace(sampling, **given)
        available = self._context_window - sampling.max_new_tokens
        if len(prompt_ids) > available:
            raise PromptTooLongError(
                needed=len(prompt_ids),
                available=max(0, available),
                context_window=self._context_window,
                max_new_tokens=sampling.max_new_tokens,
            )
        return GenerationRequest(
            prompt_ids=tuple(prompt_ids),
            sampling=sampling,
            adapter=options.get("adapter", self.adapter),
            timeout_s=options.get("timeout_s", self.timeout_s),
        )

    def _events(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        return self._shared.engine.generate(request)

    async def _aevents(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Take the engine's events in a thread, one at a time, so that the event loop is free."""
        loop = asyncio.get_running_loop()
        events = self._events(request)
        close = cast("Any", events).close  # the engine gives generators
        while True:
            step = loop.run_in_executor(None, next, events, None)
            try:
                event = await asyncio.shield(step)
            except asyncio.CancelledError:
                # the step under way cannot be taken back; no other follows it
                step.add_done_callback(lambda done: (done.exception(), close()))
                raise
            if event is None:
                return
            try:
                yield event
            except GeneratorExit:
                close()
                raise

    def _completion(
        self, events: Sequence[TokenEvent], request: GenerationRequest
    ) -> CompletionResponse:
        return CompletionResponse(
            text="".join(event.text for event in events),
            delta=events[-1].text,
            raw=self._raw(events[-1], request),
            logprobs=_log_probabilities(events, request),
        )

    def _chat(self, events: Sequence[TokenEvent], request: GenerationRequest) -> ChatResponse:
        text = "".join(event.text for event in events)
        return ChatResponse(
            message=ChatMessage(role=MessageRole.ASSISTANT, content=text),
            delta=events[-1].text,
            raw=self._raw(events[-1], request),
            logprobs=_log_probabilities(events, request),
        )

    def _raw(self, last: TokenEvent, request: GenerationRequest) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "model": resolve_model(self.model)[1],
            "adapter": request.adapter,
            "finish_reason": last.finish_reason,
        }
        if last.usage is not None:
            raw["usage"] = {
                "prompt_tokens": last.usage.prompt_tokens,
                "completion_tokens": last.usage.completion_tokens,
                "total_tokens": last.usage.total_tokens,
            }
        return raw

    # --- copies -------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the settings; the weights stay shared."""
        return self.model_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; the weights are loaded anew where they are unpickled."""
        return _rebuild, (self.to_dict(),)


class _SharedEngine:
    """The engine behind an LLM and all its views, loaded once at the first use."""

    def __init__(self, llm: Phi3LLM) -> None:
        self._settings: dict[str, Any] = {
            "model": llm.model,
            "revision": llm.revision,
            "local_files_only": llm.local_files_only,
        }
        self._options: dict[str, Any] = {
            "dtype": llm.dtype,
            "quantization": llm.quantization,
            "device": llm.device,
        }
        self._adapter_paths = llm.adapter_paths
        self._lock = threading.Lock()
        self._engine: LocalEngine | None = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return load_checkpoint(**self._settings)

    @property
    def engine(self) -> LocalEngine:
        with self._lock:
            if self._engine is None:
                from phi3_industry.engines.local import LocalEngine

                engine = LocalEngine(load_base_model(**self._settings, **self._options))
                for name, path in self._adapter_paths.items():
                    engine.load_adapter(path, name=name)
                self._engine = engine
            return self._engine


def _rebuild(settings: dict[str, Any]) -> Phi3LLM:
    return Phi3LLM.from_dict(settings)


def _plain_message(message: ChatMessage) -> dict[str, str]:
    """Turn a LlamaIndex message into role and text, or say what it holds that cannot be said."""
    others = [type(block).__name__ for block in message.blocks if not isinstance(block, TextBlock)]
    if others:
        raise ValueError(
            f"A message holds {others}; Phi-3 reads text alone. Send TextBlocks, or describe the "
            "rest in words."
        )
    text = "\n".join(block.text for block in message.blocks if isinstance(block, TextBlock))
    return {"role": _ROLES[message.role], "content": text}


def _log_probabilities(
    events: Sequence[TokenEvent], request: GenerationRequest
) -> list[list[LogProb]] | None:
    if not request.sampling.logprobs:
        return None
    return [
        [LogProb(token=event.text, logprob=event.logprob)]
        for event in events
        if event.logprob is not None
    ]
