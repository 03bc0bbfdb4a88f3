"""LoraFinetuneEngine: a training set becomes an adapter folder, and the adapter an LLM."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry._optional import import_optional
from phi3_industry.errors import MissingDependencyError
from phi3_industry.finetuning.checkpoints import open_run, run_folder_of, step_of
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.curve import CSV_NAME, LOG_NAME, PLOT_NAME
from phi3_industry.finetuning.folders import replaced_folder
from phi3_industry.finetuning.processes import ThisProcess, wait_for_the_others
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.llms import Phi3LLM
from phi3_industry.models.adapter import (
    MANIFEST_NAME,
    AdapterManifest,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from phi3_industry.finetuning.preflight import PreflightReport
    from phi3_industry.finetuning.sft import TrainedAdapter
    from phi3_industry.models.loading import LoadedModel

__all__ = ["LOG_FOLDER", "LoraFinetuneEngine"]

LOG_FOLDER = "training"
"""Folder inside an adapter that holds the loss curve and the log of its training."""

_TENSORBOARD = "runs"  # transformers' own

_LOGGER = logging.getLogger(__name__)


class LoraFinetuneEngine:
    """Trains a LoRA or QLoRA adapter, in the two-method shape of LlamaIndex's fine-tuning engines.

    Training loads a base model of its own and leaves one that serves alone. The adapter folder
    appears when it is complete; until then an earlier one stays in use.

    Args:
        model: ``"embedded"``, a folder, a hub id, or a ``Phi3LLM`` whose base model is meant.
        train_set: The rows, or the folder of a saved training set.
        output_dir: The adapter folder to write; an earlier adapter in it is replaced.
        config: The settings.
        revision: Revision of the model on the hub; for a ``Phi3LLM`` its own is taken.
        device: A torch device, or ``"auto"``; for a ``Phi3LLM`` its own is taken.
        local_files_only: Whether to keep off the network; for a ``Phi3LLM`` its own is taken.
        show_progress: Whether to show progress on the standard error stream.
        report: Takes each line for the user in place of the standard error stream.
        **settings: Fields of :class:`~phi3_industry.finetuning.config.FinetuneConfig` in place
            of ``config``, such as ``method="qlora"`` or ``lora_rank=8``.

    Raises:
        ValueError: A setting is outside its range.
        TypeError: A setting is unknown, or stands beside ``config``.

    Example:
        >>> tuner = LoraFinetuneEngine(  # doctest: +SKIP
        ...     "microsoft/Phi-3-mini-4k-instruct",
        ...     train_set=train,
        ...     output_dir="adapters/pumps",
        ...     method="qlora",
        ... )
        >>> tuner.finetune()  # doctest: +SKIP
        >>> expert = tuner.get_finetuned_model()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Phi3LLM = "embedded",
        *,
        train_set: TrainingSet | str | PathLike[str],
        output_dir: str | PathLike[str],
        config: FinetuneConfig | None = None,
        revision: str | None = None,
        device: str = "auto",
        local_files_only: bool = False,
        show_progress: bool = True,
        report: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise TypeError(
                f"Both config and the settings {sorted(settings)} are given; put all into one."
            )
        self.config = config or FinetuneConfig(**settings)
        self.output_dir = Path(output_dir)
        self._llm = model if isinstance(model, Phi3LLM) else None
        self._train_set = train_set
        self._show_progress = show_progress
        self._report = report
        self._process = ThisProcess.from_environment()
        if isinstance(model, Phi3LLM):
            self._source: dict[str, Any] = {
                "model": model.model,
                "revision": model.revision,
                "device": model.device,
                "local_files_only": model.local_files_only,
            }
        else:
            self._source = {
                "model": model,
                "revision": revision,
                "device": device,
                "local_files_only": local_files_only,
            }

    def finetune(self, *, resume: bool = False) -> AdapterManifest:
        """Train the adapter and write its folder.

        Beside PEFT's files and the manifest the folder holds ``training/`` with the loss curve
        as ``loss.csv`` and ``loss.png`` and the log as ``log.json``. While it trains, curve and
        checkpoints are in the hidden folder ``.NAME.training`` beside it; what is killed there at
        any moment goes on from its last complete checkpoint.

        Under ``accelerate launch`` or ``torchrun`` each process calls it; the first one writes.

        Args:
            resume: Whether an interrupted run goes on. Without one, training begins anew.

        Returns:
            The manifest as written; ``metrics`` says what training did to the held-out rows, by
            slice, and ``metrics["verdict"]`` whether it made the model better.

        Raises:
            TrainingDataError: The rows cannot be trained on.
            TargetModuleError: A target is in no layer of the model.
            ConfigurationError: The settings contradict the model, or those of the interrupted
                run, or the run does not fit into memory.
            ModelLoadError: The model does not load.
            MissingDependencyError: A tracker of ``report_to`` is not installed.
            FileExistsError: ``output_dir`` holds something else than an adapter of ours, or an
                interrupted run could go on.
            OSError: There is too little room on the disk.
            EngineError: The loss was lost, and the last good adapter is in a folder of its own; or
                memory ran out.
        """
        from phi3_industry.finetuning.preflight import check_output, preflight

        path = check_output(self.output_dir)
        self._check_trackers()
        train_set = self._train_set
        if not isinstance(train_set, TrainingSet):
            train_set = TrainingSet.load(train_set)
        loaded = self._load_base()
        checked = preflight(loaded, train_set, self.config, output_dir=path, process=self._process)
        self._say(checked.table())
        self._say(_settings_line(checked, loaded))
        run_folder = run_folder_of(path)
        resume_from = open_run(
            run_folder,
            _identity(loaded, train_set, checked),
            resume=resume,
            writes=self._process.leads,
        )
        if resume_from is not None:
            self._say(f"It goes on after step {step_of(resume_from)}.")
        from phi3_industry.finetuning.sft import failure, train_adapter

        trained = train_adapter(
            loaded,
            checked,
            run_folder=run_folder,
            resume_from=resume_from,
            process=self._process,
            say=self._say,
            show_progress=self._show_progress and self._process.leads,
        )
        if trained.failed_at is not None:
            path = path.with_name(f"{path.name}-step-{trained.step}")
        metrics = _metrics(trained, checked)
        with self._written_folder(path) as folder:
            trained.save(folder)
            if self._process.leads:
                self._write_logs(trained, metrics, folder / LOG_FOLDER, run_folder)
                write_manifest(
                    folder,
                    loaded,
                    prompt_fingerprint=train_set.prompt_fingerprint,
                    method=self.config.method,
                    data_fingerprint=train_set.fingerprint,
                    metrics=metrics,
                )
        if self._process.leads:
            shutil.rmtree(run_folder, ignore_errors=True)
        wait_for_the_others()
        if trained.failed_at is not None:
            kept = f"The adapter as it was at step {trained.step} is in '{path}'."
            raise failure(trained.curve, checked, at=trained.failed_at, kept=kept)
        if trained.scores.before:
            self._say(trained.scores.table())
        self._say(f"The adapter is in '{path}'. {_outcome(metrics)}")
        return read_manifest(path)

    def get_finetuned_model(self, **kwargs: Any) -> Phi3LLM:
        """Give the model with the adapter in ``output_dir``.

        If this engine was given a ``Phi3LLM``, the result is a view of it that shares its
        weights.

        Args:
            **kwargs: For a new ``Phi3LLM``, such as ``max_new_tokens``; a new one is made if any
                are given. An adapter trained with ``"qlora"`` is served on a base in 4 bits
                unless ``quantization`` says otherwise.

        Returns:
            The LLM, with the adapter selected.

        Raises:
            AdapterNotFoundError: There is no adapter yet: call :meth:`finetune` first.
            AdapterError: The adapter is damaged or was made for something else.
        """
        name = self.output_dir.absolute().name
        llm = self._llm
        if llm is None or kwargs:
            defaults = {"quantization": self.config.quantization}
            llm = Phi3LLM(**{**self._source, **defaults, **kwargs})
        if name in llm.adapters:
            llm.unload_adapter(name)
        llm.load_adapter(self.output_dir, name)
        return llm.with_adapter(name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        endpoint: str | None = None,
        card: str | None = None,
    ) -> str:
        """Upload the adapter in ``output_dir`` with a card made from its manifest.

        See :func:`phi3_industry.finetuning.publishing.push_adapter`.
        """
        from phi3_industry.finetuning.publishing import push_adapter

        return push_adapter(
            self.output_dir, repo_id, private=private, token=token, endpoint=endpoint, card=card
        )

    def _load_base(self) -> LoadedModel:
        from phi3_industry.models.loading import load_base_model

        return load_base_model(
            self._source["model"],
            revision=self._source["revision"],
            quantization=self.config.quantization,
            device=self._process.device(self._source["device"]),
            shareable=self._process.shares,
            local_files_only=self._source["local_files_only"],
        )

    def _check_trackers(self) -> None:
        if "tensorboard" in self.config.report_to:
            import_optional("tensorboard", purpose="report to TensorBoard")

    @contextmanager
    def _written_folder(self, path: Path) -> Iterator[Path]:
        """Give the folder to fill; of several processes the first one alone has any."""
        if not self._process.leads:
            yield path
            return
        with replaced_folder(path, marker=MANIFEST_NAME) as folder:
            yield folder

    def _write_logs(
        self, trained: TrainedAdapter, metrics: dict[str, Any], folder: Path, run_folder: Path
    ) -> None:
        folder.mkdir()
        if (run_folder / _TENSORBOARD).is_dir():
            shutil.copytree(run_folder / _TENSORBOARD, folder / _TENSORBOARD)
        trained.curve.write_csv(folder / CSV_NAME)
        trained.curve.write_json(folder / LOG_NAME, run=metrics)
        try:
            trained.curve.write_png(folder / PLOT_NAME, title=f"Training {self.output_dir.name}")
        except MissingDependencyError as error:
            self._say(f"There is no {PLOT_NAME}, only {CSV_NAME}. {error}")

    def _say(self, text: str) -> None:
        if not self._process.leads:
            return
        if self._report is not None:
            self._report(text)
        elif self._show_progress:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            _LOGGER.info("%s", text)


def _identity(
    loaded: LoadedModel, train_set: TrainingSet, checked: PreflightReport
) -> dict[str, Any]:
    """Say what decides the outcome of a run, so that another one is not taken for it."""
    return {
        "base_weights": loaded.weights_fingerprint,
        "rows": train_set.fingerprint,
        **checked.config.identity(),
        **asdict(checked.recipe),
    }


def _settings_line(checked: PreflightReport, loaded: LoadedModel) -> str:
    config, recipe = checked.config, checked.recipe
    length = f"{config.max_steps} steps" if config.max_steps else f"{recipe.num_epochs:g} epochs"
    stored = f" stored in {loaded.quantization}" if loaded.quantization else ""
    return (
        f"{config.method} on '{loaded.name}' ({loaded.dtype}{stored}, {loaded.device}): "
        f"{len(checked.train)} rows, {len(checked.validation)} held out, {length}, "
        f"rank {recipe.lora_rank}, learning rate {recipe.learning_rate:g}, {recipe.batch_size} x "
        f"{recipe.gradient_accumulation_steps} rows a step, seed {config.seed}"
    )


def _metrics(trained: TrainedAdapter, checked: PreflightReport) -> dict[str, Any]:
    """Say what training did, as JSON values for the manifest and the log."""
    config, recipe, points = checked.config, checked.recipe, trained.curve.points
    loss = trained.scores.loss or (None, None)
    return {
        "train_rows": len(checked.train),
        "validation_rows": len(checked.validation),
        "trained_parameters": checked.trained_parameters,
        "steps": trained.step,
        "seconds": round(trained.seconds, 1),
        "train_loss_first": points[0].loss if points else None,
        "train_loss_last": points[-1].loss if points else None,
        "validation_loss_before": loss[0],
        "validation_loss_after": loss[1],
        **trained.scores.to_json(),
        **asdict(recipe),
        "packing": config.packing,
        "seed": config.seed,
    }


_OUTCOMES = {
    "better": "training made it better",
    "worse": "it is WORSE than before: use the base model, or other data",
    "unclear": "it is neither better nor worse: measure it on your questions before you use it",
}


def _outcome(metrics: dict[str, Any]) -> str:
    if metrics["verdict"] == "not measured":
        return "No row was held out, so nothing says whether it helps."
    before, after = metrics["validation_loss_before"], metrics["validation_loss_after"]
    outcome = _OUTCOMES[metrics["verdict"]]
    return f"On held-out rows the loss went from {before:.3f} to {after:.3f}; {outcome}."
