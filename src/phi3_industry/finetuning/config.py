"""The settings of a fine-tuning run, and what they are where a model's size should decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

__all__ = ["FinetuneConfig", "Method", "Recipe", "Scheduler", "recipe_for"]

Method = Literal["lora", "qlora", "rslora", "dora", "pissa"]
"""How an adapter is made.

- ``"lora"``: on the 16- or 32-bit base.
- ``"qlora"``: on the base in 4-bit NormalFloat with double quantisation (arXiv 2305.14314).
- ``"rslora"``: LoRA scaled by the square root of its rank, for high ranks (arXiv 2312.03732).
- ``"dora"``: LoRA with a trained length for each row of a layer (arXiv 2402.09353); it serves one
  adapter a batch.
- ``"pissa"``: LoRA that begins with the base's principal directions (arXiv 2404.02948); it is
  saved as an ordinary adapter of twice the rank.
"""

Scheduler = Literal["linear", "cosine", "constant"]
"""How the learning rate goes on after the warm-up: down to zero, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings that depend on the size of the model.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        num_epochs: Passes over the training rows.
        batch_size: Rows in one forward pass.
        gradient_accumulation_steps: Forward passes in one optimiser step.
        gradient_checkpointing: Whether activations are computed twice to save memory.
        lora_rank: Rank of the adapter's matrices.
        lora_alpha: The adapter's output is scaled by ``lora_alpha / lora_rank``.
    """

    learning_rate: float
    num_epochs: float
    batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    lora_rank: int
    lora_alpha: float


_SMALL_MODEL_PARAMETERS = 100_000_000

# Source: benchmarks/finetune_settings.py on an earlier embedded model; the table stands in
# docs/benchmarks.md.
_SMALL_MODEL = Recipe(
    learning_rate=2e-3,
    num_epochs=3.0,
    batch_size=4,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    lora_rank=32,
    lora_alpha=64,
)

# Source: the usual LoRA settings for models of 3 to 14 thousand million parameters (QLoRA,
# arXiv 2305.14314, table 9: 2e-4 for 7B and 13B).
_PHI3 = Recipe(
    learning_rate=2e-4,
    num_epochs=2.0,
    batch_size=2,
    gradient_accumulation_steps=8,
    gradient_checkpointing=True,
    lora_rank=16,
    lora_alpha=32,
)


def recipe_for(num_parameters: int) -> Recipe:
    """Give the settings for a model of some size.

    Args:
        num_parameters: Parameters of the base model.

    Returns:
        One recipe for small models such as the embedded one (below 100 million parameters),
        which need a higher learning rate and fit into memory whole, and one for Phi-3's sizes.
    """
    return _SMALL_MODEL if num_parameters < _SMALL_MODEL_PARAMETERS else _PHI3


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of one fine-tuning run. ``None`` leaves a setting to the model's size.

    Attributes:
        method: See :data:`Method`.
        lora_rank: Rank of the adapter's matrices, at least 1; ``None`` takes
            :func:`recipe_for`'s.
        lora_alpha: The adapter's output is scaled by ``lora_alpha / lora_rank``, with
            ``"rslora"`` by ``lora_alpha / sqrt(lora_rank)``; ``None`` scales by 2.
        lora_dropout: Share of the adapter's inputs set to zero while training, in [0, 1).
        target_modules: Names of the linear layers that get an adapter; ``None`` is every linear
            layer but the language model's head.
        learning_rate: Peak learning rate of AdamW; ``None`` takes :func:`recipe_for`'s.
        num_epochs: Passes over the training rows; ``None`` takes :func:`recipe_for`'s.
        max_steps: Optimiser steps at which to end, whatever ``num_epochs`` says.
        batch_size: Rows in one forward pass; ``None`` takes :func:`recipe_for`'s.
        gradient_accumulation_steps: Forward passes in one optimiser step; ``None`` takes
            :func:`recipe_for`'s.
        warmup_ratio: Share of the steps in which the learning rate rises from zero, in [0, 1).
        lr_scheduler: How the learning rate goes on after that.
        weight_decay: AdamW's weight decay.
        max_grad_norm: Length to which longer gradients are cut.
        seed: Seed of the adapter's first weights, of the order of rows and of the dropout.
        max_length: The most tokens of a row; ``None`` is the model's context window. A longer
            row is refused, never cut.
        logging_steps: Optimiser steps between two points of the loss curve.
        gradient_checkpointing: Whether to compute activations twice to save memory; ``None``
            takes :func:`recipe_for`'s.
        packing: Whether several rows share a forward pass without padding, each blind to the
            others. A pass holds the same rows as with padding.
        group_by_length: Whether rows of like length share a forward pass; packing has no use
            for it.
        save_steps: Optimiser steps between two checkpoints, of which the last two are kept;
            ``None`` is a twentieth of the run.
        early_stopping_patience: Checkpoints without a lower loss on the held-out rows at which
            to stop; the best checkpoint is the adapter then. ``None`` trains to the end.
        report_to: Trackers of transformers to report to, such as ``["tensorboard"]``.
        check_memory: Whether to refuse a run whose estimate is above the free memory.

    Raises:
        ValueError: A setting is outside its range.
    """

    method: Method = "lora"
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    target_modules: Sequence[str] | None = None
    learning_rate: float | None = None
    num_epochs: float | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    warmup_ratio: float = 0.05
    lr_scheduler: Scheduler = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    max_length: int | None = None
    logging_steps: int = 1
    gradient_checkpointing: bool | None = None
    packing: bool = False
    group_by_length: bool = False
    save_steps: int | None = None
    early_stopping_patience: int | None = None
    report_to: Sequence[str] = ()
    check_memory: bool = True

    def __post_init__(self) -> None:
        _check_choice("method", self.method, get_args(Method))
        _check_choice("lr_scheduler", self.lr_scheduler, get_args(Scheduler))
        for name in (
            "lora_rank",
            "max_steps",
            "batch_size",
            "gradient_accumulation_steps",
            "max_length",
            "logging_steps",
            "save_steps",
            "early_stopping_patience",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        for name in ("lora_alpha", "learning_rate", "num_epochs", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0.")
        for name in ("lora_dropout", "warmup_ratio"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 0 and below 1.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must not be negative.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative.")
        for name in ("target_modules", "report_to"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} is the text {value!r}; it must be a list of names.")
        if self.packing and self.group_by_length:
            raise ValueError(
                "Both packing and group_by_length are set; packing leaves nothing to pad, so drop "
                "group_by_length."
            )
        if self.target_modules is not None and not self.target_modules:
            raise ValueError("target_modules is empty; name a layer, or pass None for all of them.")

    def recipe(self, num_parameters: int) -> Recipe:
        """Give what was set, and for what was left open what fits the model's size.

        Args:
            num_parameters: Parameters of the base model.

        Returns:
            The recipe to train by.
        """
        given: dict[str, Any] = {
            item.name: getattr(self, item.name)
            for item in fields(Recipe)
            if getattr(self, item.name) is not None
        }
        recipe = replace(recipe_for(num_parameters), **given)
        if self.lora_alpha is None:
            rank = recipe.lora_rank
            recipe = replace(
                recipe, lora_alpha=2 * (rank**0.5 if self.method == "rslora" else rank)
            )
        return recipe

    @property
    def quantization(self) -> Literal["nf4"] | None:
        """How the base is stored while it is trained on."""
        return "nf4" if self.method == "qlora" else None

    def identity(self) -> dict[str, Any]:
        """Give the settings that decide what is learned, as JSON values.

        An interrupted run goes on under the same ones alone.
        """
        settings = asdict(self)
        for name in ("report_to", "check_memory", "logging_steps"):
            del settings[name]
        if self.target_modules is not None:
            settings["target_modules"] = sorted(self.target_modules)
        return settings


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name} is {value!r}; it must be one of {choices}.")
