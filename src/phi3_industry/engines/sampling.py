"""How the next token is chosen from the logits of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from phi3_industry.engines.base import Grammar, SamplingParams

if TYPE_CHECKING:
    import torch

__all__ = ["GrammarRules", "GrammarStarter", "TokenChooser"]


class GrammarRules(Protocol):
    """How far one answer has come in its grammar."""

    shortened: bool

    @property
    def finished(self) -> bool:
        """Whether nothing but a stop token may follow."""

    def mask(self, logits: torch.Tensor) -> None:
        """Set the logits of forbidden tokens, ``(vocab_size,)``, to minus infinity, in place."""

    def accept(self, token_id: int) -> None:
        """Take the token that was chosen."""


class GrammarStarter(Protocol):
    """Compiles grammars."""

    def start(self, grammar: Grammar, *, max_new_tokens: int | None = None) -> GrammarRules:
        """Begin an answer that obeys a grammar."""


class TokenChooser:
    """Chooses the tokens of one answer, greedily or by sampling.

    Each answer has a generator of its own, so that a seed gives the same text alone and beside
    others.

    Args:
        sampling: How to choose.
        device: Where the logits are.
    """

    def __init__(self, sampling: SamplingParams, *, device: str) -> None:
        self.greedy = sampling.temperature == 0
        self._wants_logprob = sampling.logprobs
        self._generator: Any = None
        self._warpers: list[Any] = []
        if self.greedy:
            return
        import torch
        from transformers.generation import (
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def choose(
        self, logits: torch.Tensor, *, rules: GrammarRules | None = None
    ) -> tuple[int, float | None]:
        """Choose a token.

        Args:
            logits: ``(vocab_size,)``.
            rules: The grammar that the token has to obey.

        Returns:
            The token and, if asked for, its log probability under the plain model.
        """
        import torch

        allowed = logits
        if rules is not None:
            allowed = logits.clone()
            rules.mask(allowed)
        if self.greedy:
            token = int(allowed.argmax())
        else:
            scores = allowed[None]
            for warp in self._warpers:
                scores = warp(None, scores)
            probabilities = torch.softmax(scores[0], dim=-1)
            token = int(torch.multinomial(probabilities, 1, generator=self._generator))
        if not self._wants_logprob:
            return token, None
        return token, float(logits[token] - torch.logsumexp(logits, dim=-1))
