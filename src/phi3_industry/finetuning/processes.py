"""Training in several processes: who this one is, and how the rows of a step are shared.

``accelerate launch`` and ``torchrun`` say it in the environment. The rows of an optimiser step are
those of one process, divided, so that the loss curve does not depend on how many compute it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from phi3_industry.errors import ConfigurationError
from phi3_industry.finetuning.config import Recipe

__all__ = ["ALONE", "ThisProcess", "share_rows", "wait_for_the_others"]


@dataclass(frozen=True, kw_only=True)
class ThisProcess:
    """One of the processes that train together.

    Attributes:
        rank: Its number among all.
        local_rank: Its number among those of this machine.
        count: How many there are on all machines.
        sharded: Whether the model is to be shared out among them (FSDP).
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1
    sharded: bool = False

    @classmethod
    def from_environment(cls) -> ThisProcess:
        """Read what the launcher says; without one this process is alone.

        Raises:
            ConfigurationError: The model is to be shared out in a way that wastes memory.
        """
        process = cls(
            rank=int(os.environ.get("RANK", "0")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            count=int(os.environ.get("WORLD_SIZE", "1")),
            sharded=os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"),
        )
        if process.shares:
            _check_sharding()
        return process

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and reports."""
        return self.rank == 0

    @property
    def shares(self) -> bool:
        """Whether it holds a part of the base alone."""
        return self.sharded and self.count > 1

    def device(self, asked: str) -> str:
        """Give the device it computes on.

        Args:
            asked: A torch device, or ``"auto"``.
        """
        if self.count == 1:
            return asked
        import torch

        device = asked
        if asked in ("auto", "cuda") and torch.cuda.is_available():
            device = f"cuda:{self.local_rank}"
        return device


ALONE = ThisProcess()
"""The process that no launcher started beside others."""

_SHARDING = {"FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}


def _check_sharding() -> None:
    """Check that the model is shared out layer by layer, by the FSDP that takes frozen weights."""
    found = {name: os.environ.get(name, "not set") for name in _SHARDING}
    if found != _SHARDING:
        said = ", ".join(f"{name} is {value}" for name, value in found.items())
        raise ConfigurationError(
            f"FSDP is asked for, and {said}. Launch with: accelerate launch --use_fsdp "
            "--fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP; under torchrun set "
            + " ".join(f"{name}={value}" for name, value in _SHARDING.items())
            + "."
        )


def share_rows(recipe: Recipe, process: ThisProcess) -> Recipe:
    """Divide the rows of an optimiser step among the processes.

    Where the rows of an epoch do not fill its last step, accelerate fills it with rows from the
    epoch's beginning, so that each process has some; one process would take a shorter step.

    Args:
        recipe: The recipe for one process.
        process: One of the processes.

    Returns:
        The recipe for each of them.

    Raises:
        ConfigurationError: The rows cannot be divided evenly.
    """
    accumulation, batch = recipe.gradient_accumulation_steps, recipe.batch_size
    if accumulation % process.count == 0:
        return replace(recipe, gradient_accumulation_steps=accumulation // process.count)
    if batch % process.count == 0:
        return replace(recipe, batch_size=batch // process.count)
    raise ConfigurationError(
        f"An optimiser step has {batch} x {accumulation} rows (batch_size x "
        f"gradient_accumulation_steps), and {process.count} processes cannot share them evenly. "
        f"Make one of the two a multiple of {process.count}."
    )


def wait_for_the_others() -> None:
    """Wait until each process that trains along has come as far; alone there is none."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
