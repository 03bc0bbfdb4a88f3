"""Whether memory and disk hold a run, estimated before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_industry.errors import ConfigurationError
from phi3_industry.finetuning.config import Recipe
from phi3_industry.models.memory import MemoryEstimate, available_memory

__all__ = ["TrainingMemory", "check_disk", "check_memory", "estimate_training_memory"]

_GIB = 2**30
_MIB = 2**20
_FLOAT32 = 4
_ADAM_STATES = 2
_LOGS_BYTES = 20 * _MIB
_LAYERS_AT_A_TIME = 2
_CHECKPOINTS = 3  # two are kept while the next one is written
_UNITS: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Estimate of what training takes of one process, in bytes.

    Attributes:
        weights: The base, as it is stored, or the process's share of it.
        adapter: The adapter's weights, or the share of them.
        gradients: Their gradients.
        optimizer: The two moments of AdamW.
        activations: What the forward pass of one batch keeps for the backward pass.
        gathered: The layers that are whole at a time where the base is shared out.
        loading: The whole base, which each process holds until it is shared out.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int = 0
    loading: int = 0

    @property
    def to_come(self) -> int:
        """Bytes that are taken after the base is loaded."""
        own = self.adapter + self.gradients + self.optimizer + self.activations
        return own + self.gathered

    @property
    def peak(self) -> int:
        """The most bytes that are taken at a time, while loading or while training."""
        return max(self.loading, self.weights + self.to_come)

    def __str__(self) -> str:
        parts = {
            "base": self.weights,
            "adapter": self.adapter,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "activations": self.activations,
        }
        if self.gathered:
            parts |= {"layers gathered": self.gathered}
        listed = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        whole = _size(self.weights + self.to_come)
        if self.loading:
            whole += f" in each process, and {_size(self.loading)} while it loads"
        return f"memory, estimated: {whole} ({listed})"


def estimate_training_memory(
    layout: Mapping[str, Any],
    recipe: Recipe,
    *,
    base: MemoryEstimate,
    trained_parameters: int,
    longest_row: int,
    dtype: str,
    shares: int = 1,
) -> TrainingMemory:
    """Estimate what training takes of one process.

    A layer keeps, for each token, the inputs of its norms, projections and activation function,
    with an adapter's own beside; counted are 8 vectors of the hidden and 5 of the inner size. With
    gradient checkpointing each layer keeps its input and one layer at a time the rest.

    Where the base is shared out (FSDP2), a process holds its share of everything but the
    activations. Two layers are whole at a time, the one that computes and the one that is fetched
    meanwhile, and the output head stays whole from the forward to the backward pass.

    Args:
        layout: The base model's configuration.
        recipe: The settings of one process.
        base: What the base model takes.
        trained_parameters: Parameters of the adapter.
        longest_row: Tokens of the longest row.
        dtype: The type that the base computes in.
        shares: Processes that the base is shared out among.
    """
    unit, tokens = _UNITS[dtype], recipe.batch_size * longest_row
    hidden, inner = int(layout["hidden_size"]), int(layout["intermediate_size"])
    layers, vocabulary = int(layout["num_hidden_layers"]), int(layout["vocab_size"])
    inside = tokens * unit * (8 * hidden + 5 * inner)
    kept = layers * inside
    if recipe.gradient_checkpointing:
        kept = layers * tokens * unit * hidden + inside
    head = min(tokens, 1024) * vocabulary * _FLOAT32  # logits are computed in pieces
    own = trained_parameters * _FLOAT32 // shares
    shared = shares > 1
    return TrainingMemory(
        weights=base.weights_bytes // shares,
        adapter=own,
        gradients=own,
        optimizer=own * _ADAM_STATES,
        activations=kept + head,
        gathered=_gathered(base, layers) if shared else 0,
        loading=base.weights_bytes if shared else 0,
    )


def _gathered(base: MemoryEstimate, layers: int) -> int:
    parts = base.weights
    outside = parts["embeddings"] + parts["head"]
    # a tied head is the embedding
    whole = parts["head"] or parts["embeddings"]
    return _LAYERS_AT_A_TIME * (base.weights_bytes - outside) // layers + whole


def check_memory(estimate: TrainingMemory, recipe: Recipe, *, device: str) -> None:
    """Refuse a run that does not fit, the base being loaded already.

    Raises:
        ConfigurationError: It does not fit; the message has the numbers and what would help.
    """
    free = available_memory(device)
    if estimate.to_come <= free:
        return
    advice = [f"batch_size below {recipe.batch_size}"] if recipe.batch_size > 1 else []
    if not recipe.gradient_checkpointing:
        advice.append("gradient_checkpointing=True")
    advice += [f"lora_rank below {recipe.lora_rank}", "shorter rows"]
    raise ConfigurationError(
        f"Training needs about {_size(estimate.to_come)} beside the base model and "
        f"{_size(free)} are free on '{device}' ({estimate}). Try {', '.join(advice)}; or, if you "
        "know better, check_memory=False."
    )


def check_disk(path: Path, *, trained_parameters: int) -> None:
    """Refuse a run whose adapter, checkpoints and logs do not fit on the disk.

    Args:
        path: The adapter folder to write.
        trained_parameters: Parameters of the adapter.

    Raises:
        OSError: There is too little room.
    """
    weights = trained_parameters * _FLOAT32
    # two adapters, the new one beside the one that it replaces
    needed = 2 * weights + _CHECKPOINTS * weights * (1 + _ADAM_STATES) + _LOGS_BYTES
    existing = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"The adapter, its checkpoints and logs need up to {needed / 1e6:.0f} MB in "
            f"'{existing}' and {free / 1e6:.0f} MB are free. Free some room or choose another "
            "output_dir."
        )


def _size(count: int) -> str:
    if count >= _GIB:
        return f"{count / _GIB:.1f} GiB"
    return f"{max(count / _MIB, 0.1):.1f} MiB"
