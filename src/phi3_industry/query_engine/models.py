"""The base model and the adapter that answer, as views of one LLM."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.utils import get_tokenizer

from phi3_industry.errors import AdapterMismatchError, AdapterNotFoundError, ConfigurationError
from phi3_industry.grounding.prompt import GroundingPrompt, Message
from phi3_industry.query_engine.signals import scorer
from phi3_industry.query_engine.strategy import Strategy

__all__ = [
    "Models",
    "SupportsAdapters",
    "chat_messages",
    "find_models",
    "token_counter",
    "token_usage",
    "usable_window",
]

_TOKENS_AROUND_MESSAGE = 8


@runtime_checkable
class SupportsAdapters(Protocol):
    """An LLM that answers with adapters; :class:`~phi3_industry.llms.Phi3LLM` is one."""

    def with_adapter(self, adapter: str | None) -> Any:
        """Give a view of the same weights that answers with an adapter."""

    def adapter_manifest(self) -> Any:
        """Say what the adapter of this view was made for."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """Who answers.

    Attributes:
        base: The LLM without adapter.
        expert: The LLM with the adapter; ``None`` if there is none.
        adapter: Name of the adapter.
    """

    base: LLM
    expert: LLM | None = None
    adapter: str | None = None

    @property
    def reader(self) -> LLM:
        """Who reads passages where nothing else is asked for: the adapter if there is one."""
        return self.expert or self.base

    @property
    def supports_scores(self) -> bool:
        """Whether answers can be scored."""
        return scorer(self.base) is not None

    @property
    def strategies(self) -> list[Strategy]:
        """The strategies that these models can answer by."""
        return [s for s in Strategy if self.expert is not None or not s.uses_adapter]

    def of(self, strategy: Strategy) -> LLM:
        """Give the LLM of a strategy."""
        if not strategy.uses_adapter:
            return self.base
        if self.expert is None:
            raise AdapterNotFoundError(self.adapter or "")
        return self.expert

    def check_prompt(self, prompt: GroundingPrompt) -> None:
        """Refuse a prompt that the adapter was not trained with.

        Raises:
            AdapterMismatchError: The fingerprints differ.
        """
        if self.expert is None or not isinstance(self.expert, SupportsAdapters):
            return
        trained_with = self.expert.adapter_manifest().prompt_fingerprint
        if trained_with != prompt.fingerprint:
            raise AdapterMismatchError(
                self.adapter or "",
                what="the prompt",
                expected=f"the one it was trained with ({trained_with[:12]})",
                found=f"another ({prompt.fingerprint[:12]})",
                advice="Pass the GroundingPrompt that its training set was built with.",
            )

    def fingerprints(self) -> dict[str, str]:
        """Say which model and which adapter these are."""
        known = {"model": self.base.metadata.model_name, "adapter": "none"}
        if self.expert is not None and isinstance(self.expert, SupportsAdapters):
            manifest: Any = self.expert.adapter_manifest()
            text = json.dumps(vars(manifest), sort_keys=True, default=str)
            known["adapter"] = hashlib.sha256(text.encode()).hexdigest()
        return known


def find_models(llm: LLM, adapter: str | None) -> Models:
    """Make the views of an LLM.

    Raises:
        ConfigurationError: An adapter was named and the LLM has none.
        AdapterNotFoundError: There is no such adapter.
    """
    base: LLM = llm.with_adapter(None) if isinstance(llm, SupportsAdapters) else llm
    if adapter is None:
        return Models(base=base)
    if not isinstance(llm, SupportsAdapters):
        raise ConfigurationError(
            f"The adapter '{adapter}' was given with the LLM {type(llm).__name__}, which has "
            "no adapters. Use Phi3LLM, or leave the adapter out."
        )
    return Models(base=base, expert=llm.with_adapter(adapter), adapter=adapter)


def chat_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Turn the prompt's messages into LlamaIndex's."""
    return [ChatMessage(role=message["role"], content=message["content"]) for message in messages]


def token_counter(llm: LLM) -> Callable[[list[Message]], int]:
    """Count with the LLM's own tokenizer where it has one, else with LlamaIndex's global one."""
    own: Callable[[list[Message]], int] | None = getattr(llm, "count_tokens", None)
    if own is not None:
        return own
    tokenize = get_tokenizer()
    return lambda messages: sum(
        len(tokenize(message["content"])) + _TOKENS_AROUND_MESSAGE for message in messages
    )


def usable_window(llm: LLM) -> int:
    """Tokens of prompt and answer that a grounded prompt should stay within."""
    window = int(llm.metadata.context_window)
    budget: int | None = getattr(llm, "prompt_budget", None)
    return window if budget is None else min(window, budget + llm.metadata.num_output)


def token_usage(*replies: ChatResponse | None) -> dict[str, int] | None:
    """Sum the token counts of answers: zero where none was asked, ``None`` if the LLM is silent."""
    total = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    asked = [reply for reply in replies if reply is not None]
    usages = [reply.raw.get("usage") if isinstance(reply.raw, Mapping) else None for reply in asked]
    known = [usage for usage in usages if isinstance(usage, Mapping)]
    if asked and not known:
        return None
    if len(asked) == 1:
        return dict(known[0])
    return {key: sum(int(usage.get(key, 0)) for usage in known) for key in total}
