"""RemoteEngine: an OpenAI-compatible server computes, and adapters are its LoRA modules.

Prompts are sent as token ids, which :mod:`phi3_industry.models.chat_format` built here, to the
server's completions endpoint: the server applies no template, and content cannot become control
there either. Written for vLLM, whose extensions are used for what OpenAI's protocol lacks; other
servers are asked for nothing beyond that protocol, and what then cannot be done is an error.
A server that takes texts alone, as ``transformers serve`` does, is sent one where its tokenizer
has to read the same tokens from it, and where none would it is not asked.

What vLLM 0.32 does on a CPU, seen on its own HTTP interface: where requests for the base model
and for an adapter are under way at the same time, the base's are answered with the adapter, too.
Serve an adapter by a server of its own there. A grammar for JSON lets white space go on without
end unless the server was started with ``--structured-outputs-config '{"backend": "xgrammar",
"disable_any_whitespace": true}'``, which ``phi3-industry serve-command`` prints.

Source: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import httpx
import openai

from phi3_industry.engines.base import Engine, GenerationRequest, Grammar, Pooling, TokenEvent
from phi3_industry.engines.remote_errors import translated
from phi3_industry.engines.remote_stream import AnswerReader
from phi3_industry.errors import (
    AdapterError,
    AdapterNotFoundError,
    ConfigurationError,
    EngineError,
    RequestTimeoutError,
)
from phi3_industry.models.chat_format import ChatFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RemoteEngine", "ServedModel", "ServerKind"]

ServerKind = Literal["auto", "vllm", "openai", "openai-text"]
"""What the server understands: vLLM's extensions, or OpenAI's protocol alone, with prompts as token
ids or as texts."""

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model or LoRA module that a server offers.

    Attributes:
        name: What requests call it.
        base: Name of the model that a LoRA module belongs to; ``None`` for a base model.
        context_window: Tokens of prompt and answer together; ``None`` if the server is silent.
        owner: Who the server says made it; vLLM says ``"vllm"``.
    """

    name: str
    base: str | None
    context_window: int | None
    owner: str | None


class RemoteEngine(Engine):
    """Lets a server compute.

    Args:
        base_url: Address of the server with the path of its API, such as
            ``"http://127.0.0.1:8000/v1"``.
        chat_format: The model's chat format; says where answers end.
        model: The server's name of the base model; ``None`` takes the only one it has. With the
            kinds ``"openai"`` and ``"openai-text"`` it need not be listed by the server.
        kind: What the server understands; ``"auto"`` asks it.
        api_key: Key to send along; ``None`` for a server that wants none.
        ca_file: File with the certificates to trust; ``None`` trusts those of the system.
        silence_s: Seconds without a word from the server after which a request is given up.
        max_connections: Most requests under way at a time; more wait here.
        max_retries: How often a request that has not begun is sent again when the server is
            busy, fails or cannot be reached; the waits between grow.
    """

    def __init__(
        self,
        base_url: str,
        *,
        chat_format: ChatFormat,
        model: str | None = None,
        kind: ServerKind = "auto",
        api_key: str | None = None,
        ca_file: str | PathLike[str] | None = None,
        silence_s: float = 600.0,
        max_connections: int = 64,
        max_retries: int = 2,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._chat_format = chat_format
        self._asked_model = model
        self._asked_kind = kind
        self._silence_s = silence_s
        self._options: dict[str, Any] = {
            "base_url": self.base_url,
            # the client insists on one, and servers that want none pass over it
            "api_key": api_key or "none",
            "max_retries": max_retries,
        }
        self._transport: dict[str, Any] = {"timeout": self._patience(None)}
        if ca_file is not None:
            self._transport["verify"] = ssl.create_default_context(cafile=str(ca_file))
        limits = httpx.Limits(max_connections=max_connections)
        self._client = openai.OpenAI(
            **self._options,
            http_client=openai.DefaultHttpxClient(limits=limits, **self._transport),
        )
        weakref.finalize(self, self._client.close)
        # Connections belong to the event loop that opened them. None is kept open between
        # requests, since nobody could close it when the loop has ended.
        self._async_limits = httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=0
        )
        self._async_clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, openai.AsyncOpenAI
        ] = weakref.WeakKeyDictionary()
        self._served: dict[str, ServedModel] = {}
        self._lock = threading.Lock()

    # --- what the server has --------------------------------------------------------------------

    def served(self, *, refresh: bool = False) -> dict[str, ServedModel]:
        """List what the server offers, by name; asked once, and again with ``refresh``.

        Raises:
            EngineError: The server does not answer.
        """
        with self._lock:
            if refresh or not self._served:
                with translated(self.base_url, timed_out=self._silent):
                    listed = list(self._client.models.list())
                self._served = {entry.id: _served_model(entry) for entry in listed}
            return self._served

    @property
    def model(self) -> ServedModel:
        """The base model that answers.

        Raises:
            ConfigurationError: The server has no such model, or several to choose from.
        """
        if self._asked_model is not None and self._asked_kind in ("openai", "openai-text"):
            return self._named(self._asked_model)
        bases = {name: model for name, model in self.served().items() if model.base is None}
        if self._asked_model is None and len(bases) == 1:
            return next(iter(bases.values()))
        if self._asked_model in bases:
            return bases[self._asked_model]
        asked = "no served_model was given" if self._asked_model is None else self._asked_model
        raise ConfigurationError(
            f"The server {self.base_url} serves the models {sorted(bases)}; asked for: {asked}. "
            "Set served_model to one of them; of a server that does not list what it serves set "
            "server='openai' as well."
        )

    def _named(self, name: str) -> ServedModel:
        """Take a name at its word: not every server lists what it serves, or lists at all."""
        unlisted = ServedModel(name=name, base=None, context_window=None, owner=None)
        try:
            return self.served().get(name, unlisted)
        except EngineError:
            return unlisted

    @property
    def context_window(self) -> int | None:
        """Tokens of prompt and answer together, as the server says; ``None`` if it is silent."""
        return self.model.context_window

    @property
    def understands_vllm(self) -> bool:
        """Whether the server is taken to understand vLLM's extensions."""
        if self._asked_kind == "auto":
            return self.model.owner == "vllm"
        return self._asked_kind == "vllm"

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the LoRA modules that the base model has now, sorted."""
        self.served(refresh=True)
        return self._modules()

    # --- generation -----------------------------------------------------------------------------

    def generate(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        """Continue a prompt; closing the iterator closes the connection, and the server stops."""
        reader = AnswerReader(request, chat_format=self._chat_format, server=self.base_url)
        return self._generate(request, reader)

    def _generate(self, request: GenerationRequest, reader: AnswerReader) -> Iterator[TokenEvent]:
        body = self._body(request)
        with translated(self.base_url, timed_out=lambda: reader.timed_out(self._silence_s)):
            stream = self._client.completions.create(
                **body, timeout=self._patience(reader.seconds_left)
            )
            with stream:
                for chunk in stream:
                    yield from reader.read(chunk)
        yield reader.end()

    def agenerate(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Continue a prompt without blocking the event loop."""
        reader = AnswerReader(request, chat_format=self._chat_format, server=self.base_url)
        return self._agenerate(request, reader)

    async def _agenerate(
        self, request: GenerationRequest, reader: AnswerReader
    ) -> AsyncIterator[TokenEvent]:
        body = await asyncio.to_thread(self._body, request)
        with translated(self.base_url, timed_out=lambda: reader.timed_out(self._silence_s)):
            stream = await self._async_client().completions.create(
                **body, timeout=self._patience(reader.seconds_left)
            )
            async with stream:
                async for chunk in stream:
                    for event in reader.read(chunk):
                        yield event
        yield reader.end()

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        if not request.prompt_ids:
            raise ValueError("The prompt is empty; give at least one token.")
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._name_of(request.adapter),
            "prompt": self._prompt(request.prompt_ids),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.logprobs:
            body["logprobs"] = 0
        if self.understands_vllm:
            body["extra_body"] = self._extensions(request)
        elif sampling.top_k or request.grammar:
            self._refuse("top_k" if sampling.top_k else "answers that obey a grammar")
        return body

    def _prompt(self, ids: Sequence[int]) -> list[int] | str:
        return self._chat_format.as_text(ids) if self._asked_kind == "openai-text" else list(ids)

    def _extensions(self, request: GenerationRequest) -> dict[str, Any]:
        extensions: dict[str, Any] = {
            "stop_token_ids": sorted(self._chat_format.stop_token_ids),
            "return_token_ids": True,
            "add_special_tokens": False,
        }
        if request.sampling.top_k:
            extensions["top_k"] = request.sampling.top_k
        if request.grammar is not None:
            extensions["structured_outputs"] = _structured_outputs(request.grammar)
        return extensions

    # --- scores and vectors ---------------------------------------------------------------------

    def score(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[float]]:
        """Give the log probability of each token of each continuation of one prompt."""
        return self.score_batch([prompt_ids], continuations, adapter=adapter)[0]

    def score_batch(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[list[float]]]:
        """Give what :meth:`score` gives, for many prompts with the same continuations."""
        if not all([*prompts, *continuations]):
            raise ValueError("The prompt and every continuation need at least one token.")
        if not self.understands_vllm:
            self._refuse("log probabilities of given answers (score)")
        name = self._name_of(adapter)
        whole = [[*prompt, *rest] for prompt in prompts for rest in continuations]
        begins = [len(prompt) for prompt in prompts for _ in continuations]
        # One after the other: vLLM 0.32 on a CPU ends with all its requests when it computes the
        # log probabilities of several prompts in one step while it serves adapters.
        found = [
            self._prompt_scores(name, ids, begin) for ids, begin in zip(whole, begins, strict=True)
        ]
        width = len(continuations)
        return [found[i * width : (i + 1) * width] for i in range(len(prompts))]

    def _prompt_scores(self, name: str, ids: Sequence[int], begin: int) -> list[float]:
        with translated(self.base_url, timed_out=self._silent):
            reply = self._client.completions.create(
                model=name,
                prompt=list(ids),
                max_tokens=1,
                temperature=0,
                extra_body={"prompt_logprobs": 0, "add_special_tokens": False},
            )
        given = (reply.choices[0].model_extra or {}).get("prompt_logprobs")
        if not given:
            raise EngineError(
                f"The server {self.base_url} gave no log probabilities of the prompt, which "
                "scoring needs. vLLM does; set server='openai' if this is another."
            )
        return [float(given[at][str(ids[at])]["logprob"]) for at in range(begin, len(ids))]

    def embed(
        self,
        batch: Sequence[Sequence[int]],  # noqa: ARG002 - the interface's
        *,
        pooling: Pooling = "last",  # noqa: ARG002
        adapter: str | None = None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Refuse: a server that generates gives no vectors.

        Raises:
            EngineError: Always.
        """
        raise EngineError(
            f"The server {self.base_url} generates text and gives no vectors. Embed with "
            "load_embedding(...), or with a Phi3LLM that loads the model here."
        )

    # --- adapters -------------------------------------------------------------------------------

    def load_adapter(self, path: str | PathLike[str], *, name: str) -> None:
        """Make sure that the server has a LoRA module of a name.

        A module that it serves already is taken as it is. Otherwise it is asked to load the
        folder, which it must be able to read under the same path.

        Raises:
            AdapterError: The server does not load it.
        """
        if name in self.served(refresh=True):
            return
        body = {"lora_name": name, "lora_path": str(Path(path).resolve())}
        self._change_adapters("load_lora_adapter", body, name)

    def unload_adapter(self, name: str) -> None:
        """Let the server forget a LoRA module."""
        if name not in self.adapters:
            raise AdapterNotFoundError(name, self.adapters)
        self._change_adapters("unload_lora_adapter", {"lora_name": name}, name)

    def _change_adapters(self, action: str, body: dict[str, str], name: str) -> None:
        try:
            with translated(self.base_url, timed_out=self._silent):
                self._client.post(f"/{action}", body=body, cast_to=httpx.Response)
        except EngineError as error:
            raise AdapterError(
                f"The server {self.base_url} did not {action.split('_')[0]} the adapter '{name}': "
                f"{error} Start it with --lora-modules {name}=FOLDER, or, to change adapters while "
                "it runs, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            ) from error
        self.served(refresh=True)

    # --- small things ---------------------------------------------------------------------------

    def _name_of(self, adapter: str | None) -> str:
        base = self.model.name
        if adapter is None:
            return base
        # one that is not known may have come since
        if adapter not in self._modules() and adapter not in self.adapters:
            raise AdapterNotFoundError(adapter, self._modules())
        return adapter

    def _modules(self) -> tuple[str, ...]:
        base = self.model.name
        return tuple(sorted(name for name, model in self.served().items() if model.base == base))

    def _async_client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            transport = openai.DefaultAsyncHttpxClient(limits=self._async_limits, **self._transport)
            client = openai.AsyncOpenAI(**self._options, http_client=transport)
            self._async_clients[loop] = client
        return client

    def _patience(self, seconds_left: float | None) -> httpx.Timeout:
        """How long to wait for a connection, a place in the queue, and each piece of an answer."""
        wait = self._silence_s if seconds_left is None else max(seconds_left, 1e-3)
        return httpx.Timeout(wait, connect=min(_CONNECT_SECONDS, wait))

    def _silent(self) -> RequestTimeoutError:
        return RequestTimeoutError(timeout_s=self._silence_s, completion_tokens=0)

    def _refuse(self, what: str) -> NoReturn:
        raise EngineError(
            f"The server {self.base_url} is not known to offer {what}; OpenAI's protocol does not "
            "have it. Serve the model with vLLM, set server='vllm' if it understands vLLM's "
            "extensions, or do without."
        )


def _served_model(entry: Any) -> ServedModel:
    extra = entry.model_extra or {}
    window = extra.get("max_model_len")
    return ServedModel(
        name=entry.id,
        base=extra.get("parent"),
        context_window=None if window is None else int(window),
        owner=entry.owned_by,
    )


def _structured_outputs(grammar: Grammar) -> dict[str, Any]:
    if grammar.kind == "json_schema":
        return {"json": json.loads(grammar.text)}
    return {"grammar": grammar.text}
