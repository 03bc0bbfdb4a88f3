"""What the model thinks of given texts: their log probabilities, and their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from phi3_industry.engines.base import Pooling
from phi3_industry.engines.packed_model import PASS_TOKENS, PackedModel
from phi3_industry.engines.packing import PackedSpan, SequenceCache
from phi3_industry.errors import EngineError

if TYPE_CHECKING:
    import torch

__all__ = ["pooled_states", "score_continuations"]

_SCORED_TOKENS = 256
"""Tokens whose logits are held at once: each has one for every word of the vocabulary."""


@dataclass
class _Unscored:
    """A continuation on its way: what is still to be read, and what it is to be compared with."""

    cache: SequenceCache
    tokens: list[int]
    targets: list[int]
    scores: list[float] = field(default_factory=list)


def score_continuations(
    model: PackedModel,
    run: Callable[[Callable[[], None]], None],
    prompt_ids: Sequence[int],
    continuations: Sequence[Sequence[int]],
    *,
    adapter: str | None,
    read_prompt: Callable[[SequenceCache, Sequence[int]], None],
) -> list[list[float]]:
    """Give the log probability of each token of each continuation of one prompt.

    Args:
        model: Computes.
        run: Runs a pass when it is its turn.
        prompt_ids: The prompt, not empty.
        continuations: The continuations, none empty.
        adapter: Internal name of an adapter; ``None`` is the base model.
        read_prompt: Fills the empty cache of a sequence with the keys and values of tokens.

    Returns:
        For each continuation the natural log probabilities of its tokens.
    """
    *prompt, last = prompt_ids
    prefixes: dict[bool, SequenceCache] = {}
    unscored: list[_Unscored] = []
    for continuation in continuations:
        length = len(prompt_ids) + len(continuation)
        long_rope = model.needs_long_rope(length)
        if long_rope not in prefixes:
            prefixes[long_rope] = model.new_cache(length)
            read_prompt(prefixes[long_rope], prompt)
        cache = model.new_cache(length, prefix=prefixes[long_rope] if prompt else None)
        # the last token of the prompt predicts the first of the continuation
        unscored.append(_Unscored(cache, [last, *continuation[:-1]], list(continuation)))
    while any(one.tokens for one in unscored):
        run(lambda: _score_some(model, unscored, adapter=adapter))
    return [one.scores for one in unscored]


def _score_some(model: PackedModel, unscored: Sequence[_Unscored], *, adapter: str | None) -> None:
    """Read as many tokens as one pass takes."""
    import torch

    budget = _SCORED_TOKENS
    parts: list[tuple[_Unscored, PackedSpan]] = []
    unscored = [one for one in unscored if one.tokens]
    long_rope = unscored[0].cache.long_rope
    for one in unscored:
        tokens = one.tokens[:budget]
        if tokens and one.cache.long_rope == long_rope:
            budget -= len(tokens)
            span = PackedSpan(cache=one.cache, token_ids=tokens, adapter=adapter, keep=len(tokens))
            parts.append((one, span))
    for (one, span), logits in zip(parts, model.logits([s for _, s in parts]), strict=True):
        count = len(span.token_ids)
        targets = torch.tensor(one.targets[:count], device=logits.device)
        chosen = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]
        one.scores += [float(value) for value in chosen]
        one.cache.commit(count)
        one.tokens, one.targets = one.tokens[count:], one.targets[count:]


def pooled_states(
    model: PackedModel,
    run: Callable[[Callable[[], list[torch.Tensor]]], list[torch.Tensor]],
    batch: Sequence[Sequence[int]],
    *,
    pooling: Pooling,
    adapter: str | None,
) -> list[torch.Tensor]:
    """Pool the last hidden states of texts.

    Args:
        model: Computes.
        run: Runs a pass when it is its turn.
        batch: Token ids of each text, none empty.
        pooling: See :meth:`phi3_industry.engines.base.Engine.embed`.
        adapter: Internal name of an adapter; ``None`` is the base model.

    Returns:
        For each text ``(hidden_size,)``.
    """
    pooled: list[torch.Tensor] = []
    spans: list[PackedSpan] = []
    room = PASS_TOKENS
    for ids in batch:
        cache = model.new_cache(len(ids))
        if spans and (len(ids) > room or cache.long_rope != spans[0].cache.long_rope):
            pooled += _pool_in_memory(model, run, spans, pooling)
            spans, room = [], PASS_TOKENS
        spans.append(PackedSpan(cache=cache, token_ids=ids, adapter=adapter))
        room -= len(ids)
    if spans:
        pooled += _pool_in_memory(model, run, spans, pooling)
    return pooled


def _pool_in_memory(
    model: PackedModel,
    run: Callable[[Callable[[], list[torch.Tensor]]], list[torch.Tensor]],
    spans: Sequence[PackedSpan],
    pooling: Pooling,
) -> list[torch.Tensor]:
    """Pool texts in one pass, or in halves of it when memory runs out."""
    import torch

    try:
        return run(lambda: _pool(model, spans, pooling))
    except EngineError as error:
        if len(spans) == 1 or not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
    half = len(spans) // 2
    return [
        state
        for part in (spans[:half], spans[half:])
        for state in _pool_in_memory(model, run, part, pooling)
    ]


def _pool(model: PackedModel, spans: Sequence[PackedSpan], pooling: Pooling) -> list[torch.Tensor]:
    states = model.states(spans)
    return [own[-1] if pooling == "last" else own.mean(dim=0) for own in states]
