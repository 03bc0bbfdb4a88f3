"""The one place that drives sentence-transformers' trainer: rows in, an adapter and its curve out.

This module imports torch, PEFT and sentence-transformers; it is imported when training begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from transformers import PrinterCallback, ProgressCallback, set_seed

from phi3_industry.errors import EngineError
from phi3_industry.finetuning.curve import LossCurve
from phi3_industry.finetuning.embedding_config import EmbeddingFinetuneConfig
from phi3_industry.finetuning.embedding_pairs import Pair
from phi3_industry.finetuning.new_adapter import save_adapter, take_back
from phi3_industry.finetuning.progress import CURVE_NAME, Watcher

__all__ = ["Encoder", "TrainedEmbedding", "train_embedding"]

_UNUSED = "pooler"
"""BERT's head for another task: nothing of it reaches a vector, so it would stay untrained."""


class Encoder(Protocol):
    """A model to train, as the embeddings' ``encoder()`` gives it."""

    @property
    def model(self) -> Any:
        """The sentence-transformers model."""

    @property
    def body(self) -> Any:
        """The part that gets LoRA layers."""

    @property
    def targets(self) -> list[str]:
        """Names of its linear layers."""

    @property
    def task_type(self) -> str:
        """What PEFT calls the kind of model."""

    @property
    def bfloat16(self) -> bool:
        """Whether it may compute in bfloat16."""

    @property
    def base(self) -> Any:
        """What the manifest says of the model."""

    @property
    def reading(self) -> dict[str, str]:
        """How a text becomes a vector: ``query_prompt``, ``text_prompt`` and so on."""

    @property
    def reading_fingerprint(self) -> str:
        """Fingerprint of ``reading``."""

    @property
    def method(self) -> str:
        """The method that the adapter's manifest names."""


@dataclass(frozen=True, kw_only=True)
class TrainedEmbedding:
    """What training yielded.

    Attributes:
        model: The PEFT model.
        curve: The loss curve.
        steps: Optimiser steps done.
        seconds: Seconds of training in this process.
        trained_parameters: Numbers that were trained.
    """

    model: Any
    curve: LossCurve
    steps: int
    seconds: float
    trained_parameters: int


def train_embedding(
    encoder: Encoder,
    pairs: Sequence[Pair],
    config: EmbeddingFinetuneConfig,
    *,
    run_folder: Path,
    resume_from: Path | None,
    say: Callable[[str], None],
    show_progress: bool,
) -> TrainedEmbedding:
    """Train an adapter by telling the passage of each question from all others of its step.

    Args:
        encoder: The model, which nothing else uses.
        pairs: The rows, each with the same number of negatives.
        config: The settings.
        run_folder: Where checkpoints and the growing curve are kept.
        resume_from: The checkpoint to go on from.
        say: Takes lines for the user.
        show_progress: Whether to show a progress bar.

    Returns:
        The trained adapter.

    Raises:
        EngineError: The loss was lost.
    """
    set_seed(config.seed)  # the adapter's first weights are drawn here
    model = get_peft_model(
        encoder.body,
        LoraConfig(
            task_type=encoder.task_type,
            r=config.lora_rank,
            lora_alpha=config.alpha,
            lora_dropout=config.lora_dropout,
            target_modules=encoder.targets,
            exclude_modules=rf"{_UNUSED}\..*" if hasattr(encoder.body, _UNUSED) else None,
            revision=encoder.base.revision,
        ),
    )
    # PEFT writes where the base was loaded from; an adapter should name it and hold no path
    model.peft_config["default"].base_model_name_or_path = encoder.base.name
    curve = LossCurve() if resume_from is None else LossCurve.read_json(resume_from / CURVE_NAME)
    watcher = Watcher(curve, run_folder, say=say, show_progress=show_progress, leads=True)
    trainer = _AdapterTrainer(
        adapter=model,
        model=encoder.model,
        args=_arguments(encoder, config, run_folder, width=len(pairs[0].negatives)),
        train_dataset=_dataset(pairs),
        loss=CachedMultipleNegativesRankingLoss(
            encoder.model,
            scale=config.scale,
            mini_batch_size=config.batch_size,
            mini_batch_num_tokens=config.tokens_at_once,
        ),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    finally:
        watcher.close()
    if watcher.failed_at is not None:
        raise EngineError(
            f"Training stopped at step {watcher.failed_at}: the loss rose and stayed up, or is no "
            f"number any more. Lower learning_rate, now {config.learning_rate:g}."
        )
    return TrainedEmbedding(
        model=model,
        curve=curve,
        steps=trainer.state.global_step,
        seconds=time.monotonic() - started,
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _dataset(pairs: Sequence[Pair]) -> Dataset:
    columns = {
        "anchor": [pair.question for pair in pairs],
        "positive": [pair.positive for pair in pairs],
    }
    for place in range(len(pairs[0].negatives)):
        columns[f"negative_{place}"] = [pair.negatives[place] for pair in pairs]
    return Dataset.from_dict(columns)


def _arguments(
    encoder: Encoder, config: EmbeddingFinetuneConfig, run_folder: Path, *, width: int
) -> SentenceTransformerTrainingArguments:
    passages = ["positive", *(f"negative_{place}" for place in range(width))]
    on_cpu = encoder.model.device.type == "cpu"
    query_prompt, text_prompt = encoder.reading["query_prompt"], encoder.reading["text_prompt"]
    return SentenceTransformerTrainingArguments(
        output_dir=str(run_folder),
        prompts={"anchor": query_prompt, **dict.fromkeys(passages, text_prompt)},
        batch_sampler=BatchSamplers.NO_DUPLICATES,  # a passage is never its own negative
        seed=config.seed,
        data_seed=config.seed,
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of all steps
        lr_scheduler_type="linear",
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,  # else a loss that is no number would be logged as a number
        bf16=encoder.bfloat16,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _AdapterTrainer(SentenceTransformerTrainer):  # type: ignore[misc]  # no type information
    """The trainer with checkpoints that hold the adapter alone."""

    def __init__(self, *, adapter: Any, **settings: Any) -> None:
        self._adapter = adapter
        super().__init__(**settings)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        folder = Path(output_dir or self.args.output_dir)
        save_adapter(self._adapter, folder, initial=folder)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        take_back(self._adapter, Path(checkpoint_path))

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none: it would ask the hub about the model."""
