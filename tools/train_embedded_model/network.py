"""The forward pass of training: many questions about one context, each blind to the others.

A context is computed once and every question about it continues it as a branch of its own, so
that each answer is learned in the very form in which it is asked later: one question, right after
its passages. The parameters are those of ``Phi3ForCausalLM`` and so are the results; a test holds
both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from transformers import Phi3ForCausalLM

from .encoding import Encoded

__all__ = ["Batch", "Heads", "collate", "forward"]

_BRANCH_TOKENS = 128
"""Branches are attended to in groups of about this many tokens; more would be masked work."""


@dataclass(frozen=True)
class _Span:
    """Tokens that attend together: a context, or some branches of one.

    Attributes:
        start: First token.
        stop: Token after the last.
        context: First and last token (exclusive) of the context; ``None`` for the context itself.
        mask: What may be seen, ``(stop - start, keys)``: 0 or minus infinity.
    """

    start: int
    stop: int
    context: tuple[int, int] | None
    mask: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Conversations laid end to end, without padding.

    Attributes:
        ids: Token ids, ``(tokens,)``.
        positions: Position of each token in its own conversation and branch, ``(tokens,)``.
        spans: What attends to what.
        queries: Places whose next token is learned, ``(targets,)``.
        targets: Those next tokens, ``(targets,)``.
        weights: Their loss weights, ``(targets,)``.
        pointers: Place, its context, and the places that hold the next token, where it is copied.
        answers: First and last row (exclusive) of each answer among the targets, in the order of
            the items and their branches.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    spans: tuple[_Span, ...]
    queries: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    pointers: tuple[tuple[int, tuple[int, int], tuple[int, ...]], ...]
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Heads:
    """Queries and keys of some attention heads, ``(heads, tokens, head_dim)`` each."""

    queries: torch.Tensor
    keys: torch.Tensor


def collate(items: Sequence[Encoded], *, device: str = "cpu", dtype: torch.dtype) -> Batch:
    """Lay conversations end to end.

    Args:
        items: Encoded conversations.
        device: Where the tensors go.
        dtype: Type of the attention masks, that of the computation.
    """
    ids: list[int] = []
    positions: list[int] = []
    spans: list[_Span] = []
    queries: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    pointers: list[tuple[int, tuple[int, int], tuple[int, ...]]] = []
    answers: list[tuple[int, int]] = []
    for item in items:
        context = (len(ids), len(ids) + len(item.context))
        ids += item.context
        positions += range(len(item.context))
        causal = torch.full((len(item.context),) * 2, float("-inf"), dtype=dtype).triu(1)
        spans.append(_Span(*context, None, causal.to(device)))
        lengths: list[int] = []
        for number, branch in enumerate(item.branches):
            start = len(ids)
            ids += branch.ids
            positions += range(len(item.context), len(item.context) + len(branch.ids))
            learned = [place for place, weight in enumerate(branch.weights) if weight]
            queries += [start + place - 1 for place in learned]
            targets += [branch.ids[place] for place in learned]
            weights += [branch.weights[place] for place in learned]
            answers.append((len(targets) - len(branch.ids) + branch.answer_start, len(targets)))
            for place, held in branch.pointers:
                pointers.append((start + place - 1, context, tuple(context[0] + at for at in held)))
            lengths.append(len(branch.ids))
            last = number + 1 == len(item.branches)
            if last or sum(lengths) + len(item.branches[number + 1].ids) > _BRANCH_TOKENS:
                mask = _branch_mask(lengths, context[1] - context[0], dtype)
                spans.append(_Span(len(ids) - sum(lengths), len(ids), context, mask.to(device)))
                lengths = []

    def tensor(values: list[Any], kind: torch.dtype = torch.long) -> torch.Tensor:
        return torch.tensor(values, dtype=kind, device=device)

    return Batch(
        ids=tensor(ids),
        positions=tensor(positions),
        spans=tuple(spans),
        queries=tensor(queries),
        targets=tensor(targets),
        weights=tensor(weights, torch.float32),
        pointers=tuple(pointers),
        answers=tuple(answers),
    )


def _branch_mask(lengths: Sequence[int], context: int, dtype: torch.dtype) -> torch.Tensor:
    """All of the context, and of the branches only one's own past."""
    total = sum(lengths)
    mask = torch.full((total, context + total), float("-inf"), dtype=dtype)
    mask[:, :context] = 0
    start = 0
    for length in lengths:
        stop = start + length
        own = mask[start:stop, context + start : context + stop]
        own.copy_(torch.full((length, length), float("-inf"), dtype=dtype).triu(1))
        start = stop
    return mask


class _SpanAttention(torch.autograd.Function):
    """Softmax attention within spans; matrix products on short spans beat one masked whole."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: tuple[_Span, ...]
    ) -> torch.Tensor:
        out = torch.empty_like(q)
        saved = []
        for span in spans:
            keys, values = _seen(k, span), _seen(v, span)
            scores = torch.baddbmm(
                span.mask.expand(q.shape[0], -1, -1),
                q[:, span.start : span.stop],
                keys.transpose(1, 2),
            )
            shares = torch.softmax(scores, dim=-1)
            out[:, span.start : span.stop] = torch.bmm(shares, values)
            saved.append(shares)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.spans = spans
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (d_out,) = gradients
        q, k, v, *saved = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for span, shares in zip(ctx.spans, saved, strict=True):
            own = slice(span.start, span.stop)
            d_own = d_out[:, own]
            d_values = torch.bmm(shares.transpose(1, 2), d_own)
            d_shares = torch.bmm(d_own, _seen(v, span).transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype)
            d_q[:, own] = torch.bmm(d_scores, _seen(k, span))
            d_keys = torch.bmm(d_scores.transpose(1, 2), q[:, own])
            for total, part in ((d_k, d_keys), (d_v, d_values)):
                if span.context is None:
                    total[:, own] += part
                else:
                    length = span.context[1] - span.context[0]
                    total[:, slice(*span.context)] += part[:, :length]
                    total[:, own] += part[:, length:]
        return d_q, d_k, d_v, None


def _seen(tensor: torch.Tensor, span: _Span) -> torch.Tensor:
    """Keys or values that a span may attend to."""
    own = tensor[:, span.start : span.stop]
    if span.context is None:
        return own
    return torch.cat((tensor[:, slice(*span.context)], own), dim=1)


def forward(
    model: Phi3ForCausalLM, batch: Batch, *, dtype: torch.dtype, layers_of_heads: int = 0
) -> tuple[torch.Tensor, list[Heads]]:
    """Compute the logits at the queries.

    Args:
        model: The model; one key head for each query head, default rotary embedding.
        batch: The conversations.
        dtype: Type of the matrix products; the residual stream stays in 32 bits.
        layers_of_heads: Number of last layers whose queries and keys are returned too.

    Returns:
        Logits ``(targets, vocab_size)`` in 32 bits, and the heads of the last layers.
    """
    config = model.config
    count, width = config.num_attention_heads, config.hidden_size
    size, tokens = width // count, len(batch.ids)
    cos, sin = _rotary(batch.positions, size, config.rope_parameters["rope_theta"], dtype)
    embedding = model.model.embed_tokens.weight
    stream = functional.embedding(batch.ids, embedding)
    heads: list[Heads] = []
    layers = model.model.layers
    for number, layer in enumerate(layers):
        normed = _norm(stream, layer.input_layernorm, dtype)
        qkv = functional.linear(normed, layer.self_attn.qkv_proj.weight.to(dtype))
        q, k, v = qkv.view(tokens, 3, count, size).permute(1, 2, 0, 3).contiguous()
        q, k = _rotate(q, cos, sin) * size**-0.5, _rotate(k, cos, sin)
        if number >= len(layers) - layers_of_heads:
            heads.append(Heads(q, k))
        attended: torch.Tensor = _SpanAttention.apply(q, k, v, batch.spans)  # type: ignore[no-untyped-call]
        joined = attended.transpose(0, 1).reshape(tokens, width)
        stream = stream + functional.linear(joined, layer.self_attn.o_proj.weight.to(dtype))
        normed = _norm(stream, layer.post_attention_layernorm, dtype)
        gate, up = functional.linear(normed, layer.mlp.gate_up_proj.weight.to(dtype)).chunk(2, -1)
        inner = functional.silu(gate) * up
        stream = stream + functional.linear(inner, layer.mlp.down_proj.weight.to(dtype))
    chosen = _norm(stream[batch.queries], model.model.norm, dtype)
    return functional.linear(chosen, embedding.to(dtype)).float(), heads


def _norm(stream: torch.Tensor, norm: Any, dtype: torch.dtype) -> torch.Tensor:
    return functional.rms_norm(stream, (stream.shape[-1],), norm.weight, norm.variance_epsilon).to(
        dtype
    )


def _rotary(
    positions: torch.Tensor, size: int, theta: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    steps = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size
    angles = positions[:, None] * theta**-steps
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin
