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

__all__ = ["next_parts", "passes_of_prompts", "pooled_states", "score_continuations"]

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
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    adapter: str | None,
    read: Callable[[Sequence[tuple[SequenceCache, Sequence[int]]]], None],
) -> list[list[list[float]]]:
    """Give the log probability of each token of each continuation of each prompt.

    Args:
        model: Computes.
        run: Runs a pass when it is its turn.
        prompts: The prompts, none empty.
        continuations: The continuations, none empty; each follows every prompt.
        adapter: Internal name of an adapter; ``None`` is the base model.
        read: Fills the empty caches of sequences with the keys and values of their tokens.

    Returns:
        For each prompt and each continuation the natural log probabilities of its tokens.
    """
    begun = [
        {
            model.needs_long_rope(length): model.new_cache(length)
            for length in (len(prompt) + len(continuation) for continuation in continuations)
        }
        for prompt in prompts
    ]
    read(
        [
            (cache, prompt[:-1])
            for prompt, caches in zip(prompts, begun, strict=True)
            for cache in caches.values()
        ]
    )
    unscored: list[_Unscored] = []
    for prompt, caches in zip(prompts, begun, strict=True):
        for continuation in continuations:
            length = len(prompt) + len(continuation)
            prefix = caches[model.needs_long_rope(length)] if len(prompt) > 1 else None
            cache = model.new_cache(length, prefix=prefix)
            # the last token of the prompt predicts the first of the continuation
            tokens = [prompt[-1], *continuation[:-1]]
            unscored.append(_Unscored(cache, tokens, list(continuation)))
    while any(one.tokens for one in unscored):
        run(lambda: _score_some(model, unscored, adapter=adapter))
    scores = iter([one.scores for one in unscored])
    return [[next(scores) for _ in continuations] for _ in prompts]


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


def passes_of_prompts(prompts: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Divide prompts into groups whose keys and values are held at once.

    The first stands alone: what it begins with is then known for the others.
    """
    groups: list[list[Sequence[int]]] = []
    room = 0
    for number, prompt in enumerate(prompts):
        if number < 2 or len(prompt) > room:
            groups.append([])
            room = PASS_TOKENS
        groups[-1].append(prompt)
        room -= len(prompt)
    return groups


def next_parts(
    texts: Sequence[tuple[SequenceCache, Sequence[int]]], *, adapter: str | None
) -> list[PackedSpan]:
    """Take as many unread tokens of texts as one pass takes; none when all are read."""
    room = PASS_TOKENS
    spans: list[PackedSpan] = []
    for cache, ids in texts:
        part = ids[cache.length : cache.length + room]
        if part and (not spans or cache.long_rope == spans[0].cache.long_rope):
            spans.append(PackedSpan(cache=cache, token_ids=part, adapter=adapter))
            room -= len(part)
    return spans


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
