"""What an engine is: it computes tokens, scores and vectors, and knows nothing of LlamaIndex.

An engine speaks token ids. Text becomes ids in :mod:`phi3_industry.models.chat_format`, so that
no text can become a control token on its way through an engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Engine",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "Pooling",
    "PromptLookupMode",
    "SamplingParams",
    "TokenEvent",
    "Usage",
]

FinishReason = Literal["stop", "length"]
Pooling = Literal["last", "mean"]
PromptLookupMode = Literal["auto", "on", "off"]
"""Whether tokens are guessed from the prompt: while few requests run, always, or never."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen, and when to stop.

    Attributes:
        max_new_tokens: The most tokens to generate, at least 1.
        temperature: 0 takes the most probable token (greedy); above 0 samples.
        top_p: Samples from the smallest set of tokens whose probabilities sum to this; in (0, 1].
        top_k: Samples from this many most probable tokens; 0 means from all.
        stop: Texts at which generation ends; none of them is part of the answer.
        seed: Seed of the sampling; ``None`` draws a new one.
        logprobs: Whether each token event carries the log probability of its token.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}; it must not be negative.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must not be negative (0 means all).")
        if any(not text for text in self.stop):
            raise ValueError("stop holds an empty text, which would end every answer at once.")


@dataclass(frozen=True)
class Grammar:
    """What an answer must look like, whatever the model would rather say.

    Attributes:
        kind: Notation of the grammar.
        text: The grammar itself: a JSON schema as JSON, or a grammar in EBNF.
    """

    kind: Literal["json_schema", "ebnf"]
    text: str


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One prompt to continue.

    Attributes:
        prompt_ids: The prompt as token ids, the chat template's own included.
        sampling: How to choose tokens and when to stop.
        adapter: Name of a loaded adapter; ``None`` is the base model.
        timeout_s: Seconds from its submission after which the request is stopped with
            ``RequestTimeoutError``.
        grammar: Grammar that the answer obeys; ``None`` leaves it free.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapter: str | None = None
    timeout_s: float | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one request, counted by the engine and not estimated."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, kw_only=True)
class TokenEvent:
    """One step of a generation.

    Attributes:
        text: Text that became certain with this token; may be empty (half a character, the
            start of a stop text). The texts of all events joined are the answer.
        token_id: The token; ``None`` on an event that only flushes held-back text.
        logprob: Natural logarithm of the token's probability, if it was asked for.
        finish_reason: On the last event alone: ``"stop"`` or ``"length"``.
        usage: On the last event alone.
    """

    text: str
    token_id: int | None = None
    logprob: float | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class Engine(ABC):
    """Computes tokens, scores and vectors of one base model and its adapters.

    All methods may be called from several threads at once.
    """

    @abstractmethod
    def generate(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        """Continue a prompt token by token.

        Requests that come at the same time are computed together. At most two tokens are
        computed ahead of what was asked for: closing the iterator, or forgetting it, stops the
        work.

        Raises:
            ValueError: The prompt is empty, or the grammar is none.
            AdapterNotFoundError: No adapter of that name is loaded.
            EngineOverloadedError: Too many requests are waiting.
            RequestTimeoutError: ``timeout_s`` is over, counted from the call.
            EngineError: Computing failed.
        """

    @abstractmethod
    def agenerate(self, request: GenerationRequest) -> AsyncIterator[TokenEvent]:
        """Continue a prompt token by token without blocking the event loop.

        As :meth:`generate`, from the first item on. Waiting requests take no thread each.
        """

    @abstractmethod
    def score(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[float]]:
        """Give the log probability of each token of each continuation of one prompt.

        Args:
            prompt_ids: The prompt as token ids, not empty.
            continuations: The continuations as token ids.
            adapter: Name of a loaded adapter; ``None`` is the base model.

        Returns:
            For each continuation the natural log probabilities of its tokens, each given the
            prompt and the tokens before it.
        """

    def score_batch(
        self,
        prompts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[list[float]]]:
        """Give what :meth:`score` gives, for many prompts with the same continuations."""
        return [self.score(prompt, continuations, adapter=adapter) for prompt in prompts]

    @abstractmethod
    def embed(
        self,
        batch: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "last",
        adapter: str | None = None,
    ) -> NDArray[np.float32]:
        """Embed token sequences by pooling the last hidden states.

        Args:
            batch: Token ids of each text, none empty.
            pooling: ``"last"`` takes the last token's state, ``"mean"`` averages over the text.
            adapter: Name of a loaded adapter; ``None`` is the base model.

        Returns:
            Vectors of length 1, ``(len(batch), hidden_size)``.
        """

    @abstractmethod
    def load_adapter(self, path: str | PathLike[str], *, name: str) -> None:
        """Load an adapter folder and make it known by a name."""

    @abstractmethod
    def unload_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory."""

    @property
    @abstractmethod
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters, sorted."""
