"""The settings of a run that fine-tunes an embedding."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["EmbeddingFinetuneConfig"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingFinetuneConfig:
    """How an embedding is fine-tuned.

    Attributes:
        lora_rank: Rank of the adapter's matrices.
        lora_alpha: The adapter's output is scaled by ``lora_alpha / lora_rank``; ``None`` is
            twice the rank.
        lora_dropout: Share of the adapter's inputs set to zero while training, in [0, 1).
        learning_rate: Peak learning rate of AdamW. Models of thousands of millions of parameters
            take a tenth of the default.
        num_epochs: Passes over the training rows.
        max_steps: Optimiser steps at which to end, whatever ``num_epochs`` says.
        batch_size: Questions in one step; each is to be told from the passages of all others.
        tokens_at_once: Tokens in one forward pass, which bounds memory whatever the batch size.
        num_negatives: Mined hard negatives of each question.
        mined_ranks: Hard negatives are drawn from so many best candidates of each source.
        near_positive: A candidate that is at least so far on the way from an ordinary passage (0)
            to a copy of a gold one (1) may say the same, and is no negative; in (0, 1].
        scale: What cosines are multiplied by in the loss, the inverse of its temperature.
        warmup_ratio: Share of the steps in which the learning rate rises from zero, in [0, 1).
        weight_decay: AdamW's weight decay.
        max_grad_norm: Length to which longer gradients are cut.
        validation_share: Share of the questions that is held out, by source document, if no
            validation questions are given, in [0, 1).
        save_steps: Optimiser steps between two checkpoints, of which the last two are kept.
        seed: Seed of the split, the negatives, the adapter's first weights and the order of rows.

    Raises:
        ValueError: A setting is outside its range.
    """

    lora_rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    learning_rate: float = 1e-3
    num_epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    tokens_at_once: int = 4096
    num_negatives: int = 1
    mined_ranks: int = 30
    near_positive: float = 0.95
    scale: float = 20.0
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    validation_share: float = 0.15
    save_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "lora_rank": 1,
            "max_steps": 1,
            "batch_size": 2,
            "tokens_at_once": 1,
            "num_negatives": 0,
            "mined_ranks": 1,
            "save_steps": 1,
            "seed": 0,
        }
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            if item.name in least:
                if value < least[item.name]:
                    raise ValueError(
                        f"{item.name} is {value}; it must be at least {least[item.name]}."
                    )
            elif item.name in ("lora_dropout", "warmup_ratio", "validation_share"):
                if not 0 <= value < 1:
                    raise ValueError(f"{item.name} is {value}; it must be at least 0 and below 1.")
            elif item.name == "weight_decay":
                if value < 0:
                    raise ValueError(f"weight_decay is {value}; it must not be negative.")
            elif not value > 0:
                raise ValueError(f"{item.name} is {value}; it must be above 0.")
        if self.near_positive > 1:
            raise ValueError(f"near_positive is {self.near_positive}; it must be at most 1.")

    @property
    def alpha(self) -> float:
        """The adapter's ``lora_alpha``."""
        return 2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
