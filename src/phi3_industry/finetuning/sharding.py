"""A base model that is shared out among the processes that train (FSDP2), and its checkpoints.

What is trained is small and is gathered when it is written. So a checkpoint looks as that of a
single process, and any number of processes goes on from it, with or without sharing.

This module imports torch; it is imported when training begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from phi3_industry.finetuning.processes import ThisProcess

__all__ = [
    "allow_sharding_on_cpu",
    "gathered_optimizer",
    "gathered_weights",
    "load_optimizer",
    "shared_out",
]


def allow_sharding_on_cpu(process: ThisProcess, *, device: str) -> None:
    """Let accelerate share a model out on a CPU as it does on GPUs, which torch can.

    accelerate 1.15 heeds ``ACCELERATE_USE_FSDP`` only where it thinks that the processes are on
    GPUs (``AcceleratorState.__init__``), so it is told so until it has decided; call this between
    making the arguments and the trainer.
    """
    if not process.shares or device != "cpu":
        return
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState().distributed_type = DistributedType.MULTI_GPU


def gathered_weights(model: Any) -> dict[str, torch.Tensor]:
    """Gather the trained weights of a model; every process has to call it."""
    return {
        name: _whole(parameter.detach())
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def gathered_optimizer(optimizer: Any) -> dict[str, Any]:
    """Gather the state of an optimiser; every process has to call it."""
    state = optimizer.state_dict()
    return {**state, "state": {i: _each(_whole, own) for i, own in state["state"].items()}}


def load_optimizer(optimizer: Any, file: Path) -> None:
    """Give an optimiser over a model that is shared out the whole state that a file holds."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state["state"] = {
        number: _each(lambda value, like=parameters[number]: _like(value, like), own)
        for number, own in state["state"].items()
    }
    optimizer.load_state_dict(state)


def shared_out(weights: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Share whole weights out as those of a model are; as they are if the model is not."""
    like = next((p for p in model.parameters() if p.requires_grad), None)
    return {name: _like(weight, like) for name, weight in weights.items()}


def _each(change: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: change(value) if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """Share a tensor out as another one is; AdamW's count of steps, a single number, is not."""
    if not isinstance(like, DTensor) or not tensor.dim():
        return tensor
    # every process has the whole of it, so that none has to send anything
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
