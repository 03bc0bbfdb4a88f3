"""How much memory a model takes, computed from its configuration before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "ComputeDType",
    "MemoryEstimate",
    "Quantization",
    "available_memory",
    "estimate_memory",
]

ComputeDType = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["nf4", "int8"]

_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

# bitsandbytes stores 4-bit weights in blocks of 64 with one byte of scale each, and the scales of
# 256 blocks with one float32. Source: QLoRA, arXiv 2305.14314, section 3 (double quantisation).
_NF4_BLOCK = 64
_NF4_SCALE_BLOCK = 256
_NF4_TABLES = 4 * (16 + 256 + 1)  # the 16 levels, the levels of the scales, their offset


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Memory that a model takes on its device, in bytes.

    Attributes:
        parameters: Number of parameters, each counted once.
        weights: Bytes of the weights by part: ``"embeddings"``, ``"attention"``, ``"mlp"`` (or
            ``"experts"``), ``"norms"`` and ``"head"``.
        kv_bytes_per_token: Bytes of keys and values of one token in all layers.
        sliding_window: Tokens whose keys and values a layer keeps at the most; ``None`` keeps
            all.
    """

    parameters: int
    weights: Mapping[str, int]
    kv_bytes_per_token: int
    sliding_window: int | None

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(self.weights.values())

    def kv_bytes(self, tokens: int, *, sequences: int = 1) -> int:
        """Bytes of the KV cache of some sequences of equal length.

        Args:
            tokens: Tokens of each sequence, prompt and answer together.
            sequences: How many are computed at a time.
        """
        kept = tokens if self.sliding_window is None else min(tokens, self.sliding_window)
        return kept * sequences * self.kv_bytes_per_token

    def total_bytes(self, tokens: int, *, sequences: int = 1) -> int:
        """Bytes of the weights and of the KV cache; see :meth:`kv_bytes`."""
        return self.weights_bytes + self.kv_bytes(tokens, sequences=sequences)


def estimate_memory(
    config: Mapping[str, Any], *, dtype: ComputeDType, quantization: Quantization | None = None
) -> MemoryEstimate:
    """Compute what a ``phi3`` or ``phimoe`` model takes, from its configuration alone.

    Args:
        config: The configuration as ``config.json`` has it.
        dtype: The type of all weights that are not quantised, and of the KV cache.
        quantization: How the linear layers are stored. Embeddings, norms, the output head and
            the experts of ``phimoe`` are never quantised: bitsandbytes stores linear layers, and
            the experts are single tensors.

    Returns:
        The estimate; activations come on top and are small beside it.

    Raises:
        KeyError: The configuration lacks a size.
    """
    unit = _BYTES[dtype]
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    inner, vocabulary = int(config["intermediate_size"]), int(config["vocab_size"])
    moe = config.get("model_type") == "phimoe"
    kv_width = kv_heads * head_dim

    if moe:
        attention = [(heads * head_dim, hidden), (kv_width, hidden), (kv_width, hidden)]
    else:
        attention = [(heads * head_dim + 2 * kv_width, hidden)]
    attention.append((hidden, heads * head_dim))
    bias = sum(rows for rows, _ in attention) if config.get("attention_bias") else 0
    experts = int(config["num_local_experts"]) if moe else 0
    mlp = [] if moe else [(2 * inner, hidden), (hidden, inner)]
    expert_weights = experts * (3 * inner * hidden + hidden)  # the router is a row for each expert
    # phimoe normalises with a shift beside the scale
    norms = (2 * layers + 1) * hidden * (2 if moe else 1)
    tied = bool(config.get("tie_word_embeddings"))
    head = (0 if tied else vocabulary * hidden) + (vocabulary if config.get("lm_head_bias") else 0)

    def stored(shapes: list[tuple[int, int]]) -> int:
        return sum(_stored_bytes(*shape, unit=unit, quantization=quantization) for shape in shapes)

    weights = {
        "embeddings": vocabulary * hidden * unit,
        "attention": layers * (stored(attention) + bias * unit),
        "experts" if moe else "mlp": layers * (stored(mlp) + expert_weights * unit),
        "norms": norms * unit,
        "head": head * unit,
    }
    linear = sum(rows * columns for rows, columns in attention + mlp)
    window = config.get("sliding_window")
    return MemoryEstimate(
        parameters=vocabulary * hidden + layers * (linear + bias + expert_weights) + norms + head,
        weights=weights,
        kv_bytes_per_token=2 * layers * kv_width * unit,
        sliding_window=None if window is None else int(window),
    )


def available_memory(device: str) -> int:
    """Bytes that are free on a device: of a CUDA device, or of the machine or its container.

    Args:
        device: A torch device, such as ``"cpu"`` or ``"cuda:0"``.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]  # it ships no types

    free = int(psutil.virtual_memory().available)
    return min(free, _free_in_container(Path("/sys/fs/cgroup"), otherwise=free))


def _free_in_container(group: Path, *, otherwise: int) -> int:
    """Read what a container may still take; its pages of files can be given back."""
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = int(dict(line.split() for line in lines)["inactive_file"])
        return otherwise if limit == "max" else int(limit) - used + cached
    except (OSError, ValueError, KeyError):
        return otherwise


def _stored_bytes(rows: int, columns: int, *, unit: int, quantization: Quantization | None) -> int:
    count = rows * columns
    if quantization is None:
        return count * unit
    if quantization == "int8":
        return count + 4 * rows  # one float32 of scale for each row
    blocks = math.ceil(count / _NF4_BLOCK)
    return count // 2 + blocks + 4 * math.ceil(blocks / _NF4_SCALE_BLOCK) + _NF4_TABLES
