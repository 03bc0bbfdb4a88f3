"""Split a LoRA on Phi-3's fused layers into one on separate layers, exactly.

Phi-3 multiplies queries, keys and values with one matrix, ``qkv_proj``, and the two halves of its
feed-forward with another, ``gate_up_proj``. Programs that keep them apart need an adapter for
each: ``A`` is shared, so each gets a copy; ``B`` has a row for each output, so each gets its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["split_fused_weights"]


def split_fused_weights(
    weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Split the weights of a LoRA on fused layers.

    Args:
        weights: ``{name: tensor}`` as in ``adapter_model.safetensors``; ``lora_A`` is
            ``(rank, in_features)`` and ``lora_B`` is ``(out_features, rank)``.
        config: The base model's configuration.

    Returns:
        The weights with ``q_proj``, ``k_proj``, ``v_proj``, ``gate_proj`` and ``up_proj`` in
        place of the fused names; layers that are not fused are unchanged.
    """
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    kv_rows = int(config.get("num_key_value_heads") or heads) * head_dim
    inner = int(config["intermediate_size"])
    rows_of = {
        "qkv_proj": {"q_proj": heads * head_dim, "k_proj": kv_rows, "v_proj": kv_rows},
        "gate_up_proj": {"gate_proj": inner, "up_proj": inner},
    }
    split: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        fused = next((part for part in name.split(".") if part in rows_of), None)
        if fused is None:
            split[name] = weight
            continue
        first = 0
        for part, rows in rows_of[fused].items():
            own = weight if ".lora_A." in name else weight[first : first + rows]
            split[name.replace(f".{fused}.", f".{part}.")] = own.clone()
            first += rows
    return split
