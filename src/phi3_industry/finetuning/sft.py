"""The one place that drives TRL: tokenised rows in, a trained PEFT model and its curve out.

This module imports torch, PEFT and TRL; it is imported when training begins.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from phi3_industry.errors import EngineError
from phi3_industry.finetuning.acceleration import Acceleration, choose_acceleration
from phi3_industry.finetuning.checkpoints import complete_checkpoints, step_of
from phi3_industry.finetuning.config import FinetuneConfig, Recipe
from phi3_industry.finetuning.curve import LossCurve
from phi3_industry.finetuning.examples import TokenizedRow
from phi3_industry.finetuning.new_adapter import (
    attach_new_adapter,
    has_finite_weights,
    save_adapter,
    take_back,
)
from phi3_industry.finetuning.packed_attention import use_row_attention
from phi3_industry.finetuning.preflight import PreflightReport
from phi3_industry.finetuning.processes import ThisProcess, share_rows
from phi3_industry.finetuning.progress import CURVE_NAME, SPIKE_STEPS, Watcher
from phi3_industry.finetuning.sharding import (
    allow_sharding_on_cpu,
    gathered_optimizer,
    gathered_weights,
    load_optimizer,
)
from phi3_industry.finetuning.slice_scores import BeforeAndAfter, score_slices
from phi3_industry.models.loading import LoadedModel

__all__ = ["TrainedAdapter", "failure", "train_adapter"]

_CHECKPOINTS_A_RUN = 20
_KEPT_CHECKPOINTS = 2
_INITIAL = "initial"


@dataclass(frozen=True, kw_only=True)
class TrainedAdapter:
    """What training yielded.

    Attributes:
        curve: The loss curve.
        seconds: Seconds of training, those before an interruption included.
        scores: The held-out rows before and after.
        step: The optimiser step whose weights these are.
        failed_at: The step at which the loss was lost; the weights are those of an earlier one.
        save: Writes the adapter into a folder; every process has to call it.
    """

    curve: LossCurve
    seconds: float
    scores: BeforeAndAfter
    step: int
    failed_at: int | None
    save: Callable[[Path], None]


def train_adapter(
    loaded: LoadedModel,
    report: PreflightReport,
    *,
    run_folder: Path,
    resume_from: Path | None,
    process: ThisProcess,
    say: Callable[[str], None],
    show_progress: bool,
) -> TrainedAdapter:
    """Train an adapter on a base model that nothing else uses.

    Args:
        loaded: The base model; it becomes part of the PEFT model.
        report: What to train on, checked.
        run_folder: Where checkpoints are kept and the curve grows while training goes on.
        resume_from: The checkpoint to go on from.
        process: Which of the processes that train together this is.
        say: Takes lines for the user.
        show_progress: Whether to show a progress bar.

    Returns:
        The trained adapter.

    Raises:
        EngineError: The loss was lost before there was any checkpoint, or memory ran out.
        OSError: A checkpoint could not be written.
        ConfigurationError: The rows of a step cannot be shared among the processes.
    """
    _keep_differentiable(loaded.model)
    held_out = report.validation, report.validation_slices
    before = score_slices(loaded.model, *held_out)
    model = attach_new_adapter(loaded, report, initial=run_folder / _INITIAL)
    curve = LossCurve()
    if resume_from is not None:
        curve = LossCurve.read_json(resume_from / CURVE_NAME)
    watcher = Watcher(curve, run_folder, say=say, show_progress=show_progress, leads=process.leads)
    trainer = _trainer(model, loaded, report, process=process, folder=run_folder, watcher=watcher)
    _keep_float32(model)
    started = time.monotonic()
    earlier = curve.points[-1].seconds if curve.points else 0.0
    ended = None if resume_from is None else _ended_at(resume_from, report.config)
    if ended is not None:
        take_back(model, ended)
        step = step_of(ended)
    else:
        _run(trainer, report, resume_from=resume_from, watcher=watcher)
        step = trainer.state.global_step
    seconds = earlier + time.monotonic() - started
    if watcher.failed_at is not None:
        good = _last_good(run_folder, curve, watcher.failed_at)
        if good is None:
            raise failure(curve, report, at=watcher.failed_at)
        take_back(trainer.model, good)
        step = step_of(good)
    elif ended is None and report.config.early_stopping_patience:
        step = trainer.state.best_global_step or step
    scores = BeforeAndAfter(before=before, after=score_slices(trainer.model, *held_out))
    if scores.loss is not None:
        curve.validation[0], curve.validation[step] = scores.loss
    return TrainedAdapter(
        curve=curve,
        seconds=seconds,
        scores=scores,
        step=step,
        failed_at=watcher.failed_at,
        save=lambda folder: _save(trainer, folder, initial=run_folder / _INITIAL),
    )


def _run(
    trainer: Any, report: PreflightReport, *, resume_from: Path | None, watcher: Watcher
) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise _out_of_memory(trainer.state.global_step, report) from error
    finally:
        watcher.close()


def _ended_at(checkpoint: Path, config: FinetuneConfig) -> Path | None:
    """Find the weights of a run that had taken its last step and was killed after it.

    Resumed there, transformers 5.23 takes a step too many if that is not the end of an epoch.
    """
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    if state["global_step"] < state["max_steps"]:
        return None
    best = state.get("best_global_step") if config.early_stopping_patience else None
    return checkpoint.with_name(f"checkpoint-{best}") if best else checkpoint


def failure(curve: LossCurve, report: PreflightReport, *, at: int, kept: str = "") -> EngineError:
    """Word the error of a run that lost its way.

    Args:
        curve: The curve up to there.
        report: What it was to train.
        at: The step at which it did.
        kept: A sentence that says where the last good adapter is.
    """
    last = ", ".join(f"{point.loss:.4g}" for point in curve.points[-SPIKE_STEPS:])
    what = "is no number any more"
    if curve.points and curve.points[-1].step == at:
        what = "has stayed above where it began"
    return EngineError(
        f"Training stopped at step {at}: the loss {what} (the last losses were {last or 'none'}). "
        f"{kept or 'There was no checkpoint yet.'} Lower learning_rate, now "
        f"{report.recipe.learning_rate:g}, or max_grad_norm, now {report.config.max_grad_norm:g}."
    )


def _is_out_of_memory(error: Exception) -> bool:
    # torch's own class is for GPUs; on a CPU it says it in words alone
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "can't allocate memory" in str(error)
    )


def _out_of_memory(step: int, report: PreflightReport) -> EngineError:
    recipe = report.recipe
    advice = "" if recipe.gradient_checkpointing else ", or gradient_checkpointing=True"
    return EngineError(
        f"Memory ran out after step {step} with batch_size {recipe.batch_size} (estimated were: "
        f"{report.memory}). Take batch_size={max(1, recipe.batch_size // 2)} with "
        f"gradient_accumulation_steps={2 * recipe.gradient_accumulation_steps}{advice}."
    )


def _last_good(folder: Path, curve: LossCurve, failed_at: int) -> Path | None:
    """Find the last checkpoint from before the loss was lost."""
    good = [path for path in complete_checkpoints(folder) if has_finite_weights(path)]
    spike = bool(curve.points) and curve.points[-1].step == failed_at
    latest = failed_at - (SPIKE_STEPS if spike else 1)
    return next((path for path in reversed(good) if step_of(path) <= latest), None)


def _trainer(
    model: Any,
    loaded: LoadedModel,
    report: PreflightReport,
    *,
    process: ThisProcess,
    folder: Path,
    watcher: Watcher,
) -> Any:
    config = report.config
    acceleration = choose_acceleration(
        device=loaded.device, dtype=loaded.dtype, quantization=loaded.quantization
    )
    if config.packing and acceleration.attention == "sdpa":
        use_row_attention(loaded.model)
    elif acceleration.attention != loaded.attention:
        loaded.model.set_attn_implementation(acceleration.attention)
    callbacks: list[Any] = [watcher]
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
    arguments = _arguments(loaded, report, process, acceleration, folder)
    allow_sharding_on_cpu(process, device=loaded.device)
    with warnings.catch_warnings():
        # kernels of the hub, which TRL names in its place, would have to be downloaded
        warnings.filterwarnings("ignore", "`use_liger_kernel=True` is deprecated", FutureWarning)
        trainer = _QuietTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(report.train),
            eval_dataset=_dataset(report.validation) if report.validation else None,
            processing_class=loaded.tokenizer,
            # given here, because TRL's own choice would rewrite the pad token of tokenizer and
            # model; without padding it sends position ids that begin anew with each row and no
            # attention mask, by which transformers keeps the rows apart
            data_collator=DataCollatorForLanguageModeling(
                pad_token_id=report.pad_token_id, padding_free=config.packing
            ),
            callbacks=callbacks,
        )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _arguments(
    loaded: LoadedModel,
    report: PreflightReport,
    process: ThisProcess,
    acceleration: Acceleration,
    folder: Path,
) -> SFTConfig:
    config, recipe = report.config, share_rows(report.recipe, process)
    on_cpu = loaded.device == "cpu"
    save_steps = config.save_steps or math.ceil(
        _count_steps(config, report.recipe, rows=len(report.train)) / _CHECKPOINTS_A_RUN
    )
    return SFTConfig(
        output_dir=str(folder),
        seed=config.seed,
        data_seed=config.seed,
        learning_rate=recipe.learning_rate,
        num_train_epochs=recipe.num_epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of all steps
        lr_scheduler_type=config.lr_scheduler,
        optim=acceleration.optimizer,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,  # else a loss that is no number would be logged as a number
        bf16=acceleration.bf16,
        use_liger_kernel=acceleration.liger,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        max_length=None,  # rows are measured before and never cut
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=_KEPT_CHECKPOINTS,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        router_aux_loss_coef=0.0,  # as Phi-3.5-MoE's own; TRL cannot compute it for that model
        **_early_stopping(config, save_steps),
        **_renamed(config, recipe),
    )


def _early_stopping(config: FinetuneConfig, save_steps: int) -> dict[str, Any]:
    if config.early_stopping_patience is None:
        return {"eval_strategy": "no"}
    return {
        "eval_strategy": "steps",
        "eval_steps": save_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,
    }


def _renamed(config: FinetuneConfig, recipe: Recipe) -> dict[str, Any]:
    """Give the settings that transformers has renamed, by the name that this release knows."""
    known = {item.name for item in fields(SFTConfig)}
    checkpointing = "activation_checkpointing"
    if checkpointing not in known:
        checkpointing = "gradient_checkpointing"
    renamed: dict[str, Any] = {checkpointing: recipe.gradient_checkpointing}
    if config.group_by_length and "train_sampling_strategy" in known:
        renamed["train_sampling_strategy"] = "group_by_length"
    elif config.group_by_length:
        renamed["group_by_length"] = True
    return renamed


def _count_steps(config: FinetuneConfig, recipe: Recipe, *, rows: int) -> int:
    if config.max_steps is not None:
        return config.max_steps
    rows_a_step = recipe.batch_size * recipe.gradient_accumulation_steps
    return math.ceil(math.ceil(rows / rows_a_step) * recipe.num_epochs)


def _dataset(rows: Sequence[TokenizedRow]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
        }
    )


def _save(trainer: Any, folder: Path, *, initial: Path) -> None:
    state = gathered_weights(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_adapter(model, folder, initial=initial, state_dict=state)
    trainer.accelerator.wait_for_everyone()


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
    """TRL's trainer without its report to its makers, its card, and the copies of the tokenizer.

    Its checkpoints are the same whether or not the model is shared out.
    """

    def _send_telemetry(self) -> None:
        """Send nothing: training reaches no network."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card into checkpoints."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Word a full disk as one; torch and safetensors each have an error of their own."""
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(
                f"The checkpoint of step {self.state.global_step} cannot be written to "
                f"'{self.args.output_dir}' ({error}). Free some room; finetune(resume=True) then "
                "goes on from the last complete one."
            ) from error

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the adapter alone."""
        if self.args.should_save:
            options = {} if state_dict is None else {"state_dict": state_dict}
            model = self.accelerator.unwrap_model(self.model)
            model.save_pretrained(
                output_dir or self.args.output_dir, save_embedding_layers=False, **options
            )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter; of a model that is shared out it is gathered first."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call=_internal_call)
            return
        self._save(output_dir, state_dict=gathered_weights(self.model))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gathered_optimizer(self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif model is not None:  # the first of two calls comes before the model is shared out
            take_back(model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.is_fsdp_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(self.optimizer, Path(checkpoint) / OPTIMIZER_NAME)
        schedule = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        self.lr_scheduler.load_state_dict(schedule)

    def _load_best_model(self) -> None:
        if not self.is_fsdp_enabled:
            super()._load_best_model()
            return
        take_back(self.model, Path(self.state.best_model_checkpoint))
