"""Kill training at random moments, resume it, and compare where it ends.

A child process trains an adapter and is killed by SIGKILL at a moment drawn from the length of a
run that nothing interrupts; most of that time is spent writing checkpoints, one after each few
steps. The next child goes on by ``finetune(resume=True)``. When a run ends, its loss curve and its
adapter's weights are compared with the uninterrupted run's. An adapter of one step stands in the
folder before; after every kill it, or the new one, has to be whole.

    python benchmarks/resume_campaign.py --kills 50
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from phi3_industry import LoraFinetuneEngine
from phi3_industry.finetuning import sft  # noqa: F401  # loaded once, before the children are made
from phi3_industry.finetuning.checkpoints import complete_checkpoints, run_folder_of
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.finetuning.training_set import TrainingReport, TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.models.adapter import read_manifest

_TOLERANCE = 1e-4


@dataclass
class Tally:
    """What the kills met."""

    kills: int = 0
    before_any_checkpoint: int = 0
    half_written: int = 0
    runs: int = 0
    failed: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    largest_difference: float = 0.0
    largest_difference_of_weights: float = 0.0


def main() -> None:
    """Kill, resume, compare, print."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        tally = _campaign(options, Path(name))
    print(
        f"{tally.kills} kills in {tally.runs} runs of {options.steps} steps, a checkpoint after "
        f"every {options.save_steps}: {tally.before_any_checkpoint} before the first checkpoint, "
        f"{tally.half_written} with a half-written one"
    )
    print(
        f"resumed and ended as the uninterrupted run: {tally.runs - len(tally.failed)} of "
        f"{tally.runs} runs; largest difference of a loss {tally.largest_difference:.1e}, of a "
        f"weight {tally.largest_difference_of_weights:.1e}"
    )
    for reason in (*tally.failed, *tally.damaged):
        print(f"FAILED: {reason}")
    sys.exit(1 if tally.failed or tally.damaged else 0)


def _campaign(options: argparse.Namespace, work: Path) -> Tally:
    rows = _rows().save(work / "rows")
    settings = {
        "model": options.model,
        "train_set": rows,
        "max_steps": options.steps,
        "save_steps": options.save_steps,
        "method": options.method,
        "lora_rank": 8,
        "lora_dropout": 0.05,
        "batch_size": 2,
        "packing": True,
    }
    began = time.monotonic()
    _wait_for(_start(work / "whole", settings))
    length = time.monotonic() - began
    print(f"uninterrupted: {length:.1f} s on {options.model}", flush=True)
    expected, weights = _losses(work / "whole"), _weights(work / "whole")
    _wait_for(_start(work / "earlier", {**settings, "max_steps": 1}))
    draw, tally = random.Random(options.seed), Tally()
    while tally.kills < options.kills:
        folder = work / f"run-{tally.runs}"
        tally.runs += 1
        shutil.copytree(work / "earlier", folder)
        _kill_until_it_ends(folder, settings, length, draw, tally, most=options.kills)
        read_manifest(folder)  # refuses a damaged one
        found = _losses(folder)
        if len(found) != len(expected):
            tally.failed.append(f"run {tally.runs} took {len(found) - 1} steps")
            continue
        difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        tally.largest_difference = max(tally.largest_difference, difference)
        apart = max(
            float(np.abs(weights[name] - weight).max()) for name, weight in _weights(folder).items()
        )
        tally.largest_difference_of_weights = max(tally.largest_difference_of_weights, apart)
        if not max(difference, apart) <= _TOLERANCE:
            tally.failed.append(f"run {tally.runs} ended {difference:.1e}, {apart:.1e} away")
        print(f"run {tally.runs}: {tally.kills} kills so far, {difference:.1e} away", flush=True)
    return tally


def _kill_until_it_ends(
    folder: Path,
    settings: dict[str, Any],
    length: float,
    draw: random.Random,
    tally: Tally,
    *,
    most: int,
) -> None:
    """Start a run and kill it again and again; what is left after that many kills ends in peace."""
    while True:
        child = _start(folder, settings)
        if tally.kills >= most:
            _wait_for(child)
            return
        deadline = time.monotonic() + draw.uniform(0, length)
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                if status:
                    tally.failed.append(f"run {tally.runs} ended with status {status}")
                return
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tally.kills += 1
        _check_adapter(folder, tally)
        run = run_folder_of(folder)
        complete = len(complete_checkpoints(run))
        tally.before_any_checkpoint += not complete
        tally.half_written += len(list(run.glob("checkpoint-*"))) > complete


def _check_adapter(folder: Path, tally: Tally) -> None:
    """Check that an adapter is there, or set aside by a kill between two renames."""
    aside = folder.with_name(f".{folder.name}.earlier")
    try:
        read_manifest(folder if folder.exists() else aside)
    except Exception as error:
        tally.damaged.append(f"kill {tally.kills} left no whole adapter: {error!r}")


def _start(folder: Path, settings: dict[str, Any]) -> int:
    """Train in a child process; a fork has everything imported already."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        given = dict(settings)
        model, train_set = str(given.pop("model")), given.pop("train_set")
        LoraFinetuneEngine(
            model, train_set=train_set, output_dir=folder, show_progress=False, **given
        ).finetune(resume=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait_for(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"training ended with status {status}")


def _losses(folder: Path) -> list[float]:
    log = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    return [*(point["loss"] for point in log["points"]), log["run"]["validation_loss_after"]]


def _weights(folder: Path) -> dict[str, np.ndarray]:
    # by numpy: torch's threads would not survive the next fork
    return load_file(folder / "adapter_model.safetensors")


def _rows() -> TrainingSet:
    """Forty short rows, four of them held out."""
    made = [
        TrainingRow(
            prompt=DEFAULT_PROMPT.grounded(
                f"What is the pressure of P-{n}?", [f"Tag: P-{n}; Pressure: {30 + n} bar"]
            ),
            completion=[{"role": "assistant", "content": f"[1] {30 + n} bar | PDIS"}],
            slice="grounded",
            split="validation" if n % 10 == 9 else "train",
        )
        for n in range(40)
    ]
    report = TrainingReport(questions=len(made), counts={})
    return TrainingSet(
        rows=tuple(made), prompt_fingerprint=DEFAULT_PROMPT.fingerprint, report=report
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--save-steps", type=int, default=2)
    parser.add_argument("--method", default="lora", choices=["lora", "qlora"])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
