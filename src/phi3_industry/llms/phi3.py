"""Phi3LLM: a Phi-3 model as a LlamaIndex LLM, with any number of adapters over one base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.indices.prompt_helper import ChatPromptHelper, PromptHelper

from phi3_industry.engines.base import (
    Engine,
    GenerationRequest,
    Pooling,
    PromptLookupMode,
    SamplingParams,
)
from phi3_industry.errors import (
    AdapterError,
    AdapterNotFoundError,
    ConfigurationError,
    PromptTooLongError,
)
from phi3_industry.llms.copying import CopiesShareWeights
from phi3_industry.llms.endpoints import Endpoints
from phi3_industry.llms.messages import plain_message
from phi3_industry.llms.shared_engine import SharedEngine
from phi3_industry.llms.structured import StructuredOutput, with_system_text
from phi3_industry.llms.tools import (
    TOOL_INSTRUCTIONS,
    ToolCalling,
    offers_tools,
    tool_grammar,
    tool_message,
)
from phi3_industry.models.adapter import AdapterManifest, read_manifest
from phi3_industry.models.catalog import EMBEDDED, resolve_model
from phi3_industry.models.loading import DType, LoadedModel, Quantization

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


__all__ = ["Phi3LLM"]

_SAMPLING_OPTIONS = ("max_new_tokens", "temperature", "top_p", "top_k", "stop", "seed", "logprobs")
_SOURCE_FIELDS = ("model", "revision", "local_files_only")
_LOADING_FIELDS = ("dtype", "quantization", "device")
_ENGINE_FIELDS = ("max_batch_size", "max_queue", "prefix_cache_bytes", "prompt_lookup")
# what a server is reached by, under the names that its engine gives them
_SERVER_FIELDS = {
    "base_url": "base_url",
    "served_model": "model",
    "server": "kind",
    "api_key_env": "api_key_env",
    "ca_file": "ca_file",
    "max_connections": "max_connections",
    "max_retries": "max_retries",
}
_TOOL_OPTIONS = ("tools", "tool_choice", "parallel_tool_calls")
_CALL_OPTIONS = (*_SAMPLING_OPTIONS, "adapter", "timeout_s", "grammar", *_TOOL_OPTIONS)


class Phi3LLM(CopiesShareWeights, StructuredOutput, ToolCalling, Endpoints):
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
        max_batch_size, max_queue, prefix_cache_bytes, prompt_lookup: How concurrent requests share
            the model, as in :class:`~phi3_industry.engines.local.LocalEngine`; the defaults suit
            most.
        base_url: Address of an OpenAI-compatible server that computes in place of this process,
            such as ``"http://127.0.0.1:8000/v1"``; ``model`` then gives the tokenizer and the chat
            template, and no weights are loaded. Adapters are the server's LoRA modules.
        served_model: The server's name of the model; ``None`` takes the only one it has.
        server: ``"vllm"`` if the server understands vLLM's extensions, ``"openai"`` if not,
            ``"openai-text"`` if it takes prompts as texts alone; ``"auto"`` asks whether it is
            vLLM.
        api_key_env: Environment variable with the key for the server.
        ca_file: File with the certificates to trust in a server.
        max_connections, max_retries: As in :class:`~phi3_industry.engines.remote.RemoteEngine`.
        adapter: Name of the adapter to answer with; ``None`` is the base model.
        adapter_paths: Adapter folders by name, loaded together with the model.
        tool_instructions: What the model is told about tools; ``{tools}`` in it stands for their
            description as JSON. Say it in the language of your users.
        schema_instructions: What the model is told about the form of a structured answer;
            ``{schema}`` in it stands for the JSON schema.

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
    max_batch_size: int = Field(default=16, gt=0)
    max_queue: int = Field(default=1024, gt=0)
    prefix_cache_bytes: int | None = Field(default=None, ge=0)
    prompt_lookup: PromptLookupMode = "auto"
    base_url: str | None = None
    served_model: str | None = None
    server: Literal["auto", "vllm", "openai", "openai-text"] = "auto"
    api_key_env: str = "VLLM_API_KEY"
    ca_file: str | None = None
    max_connections: int = Field(default=64, gt=0)
    max_retries: int = Field(default=2, ge=0)
    adapter: str | None = None
    adapter_paths: dict[str, str] = Field(default_factory=dict)
    tool_instructions: str = Field(default=TOOL_INSTRUCTIONS)

    _shared: SharedEngine = PrivateAttr()

    def __init__(self, model: str = EMBEDDED, **kwargs: Any) -> None:
        super().__init__(model=model, **kwargs)
        if self.base_url is None:
            server = None
            if self.adapter is not None and self.adapter not in self.adapter_paths:
                raise AdapterNotFoundError(self.adapter, list(self.adapter_paths))
        else:
            server = {name: getattr(self, field) for field, name in _SERVER_FIELDS.items()}
            self._check_leaves_loading_to_server()
        self._shared = SharedEngine(
            source={key: getattr(self, key) for key in _SOURCE_FIELDS},
            options={key: getattr(self, key) for key in _LOADING_FIELDS},
            engine_options={key: getattr(self, key) for key in _ENGINE_FIELDS},
            server=server,
            adapter_paths=self.adapter_paths,
        )

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
            # without the grammar library a call could not be kept valid; a server has its own
            is_function_calling_model=self._shared.is_remote or find_spec("llguidance") is not None,
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
        served = self._shared.engine.adapters if self._shared.is_remote else ()
        return tuple(sorted({*self.adapter_paths, *served}))

    def load(self) -> Self:
        """Load the weights now and not at the first use.

        Raises:
            ModelLoadError: The model does not load.
            AdapterError: One of ``adapter_paths`` does not fit.
        """
        self._shared.engine  # noqa: B018 - asking for it loads it
        return self

    @property
    def base_model(self) -> LoadedModel:
        """The base model and what tells it from others; asking for it loads it.

        Raises:
            ConfigurationError: A server holds the weights.
        """
        return self._shared.base_model

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
        with self._shared.lock:
            self._shared.engine.load_adapter(path, name=name)
            self.adapter_paths[name] = str(path)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory.

        Raises:
            AdapterNotFoundError: No adapter of that name is loaded.
        """
        with self._shared.lock:
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
        if adapter is not None and adapter not in self.adapters:
            if not Path(adapter).is_dir():
                raise AdapterNotFoundError(adapter, self.adapters)
            with self._shared.lock:  # two threads may ask for the same folder
                if adapter not in self.adapter_paths:
                    self.load_adapter(adapter, adapter)
        # a shallow copy: the engine and the table of adapters stay shared
        return self.model_copy(update={"adapter": adapter})

    def adapter_manifest(self) -> AdapterManifest | None:
        """Say what the adapter of this view was made for; ``None`` for the base model.

        Raises:
            AdapterError: A server has the adapter, and its folder is not known here.
        """
        if self.adapter is None:
            return None
        if self.adapter not in self.adapter_paths:
            raise AdapterError(
                f"What the adapter '{self.adapter}' of the server {self.base_url} was made for is "
                "not known here. Give its folder, or a copy of it without the weights, as "
                f"adapter_paths={{'{self.adapter}': FOLDER}}."
            )
        return read_manifest(self.adapter_paths[self.adapter])

    # --- tokens -------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Turn text into token ids, as content; fits ``Settings.tokenizer``."""
        return self._shared.chat_format.encode_text(text)

    def count_tokens(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Count the tokens of a prompt, the chat template's own included.

        Args:
            messages: ``{"role", "content"}`` each.
        """
        return len(self._shared.chat_format.encode_messages(messages))

    def prompt_helper(self) -> PromptHelper:
        """Build a ``PromptHelper`` that counts with this model's tokens and template.

        LlamaIndex's own counts with the tokenizer of another model.
        """
        return PromptHelper.from_llm_metadata(self._metadata_for_text, tokenizer=self.tokenize)

    def chat_prompt_helper(self) -> ChatPromptHelper:
        """Build a ``ChatPromptHelper`` that counts with this model's tokens and template."""
        return ChatPromptHelper.from_llm_metadata(self._metadata_for_text, tokenizer=self.tokenize)

    def bind_settings(self) -> Self:
        """Make this LLM, its tokenizer and its prompt helper those of LlamaIndex's ``Settings``.

        Splitters, token counters and response synthesizers then count with the model's own
        tokens.

        Returns:
            This LLM.
        """
        Settings.llm = self
        Settings.tokenizer = self.tokenize
        Settings.prompt_helper = self.prompt_helper()
        return self

    def score(
        self, prompt: str | Sequence[Mapping[str, str] | ChatMessage], continuations: Sequence[str]
    ) -> list[list[float]]:
        """Give the log probability of each token of possible answers to one prompt.

        Args:
            prompt: A text for the user's turn, or messages.
            continuations: The possible answers; they are computed together.

        Returns:
            For each answer the natural log probabilities of its tokens.

        Raises:
            PromptTooLongError: The prompt and the longest answer do not fit into the context
                window.
        """
        return self.score_batch([prompt], continuations)[0]

    def score_batch(
        self,
        prompts: Sequence[str | Sequence[Mapping[str, str] | ChatMessage]],
        continuations: Sequence[str],
    ) -> list[list[list[float]]]:
        """Give what :meth:`score` gives, for many prompts with the same possible answers.

        The prompts share passes of the model, and what they begin with alike is read once.

        Raises:
            PromptTooLongError: A prompt and the longest answer do not fit into the context
                window.
        """
        chat_format = self._shared.chat_format
        prompt_ids = [chat_format.encode_messages(_turns(prompt)) for prompt in prompts]
        ids = [chat_format.encode_text(text) for text in continuations]
        longest = max((len(answer) for answer in ids), default=0)
        self._check_length(max((len(prompt) for prompt in prompt_ids), default=0), longest)
        return self._shared.engine.score_batch(prompt_ids, ids, adapter=self.adapter)

    def embed(
        self, texts: Sequence[str] | Sequence[Sequence[int]], *, pooling: Pooling = "last"
    ) -> NDArray[np.float32]:
        """Embed texts with the adapter of this view.

        Args:
            texts: The texts, or the token ids of each; none empty. They are computed together.
            pooling: ``"last"`` takes the last token's state, ``"mean"`` averages over the text.

        Returns:
            Vectors of length 1, ``(len(texts), hidden_size)``.
        """
        batch = [self.tokenize(text) if isinstance(text, str) else text for text in texts]
        self._check_length(max((len(ids) for ids in batch), default=0), 0)
        return self._shared.engine.embed(batch, pooling=pooling, adapter=self.adapter)

    # --- one path for all ---------------------------------------------------------------------

    def _engine(self) -> Engine:
        return self._shared.engine

    @property
    def _context_window(self) -> int:
        own = self._shared.context_window
        return own if self.context_window is None else min(own, self.context_window)

    def _check_leaves_loading_to_server(self) -> None:
        fields = type(self).model_fields
        given = [
            f"{name}={getattr(self, name)!r}"
            for name in (*_LOADING_FIELDS, *_ENGINE_FIELDS)
            if getattr(self, name) != fields[name].default
        ]
        if given:
            raise ConfigurationError(
                f"{', '.join(given)} was given together with base_url={self.base_url!r}. The "
                "server decides how the model is loaded and computed: leave it out, and start "
                "the server accordingly."
            )

    @property
    def _metadata_for_text(self) -> LLMMetadata:
        """The metadata with the room that the template leaves to text."""
        text = "x"
        turns = [{"role": "system", "content": text}, {"role": "user", "content": text}]
        overhead = self.count_tokens(turns) - 2 * len(self.tokenize(text))
        metadata = self.metadata
        return metadata.model_copy(update={"context_window": metadata.context_window - overhead})

    def _chat_request(
        self, messages: Sequence[ChatMessage], *, options: Mapping[str, Any]
    ) -> GenerationRequest:
        messages = list(messages)
        if self.system_prompt:
            system = ChatMessage(role=MessageRole.SYSTEM, content=self.system_prompt)
            # predict() has put it there already
            first = messages[0] if messages else None
            if first is None or not _begins_with(first, self.system_prompt):
                messages.insert(0, system)
        options = dict(options)
        offered = offers_tools(options)
        tools, choice, parallel = (options.pop(key, None) for key in _TOOL_OPTIONS)
        if offered and tools:
            told = tool_message(tools, instructions=self.tool_instructions)
            messages = with_system_text(messages, told)
            options["grammar"] = tool_grammar(
                tools, choice=choice or "auto", parallel=bool(parallel)
            )
        chat_format = self._shared.chat_format
        turns = [plain_message(message) for message in messages]
        return self._request(chat_format.encode_messages(turns), options)

    def _completion_request(
        self, prompt: str, *, formatted: bool, options: Mapping[str, Any]
    ) -> GenerationRequest:
        if not formatted:
            text = self.completion_to_prompt(prompt) if self.completion_to_prompt else prompt
            return self._chat_request([ChatMessage(role="user", content=text)], options=options)
        chat_format = self._shared.chat_format
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
        grammar = options.get("grammar")
        sampling = self._sampling(options, constrained=grammar is not None)
        self._check_length(len(prompt_ids), sampling.max_new_tokens)
        return GenerationRequest(
            prompt_ids=tuple(prompt_ids),
            sampling=sampling,
            adapter=options.get("adapter", self.adapter),
            timeout_s=options.get("timeout_s", self.timeout_s),
            grammar=grammar,
        )

    def _sampling(self, options: Mapping[str, Any], *, constrained: bool) -> SamplingParams:
        given = {key: options[key] for key in _SAMPLING_OPTIONS if key in options}
        if "stop" in given:
            stop = given["stop"] or ()
            given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        if constrained and given.get("stop"):
            raise ValueError(
                f"stop is {list(given['stop'])} for an answer that a grammar shapes; a stop text "
                "would cut it. The grammar says where it ends: leave stop out."
            )
        sampling = SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=() if constrained else tuple(self.stop),
            seed=self.seed,
        )
        return replace(sampling, **given)

    def _check_length(self, prompt_tokens: int, max_new_tokens: int) -> None:
        available = self._context_window - max_new_tokens
        if prompt_tokens > available:
            raise PromptTooLongError(
                needed=prompt_tokens,
                available=max(0, available),
                context_window=self._context_window,
                max_new_tokens=max_new_tokens,
            )

    # --- copies -------------------------------------------------------------------------------

    def __hash__(self) -> int:
        return hash((id(self._shared), self.adapter))


def _turns(
    prompt: str | Sequence[Mapping[str, str] | ChatMessage],
) -> list[Mapping[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [plain_message(turn) if isinstance(turn, ChatMessage) else turn for turn in prompt]


def _begins_with(message: ChatMessage, system_prompt: str) -> bool:
    content = message.content or ""
    return message.role == MessageRole.SYSTEM and content.startswith(system_prompt)
