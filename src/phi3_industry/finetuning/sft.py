"""The one place that drives TRL: tokenised rows in, a trained PEFT model and its curve out.

This module imports torch, PEFT and TRL; it is imported when training begins.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from phi3_industry.errors import EngineError
from phi3_industry.finetuning.curve import CSV_NAME, LossCurve, LossPoint
from phi3_industry.finetuning.examples import TokenizedRow
from phi3_industry.finetuning.preflight import PreflightReport
from phi3_industry.models.loading import LoadedModel

__all__ = ["TrainedAdapter", "train_adapter"]

_STEPS_BEFORE_ESTIMATE = 3
_SECONDS_BETWEEN_WRITES = 5.0


@dataclass(frozen=True, kw_only=True)
class TrainedAdapter:
    """What training yielded.

    Attributes:
        model: The PEFT model; its base is the one that was given.
        curve: The loss curve.
        seconds: Seconds of training, evaluation left out.
    """

    model: Any
    curve: LossCurve
    seconds: float


def train_adapter(
    loaded: LoadedModel,
    report: PreflightReport,
    *,
    log_dir: Path,
    say: Callable[[str], None],
    show_progress: bool,
) -> TrainedAdapter:
    """Train an adapter on a base model that nothing else uses.

    Args:
        loaded: The base model; it becomes part of the PEFT model.
        report: What to train on, checked.
        log_dir: A folder, in which the curve's CSV grows while training goes on.
        say: Takes lines for the user.
        show_progress: Whether to show a progress bar.

    Returns:
        The trained adapter.

    Raises:
        EngineError: The loss stopped being a number.
    """
    model = _with_new_adapter(loaded, report)
    curve = LossCurve()
    watcher = _Watcher(curve, log_dir / CSV_NAME, say=say, show_progress=show_progress)
    trainer = _QuietTrainer(
        model=model,
        args=_arguments(loaded, report, log_dir),
        train_dataset=_dataset(report.train),
        eval_dataset=_dataset(report.validation) if report.validation else None,
        processing_class=loaded.tokenizer,
        # given here, because TRL's own choice would rewrite the pad token of tokenizer and model
        data_collator=DataCollatorForLanguageModeling(pad_token_id=report.pad_token_id),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    _keep_float32(model)
    _keep_differentiable(model)
    if report.validation:
        curve.validation[0] = trainer.evaluate()["eval_loss"]
    started = time.monotonic()
    try:
        trainer.train()
    finally:
        watcher.close()
    seconds = time.monotonic() - started
    if watcher.failed_at is not None:
        raise _diverged(watcher.failed_at, curve, report)
    if report.validation:
        curve.validation[trainer.state.global_step] = trainer.evaluate()["eval_loss"]
    return TrainedAdapter(model=model, curve=curve, seconds=seconds)


def _with_new_adapter(loaded: LoadedModel, report: PreflightReport) -> Any:
    config, recipe = report.config, report.recipe
    set_seed(config.seed)  # the adapter's first weights are drawn here
    model = get_peft_model(
        loaded.model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=report.target_modules,
            revision=loaded.revision,
        ),
    )
    # PEFT writes where the base was loaded from; an adapter should name it and hold no path
    model.peft_config["default"].base_model_name_or_path = loaded.name
    return model


def _diverged(step: int, curve: LossCurve, report: PreflightReport) -> EngineError:
    before = ", ".join(f"{point.loss:.4g}" for point in curve.points[-5:])
    return EngineError(
        f"Training stopped at step {step}: the loss is no number any more (the last losses were "
        f"{before or 'none'}). Lower learning_rate, now {report.recipe.learning_rate:g}, or "
        f"max_grad_norm, now {report.config.max_grad_norm:g}."
    )


def _arguments(loaded: LoadedModel, report: PreflightReport, log_dir: Path) -> SFTConfig:
    config, recipe = report.config, report.recipe
    on_cpu = loaded.device == "cpu"
    known = {item.name for item in fields(SFTConfig)}
    # transformers has renamed it; releases before 5.23 know the old name alone
    checkpointing = "activation_checkpointing"
    if checkpointing not in known:
        checkpointing = "gradient_checkpointing"
    return SFTConfig(
        output_dir=str(log_dir),
        seed=config.seed,
        data_seed=config.seed,
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.num_epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        **{checkpointing: recipe.gradient_checkpointing},
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of all steps
        lr_scheduler_type=config.lr_scheduler,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,  # else a loss that is no number would be logged as a number
        bf16=loaded.dtype == "bfloat16",
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        max_length=None,  # rows are measured before and never cut
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        router_aux_loss_coef=0.0,  # as Phi-3.5-MoE's own; TRL cannot compute it for that model
    )


def _dataset(rows: Sequence[TokenizedRow]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
        }
    )


def _keep_float32(model: Any) -> None:
    """Train the adapter in float32.

    TRL turns the adapter of a quantised base into bfloat16, whose 8 bits of precision lose the
    small steps of the optimiser.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _keep_differentiable(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on the CPU.

    Its packed form is chosen at the first forward pass in evaluation mode, stays, and passes no
    gradient on: after one evaluation only the last layer would be trained. Seen in bitsandbytes
    0.50.2, ``Linear4bit.forward``; the workaround can go when its packed form has a gradient.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


class _QuietTrainer(SFTTrainer):  # type: ignore[misc]  # TRL ships no type information
    """TRL's trainer without its report to its makers: training reaches no network."""

    def _send_telemetry(self) -> None:
        """Send nothing."""


class _Watcher(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Keeps the curve, shows progress, and stops a run whose loss is no number."""

    def __init__(
        self,
        curve: LossCurve,
        csv_path: Path,
        *,
        say: Callable[[str], None],
        show_progress: bool,
    ) -> None:
        self.failed_at: int | None = None
        self._curve = curve
        self._csv_path = csv_path
        self._written = -math.inf
        self._say = say
        self._show_progress = show_progress
        self._bar: Any = None
        self._started = 0.0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Open the progress bar."""
        self._started = time.monotonic()
        if self._show_progress:
            self._bar = tqdm(total=state.max_steps, desc="Training", unit="step", file=sys.stderr)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Move the progress bar, and say once how long the run will take."""
        if self._bar is not None:
            self._bar.update(1)
        if state.global_step == min(_STEPS_BEFORE_ESTIMATE, state.max_steps):
            each = (time.monotonic() - self._started) / state.global_step
            self._say(
                f"{each:.2f} s a step: about {each * state.max_steps:.0f} s for "
                f"{state.max_steps} steps"
            )

    def on_log(
        self,
        _args: Any,
        state: Any,
        control: Any,
        logs: Any = None,
        **_: Any,
    ) -> None:
        """Take in one point of the curve."""
        if not logs or "loss" not in logs:
            return
        point = LossPoint(
            step=state.global_step,
            epoch=float(state.epoch or 0),
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            grad_norm=float(logs.get("grad_norm", 0.0)),
            seconds=time.monotonic() - self._started,
        )
        if not (math.isfinite(point.loss) and math.isfinite(point.grad_norm)):
            self.failed_at = self.failed_at or point.step
            control.should_training_stop = True
            return
        self._curve.points.append(point)
        if point.seconds - self._written > _SECONDS_BETWEEN_WRITES:
            self._curve.write_csv(self._csv_path)
            self._written = point.seconds
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{point.loss:.3f}")

    def close(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
