"""The checkpoints of the Phi-3 family, as their authors published them.

Only facts that do not need a download: the size and shape from ``config.json``, the chat template
and the tokens that end an answer. A checkpoint that is not in this table works by its own
configuration. Source: the ``config.json``, ``generation_config.json`` and
``tokenizer_config.json`` of each repository named here, on the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from phi3_industry.models.catalog import Checkpoint, checkpoint_from_config
from phi3_industry.models.memory import MemoryEstimate, Quantization, estimate_memory

__all__ = [
    "KNOWN_CHECKPOINTS",
    "LORA_TARGETS",
    "KnownCheckpoint",
    "Template",
]

Template = Literal["phi3", "phi3-early", "phi3.5", "phi4", "phi4-mini"]
"""How a checkpoint writes a conversation.

``phi3`` puts each message between ``<|role|>`` and ``<|end|>`` on lines of their own; ``phi3.5``
leaves an empty system message out; ``phi3-early`` knows no system message and opens the
assistant's turn after every user message; ``phi4-mini`` is ``phi3`` without line breaks; ``phi4``
writes ``<|im_start|>role<|im_sep|>text<|im_end|>``.
"""

LORA_TARGETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "phi3": ("down_proj", "gate_up_proj", "o_proj", "qkv_proj"),
        # the experts are single tensors, which are neither quantised nor adapted
        "phimoe": ("k_proj", "o_proj", "q_proj", "v_proj"),
    }
)
"""The linear layers an adapter may target, by ``model_type``."""

_STOP_TOKENS: Mapping[Template, tuple[str, ...]] = {
    "phi3": ("<|end|>", "<|endoftext|>", "<|assistant|>"),
    "phi3-early": ("<|end|>", "<|endoftext|>", "<|assistant|>"),
    "phi3.5": ("<|end|>", "<|endoftext|>", "<|assistant|>"),
    "phi4": ("<|im_end|>", "<|endoftext|>"),
    "phi4-mini": ("<|end|>", "<|endoftext|>"),
}


@dataclass(frozen=True, kw_only=True)
class KnownCheckpoint:
    """One published checkpoint.

    Attributes:
        name: Its id on the hub.
        summary: What to know when choosing.
        config: What its ``config.json`` says of its shape; the factors of a longrope are left
            out.
        template: How it writes a conversation.
    """

    name: str
    summary: str
    config: Mapping[str, Any]
    template: Template

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """Tokens that end an answer."""
        return _STOP_TOKENS[self.template]

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Linear layers that an adapter may target."""
        return LORA_TARGETS[self.config["model_type"]]

    @property
    def checkpoint(self) -> Checkpoint:
        """What it can hold."""
        return checkpoint_from_config(self.name, self.config)

    def memory(self, quantization: Quantization | None = None) -> MemoryEstimate:
        """Memory it takes in bfloat16, its linear layers quantised or not."""
        return estimate_memory(self.config, dtype="bfloat16", quantization=quantization)


_MINI: Mapping[str, Any] = {
    "model_type": "phi3",
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "pad_token_id": 32000,
}
_MEDIUM: Mapping[str, Any] = {
    **_MINI,
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
}
_LONG: Mapping[str, Any] = {
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {"type": "longrope"},
}
_PHI4: Mapping[str, Any] = {
    **_MEDIUM,
    "vocab_size": 100352,
    "rope_theta": 250000.0,
    "max_position_embeddings": 16384,
    "original_max_position_embeddings": 16384,
    "sliding_window": None,
    "bos_token_id": 100257,
    "eos_token_id": 100265,
    "pad_token_id": 100349,
}
_PHI4_MINI: Mapping[str, Any] = {
    **_MINI,
    **_LONG,
    "vocab_size": 200064,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.75,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
    "bos_token_id": 199999,
    "eos_token_id": 199999,
    "pad_token_id": 199999,
}
_MOE: Mapping[str, Any] = {
    **_MINI,
    **_LONG,
    "model_type": "phimoe",
    "hidden_size": 4096,
    "intermediate_size": 6400,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
    "router_jitter_noise": 0.01,
    "input_jitter_noise": 0.01,
    "attention_bias": True,
    "lm_head_bias": True,
    "rope_scaling": {
        "type": "longrope",
        "short_mscale": 1.243163121016122,
        "long_mscale": 1.243163121016122,
        "original_max_position_embeddings": 4096,
    },
    "sliding_window": 131072,
}

_PUBLISHED = (
    KnownCheckpoint(
        name="microsoft/Phi-3-mini-4k-instruct",
        summary="3.8 B parameters",
        config=_MINI,
        template="phi3",
    ),
    KnownCheckpoint(
        name="microsoft/Phi-3-mini-128k-instruct",
        summary="3.8 B parameters, long context",
        config={**_MINI, **_LONG, "sliding_window": 262144},
        template="phi3",
    ),
    KnownCheckpoint(
        name="microsoft/Phi-3-medium-4k-instruct",
        summary="14 B parameters",
        config=_MEDIUM,
        template="phi3-early",
    ),
    KnownCheckpoint(
        name="microsoft/Phi-3-medium-128k-instruct",
        summary="14 B parameters, long context",
        config={**_MEDIUM, **_LONG, "sliding_window": 131072},
        template="phi3-early",
    ),
    KnownCheckpoint(
        name="microsoft/Phi-3.5-mini-instruct",
        summary="3.8 B parameters, long context, many languages",
        config={**_MINI, **_LONG, "sliding_window": 262144},
        template="phi3.5",
    ),
    KnownCheckpoint(
        name="microsoft/Phi-3.5-MoE-instruct",
        summary="16 experts, 42 B parameters of which 6.6 B compute, long context, many languages",
        config=_MOE,
        template="phi3.5",
    ),
    KnownCheckpoint(
        name="microsoft/phi-4",
        summary="14 B parameters",
        config=_PHI4,
        template="phi4",
    ),
    KnownCheckpoint(
        name="microsoft/Phi-4-mini-instruct",
        summary="3.8 B parameters, long context, many languages",
        config=_PHI4_MINI,
        template="phi4-mini",
    ),
)

KNOWN_CHECKPOINTS: Mapping[str, KnownCheckpoint] = MappingProxyType(
    {checkpoint.name: checkpoint for checkpoint in _PUBLISHED}
)
"""The checkpoints this library was written for, by their id on the hub."""
