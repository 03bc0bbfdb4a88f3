"""Tell base models apart: by what their configuration computes, and by their weights."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["config_hash", "weights_fingerprint"]

_UNSTABLE_CONFIG_KEYS = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
"""Keys of a configuration that do not change what the model computes."""


def config_hash(config: Any) -> str:
    """Tell architectures apart: SHA-256 of what a configuration says of the computation.

    Args:
        config: The configuration, an object of transformers.

    Returns:
        Hexadecimal text.
    """
    layout = {
        key: value for key, value in config.to_dict().items() if key not in _UNSTABLE_CONFIG_KEYS
    }
    return hashlib.sha256(json.dumps(layout, sort_keys=True, default=str).encode()).hexdigest()


def weights_fingerprint(model: Any) -> str:
    """Tell base models apart by their weights, however they were loaded.

    Two checkpoints can share a configuration and still be different models. The normalisation
    weights and 64 rows of the embedding are hashed, rounded to bfloat16: quantisation touches
    neither, and every change in training touches both.

    Args:
        model: A causal language model of transformers.

    Returns:
        SHA-256 as hexadecimal text.
    """
    import torch

    digest = hashlib.sha256()
    embedding = model.get_input_embeddings().weight
    step = max(1, embedding.shape[0] // 64)
    sampled = [("embedding", embedding[::step])]
    norms = [(name, weight) for name, weight in model.named_parameters() if "norm" in name]
    for name, weight in sampled + sorted(norms, key=lambda item: item[0]):
        digest.update(name.encode())
        rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
