"""Muon for the matrices, AdamW for embeddings and norms, and an average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

__all__ = ["WeightAverage", "build_optimisers", "learning_rate_factor"]


def build_optimisers(
    model: torch.nn.Module, *, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Build the optimisers.

    Muon orthogonalises the update of each weight matrix.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inner else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate_factor(step: int, progress: float, *, warm_up: int, decay: float) -> float:
    """Scale the learning rate: linear warm-up, constant, linear decay over the last share.

    Args:
        step: Steps taken.
        progress: Share of the run that is over, 0 to 1.
        warm_up: Steps of warm-up.
        decay: Share of the run that decays.
    """
    rising = min(1.0, (step + 1) / warm_up)
    falling = 1.0 if progress < 1 - decay else max(0.02, (1 - progress) / decay)
    return rising * falling


class WeightAverage:
    """An exponential moving average of a model's parameters.

    Args:
        model: The model.
        decay: Share of the average kept at each step, once the run is long enough.
    """

    def __init__(self, model: torch.nn.Module, *, decay: float = 0.995) -> None:
        self._decay = decay
        self._steps = 0
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take in the current parameters."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 10))
        for name, parameter in model.named_parameters():
            self.values[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied_to(self, model: torch.nn.Module) -> Iterator[None]:
        """Give the model the averaged parameters, and its own ones back afterwards."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._copy(self.values, model)
        try:
            yield
        finally:
            self._copy(own, model)

    @staticmethod
    @torch.no_grad()
    def _copy(values: Mapping[str, torch.Tensor], model: torch.nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {"steps": self._steps, "values": self.values}

    def restore(self, state: dict[str, object]) -> None:
        """Take over what a checkpoint kept."""
        steps, values = state["steps"], state["values"]
        assert isinstance(steps, int)  # noqa: S101  # written by state()
        assert isinstance(values, dict)  # noqa: S101
        self._steps = steps
        for name, value in values.items():
            self.values[name].copy_(value)
