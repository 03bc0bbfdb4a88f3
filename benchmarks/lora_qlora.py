"""LoRA against QLoRA, through this library and through plain TRL, on the same rows.

Each arm runs in a process of its own, so that its peak memory is its own: what a process held at
most, less what it held before the base model was loaded; on a GPU what torch had allocated at most.
All arms train the same rows by the same recipe and seed; afterwards all are scored by the same
code on the same held-out rows. Plain TRL is given a conversational prompt-completion dataset, the
chat template, and nothing else of ours.

    python benchmarks/lora_qlora.py examples/plant --rows 200 --steps 60
    python benchmarks/lora_qlora.py examples/plant --rows 64 --steps 20 --layers 32 --device cuda
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import torch
import transformers
from random_models import mini_shape, save_random_model
from recipe_rows import load_recipe_rows

from phi3_industry import LoraFinetuneEngine
from phi3_industry.finetuning.config import FinetuneConfig, Recipe
from phi3_industry.finetuning.examples import tokenize_rows
from phi3_industry.finetuning.slice_scores import score_slices
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.adapter import attach_adapter
from phi3_industry.models.loading import LoadedModel, load_base_model

_MIB = 2**20
_ARMS = ("lora", "lora packed", "qlora", "qlora packed", "TRL lora", "TRL qlora")


def main() -> None:
    """Run each arm in a process of its own and print a table."""
    options = _options()
    if options.arm:
        print(json.dumps(_run_arm(options)))
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.layers:
            shape = mini_shape(layers=options.layers, quick=False)
            options.model = str(work / "random")
            save_random_model(Path(options.model), shape, seed=options.seed)
        rows = load_recipe_rows(
            options.rows_from, model=options.model, limit=options.rows, seed=options.seed
        )
        rows.save(work / "rows")
        print(f"{options.model}, {options.steps} steps, {len(rows.split('train'))} rows")
        print(f"{'':<13} {'s a step':>8} {'CPU s':>7} {'peak MiB':>9} {'held-out loss':>13} exact")
        for arm in options.arms:
            print(_line(arm, _in_a_process(options, arm, work)), flush=True)


def _line(arm: str, found: dict[str, Any]) -> str:
    rows = sum(score["rows"] for score in found["scores"].values())
    exact = sum(score["exact"] for score in found["scores"].values())
    tokens = sum(score["tokens"] for score in found["scores"].values())
    loss = sum(score["loss"] * score["tokens"] for score in found["scores"].values()) / tokens
    return (
        f"{arm:<13} {found['wall_s']:>8.2f} {found['cpu_s']:>7.2f} {found['peak_mib']:>9.0f} "
        f"{loss:>13.3f} {exact} of {rows}"
    )


def _in_a_process(options: argparse.Namespace, arm: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, str(work / "rows"), "--arm", arm]
    for name in ("model", "steps", "device", "threads", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"the arm '{arm}' failed:\n{finished.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


def _run_arm(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    train_set = TrainingSet.load(options.rows_from)
    words = options.arm.split()
    config = FinetuneConfig(
        method="qlora" if "qlora" in words else "lora",
        packing="packed" in words,
        max_steps=options.steps,
        save_steps=10**6,
        seed=options.seed,
    )
    before = psutil.Process().memory_info().rss / _MIB
    seconds: dict[str, float] = {}
    train = transformers.Trainer.train

    def timed(trainer: Any, *args: Any, **given: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = train(trainer, *args, **given)
        seconds.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
        return result

    transformers.Trainer.train = timed
    with tempfile.TemporaryDirectory() as name, _PeakMemory() as peak:
        folder = Path(name) / "adapter"
        run: Callable[..., None] = _by_trl if "TRL" in words else _by_library
        run(options, train_set, config, folder)
        peak.stop()
        scores = _score(options, train_set, config, folder)
    used = torch.cuda.max_memory_allocated() / _MIB if torch.cuda.is_available() else 0
    return {
        "wall_s": seconds["wall"] / options.steps,
        "cpu_s": seconds["cpu"] / options.steps,
        "peak_mib": used or peak.mib - before,
        "scores": scores,
    }


class _PeakMemory:
    """Looks ten times a second at what the process holds; the kernel's own peak never falls."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._stopped.wait(0.1):
            self.mib = max(self.mib, process.memory_info().rss / _MIB)


def _by_library(
    options: argparse.Namespace, train_set: TrainingSet, config: FinetuneConfig, folder: Path
) -> None:
    LoraFinetuneEngine(
        options.model,
        train_set=train_set,
        output_dir=folder,
        config=config,
        device=options.device,
        show_progress=False,
    ).finetune()


def _by_trl(
    options: argparse.Namespace, train_set: TrainingSet, config: FinetuneConfig, folder: Path
) -> None:
    from peft import LoraConfig
    from trl import SFTTrainer

    loaded = _load(options, config)
    recipe = config.recipe(loaded.model.num_parameters())
    dataset = train_set.to_dataset("train").select_columns(["prompt", "completion"])
    trainer = SFTTrainer(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        train_dataset=dataset,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            target_modules="all-linear",
        ),
        args=_trl_arguments(config, recipe, loaded, folder),
    )
    trainer.train()
    trainer.model.peft_config["default"].base_model_name_or_path = loaded.name
    trainer.model.save_pretrained(str(folder), save_embedding_layers=False)


def _trl_arguments(
    config: FinetuneConfig, recipe: Recipe, loaded: LoadedModel, folder: Path
) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder),
        max_steps=config.max_steps,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        gradient_checkpointing=recipe.gradient_checkpointing,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_ratio,
        max_length=loaded.checkpoint.context_window,
        bf16=loaded.dtype == "bfloat16",
        use_cpu=loaded.device == "cpu",
        seed=config.seed,
        data_seed=config.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10**6,
    )


def _score(
    options: argparse.Namespace, train_set: TrainingSet, config: FinetuneConfig, folder: Path
) -> dict[str, Any]:
    loaded = _load(options, config)
    rows = train_set.split("validation")
    tokenized = tokenize_rows(rows, loaded.chat_format, max_length=loaded.checkpoint.context_window)
    model = attach_adapter(loaded.model, folder, internal_name="scored")
    scores = score_slices(model, tokenized, [row.slice for row in rows])
    return {name: asdict(score) for name, score in scores.items()}


def _load(options: argparse.Namespace, config: FinetuneConfig) -> LoadedModel:
    return load_base_model(options.model, quantization=config.quantization, device=options.device)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("rows_from", type=Path, help="a training set, or an example's folder")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--layers", type=int, help="a random Phi-3-mini of so many layers instead")
    parser.add_argument("--rows", type=int, help="train on this many rows; all")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--arms", nargs="+", default=list(_ARMS), choices=_ARMS)
    parser.add_argument("--arm", choices=_ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
