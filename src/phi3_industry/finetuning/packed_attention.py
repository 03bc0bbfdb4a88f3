"""Attention over training rows that share a pass of the model without padding.

Without flash attention transformers keeps such rows apart by a mask as wide and as high as all of
them together, and computes what the mask then hides. Here each row is attended to by itself, so
that the work is that of the rows alone.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["attend_rows", "use_row_attention"]

_ATTENTION = "phi3_industry_rows"


def use_row_attention(model: Any) -> None:
    """Let a model of transformers attend to packed rows one by one."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_ATTENTION, attend_rows)
    # made once in a pass, and needed where nothing says where the rows begin
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    model.set_attn_implementation(_ATTENTION)


def attend_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each row of a packed pass; an attention function of transformers.

    Source: "Attention Interface" in transformers' documentation.

    Args:
        module: The attention layer.
        query: ``(1, heads, tokens, head_dim)``; without ``cu_seq_lens_q`` any number of sequences.
        key: ``(1, kv_heads, tokens, head_dim)``.
        value: As ``key``.
        attention_mask: For a pass whose rows are not told; otherwise not used.
        cu_seq_lens_q: Where the rows begin, and the number of tokens, ``(rows + 1,)``; ``None``
            leaves it to the mask.
        sliding_window: Tokens that each token sees, itself included; ``None`` sees all before it.
        **options: For torch's attention.

    Returns:
        ``(1, tokens, heads, head_dim)``, and no attention weights.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        output, _weights = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return output, None
    bounds = cu_seq_lens_q.tolist()
    parts = []
    for start, stop in itertools.pairwise(bounds):
        row = [states[:, :, start:stop] for states in (query, key, value)]
        mask = _window_mask(stop - start, sliding_window, device=query.device)
        part, _weights = sdpa_attention_forward(module, *row, mask, **options)
        parts.append(part)
    return torch.cat(parts, dim=1), None


def _window_mask(tokens: int, window: int | None, *, device: torch.device) -> torch.Tensor | None:
    """Say what each token of a row may see; ``None`` where the causal order says it all."""
    import torch

    if window is None or tokens <= window:
        return None
    places = torch.arange(tokens, device=device)
    behind = places[:, None] - places[None, :]
    return ((behind >= 0) & (behind < window))[None, None]
