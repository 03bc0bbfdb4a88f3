"""Keys, values and attention of sequences that share a pass of the model without padding.

The tokens of all sequences lie behind each other in one row. What works token by token (nearly
all of the model) sees one large matrix; attention alone looks at each sequence by itself. So no
token is computed for padding, no mask is needed for it, a sequence joins or leaves without any
copying, and its result does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["PackedSpan", "SequenceCache", "attend_packed", "use_packed_attention"]

_ATTENTION = "phi3_industry_packed"

_SPARE_TOKENS = 64


class SequenceCache:
    """Keys and values of one sequence in every layer.

    There is room ahead, into which new tokens are written; transformers' own cache copies all it
    has at each token. What a pass writes counts only after :meth:`commit`, so that a pass that
    fails, or a draft that is refused, leaves nothing behind.

    Args:
        layers: Number of layers of the model.
        long_rope: Whether the keys are turned with the long factors of a longrope model.
        prefix: A sequence that this one continues; it is read and must not change meanwhile.

    Attributes:
        length: Tokens that are held, those of the prefix included.
    """

    def __init__(
        self, layers: int, *, long_rope: bool = False, prefix: SequenceCache | None = None
    ) -> None:
        self.long_rope = long_rope
        self.length: int = prefix.length if prefix else 0
        self._layers = layers
        self._prefix = prefix
        self._room: torch.Tensor | None = None  # (layers, 2, kv_heads, tokens, head_dim)

    @property
    def own_length(self) -> int:
        """Tokens that are held here and not in the prefix."""
        return self.length - (self._prefix.length if self._prefix else 0)

    def extend(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the keys and values of new tokens behind those that are held.

        Args:
            layer: Number of the layer.
            keys: ``(1, kv_heads, new_tokens, head_dim)``.
            values: As ``keys``.

        Returns:
            Keys and values of all tokens, ``(1, kv_heads, length + new_tokens, head_dim)``.
        """
        import torch

        first = self.own_length
        last = first + keys.shape[2]
        own = self._with_room(last, like=keys)[layer, :, None, :, :last]
        own[0, :, :, first:] = keys
        own[1, :, :, first:] = values
        if self._prefix is None:
            return own[0], own[1]
        before = self._prefix.read(0, self._prefix.length)[layer, :, None]
        return torch.cat([before[0], own[0]], dim=2), torch.cat([before[1], own[1]], dim=2)

    def commit(self, tokens: int) -> None:
        """Keep the first of the tokens that the last pass wrote."""
        self.length += tokens

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Give the keys and values of some tokens of a sequence without prefix.

        Returns:
            A view, ``(layers, 2, kv_heads, stop - start, head_dim)``.
        """
        assert self._room is not None, "nothing was written yet"  # noqa: S101 - for the types
        return self._room[:, :, :, start:stop]

    def append(self, block: torch.Tensor, *, room: int = 0) -> None:
        """Take over keys and values that were read elsewhere, as they are.

        Args:
            block: ``(layers, 2, kv_heads, tokens, head_dim)``.
            room: Tokens that will be held in the end, if that is known.
        """
        first = self.own_length
        last = first + block.shape[3]
        self._with_room(max(last, room), like=block)[:, :, :, first:last] = block
        self.length += block.shape[3]

    def _with_room(self, tokens: int, *, like: torch.Tensor) -> torch.Tensor:
        if self._room is None or self._room.shape[3] < tokens:
            capacity = tokens + max(_SPARE_TOKENS, tokens // 4)
            heads, dim = like.shape[-3], like.shape[-1]
            room = like.new_empty((self._layers, 2, heads, capacity, dim))
            if self._room is not None:
                room[:, :, :, : self.own_length] = self._room[:, :, :, : self.own_length]
            self._room = room
        return self._room


@dataclass(kw_only=True)
class PackedSpan:
    """The tokens of one sequence in a pass.

    Attributes:
        cache: What the sequence has computed before; the tokens continue it.
        token_ids: The tokens, not empty.
        adapter: Internal name of their adapter; ``None`` is the base model.
        keep: How many of the last tokens are of interest to the caller.
        mask: Which keys each token may see, ``(1, 1, tokens, keys)``; ``None`` where the causal
            order says it all.
        first_key: The first key that any token may see.
    """

    cache: SequenceCache
    token_ids: Sequence[int]
    adapter: str | None = None
    keep: int = 0
    mask: torch.Tensor | None = None
    first_key: int = 0

    def look_back(self, window: int | None, *, device: str) -> None:
        """Set what the tokens may see.

        Args:
            window: Tokens that each token sees, itself included; ``None`` sees all before it.
            device: Where the mask is to be.
        """
        import torch

        new, past = len(self.token_ids), self.cache.length
        total = past + new
        self.first_key = 0 if window is None else max(0, past + 1 - window)
        self.mask = None
        if new == 1 or (past == 0 and (window is None or total <= window)):
            return
        queries = torch.arange(past, total, device=device)[:, None]
        keys = torch.arange(self.first_key, total, device=device)[None, :]
        mask = keys <= queries
        if window is not None:
            mask &= keys > queries - window
        self.mask = mask[None, None]


def use_packed_attention(model: Any) -> None:
    """Let a model of transformers attend to packed spans where it is given any."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_ATTENTION, attend_packed)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    model.set_attn_implementation(_ATTENTION)


def attend_packed(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_spans: Sequence[PackedSpan] | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence of a packed row; an attention function of transformers.

    A call without spans comes from someone else who uses the model, and is plain attention.
    Source: "Attention Interface" in transformers' documentation.

    Args:
        module: The attention layer.
        query: ``(1, heads, tokens, head_dim)``.
        key: ``(1, kv_heads, tokens, head_dim)``.
        value: As ``key``.
        attention_mask: Not used for spans: each has its own.
        packed_spans: The sequences, in the order of their tokens. Tokens behind the last span
            belong to none and get zeros.
        scaling: Factor of the attention scores.
        **options: For plain attention.

    Returns:
        ``(1, tokens, heads, head_dim)``, and no attention weights.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packed_spans is None:
        output, _weights = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return output, None
    parts = []
    start = 0
    for span in packed_spans:
        stop = start + len(span.token_ids)
        keys, values = span.cache.extend(
            module.layer_idx, key[:, :, start:stop], value[:, :, start:stop]
        )
        part, _weights = sdpa_attention_forward(
            module,
            query[:, :, start:stop],
            keys[:, :, span.first_key :],
            values[:, :, span.first_key :],
            span.mask,
            scaling=scaling,
        )
        parts.append(part)
        start = stop
    if start < query.shape[2]:
        parts.append(torch.zeros_like(query[:, :, start:].transpose(1, 2)))
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), None
