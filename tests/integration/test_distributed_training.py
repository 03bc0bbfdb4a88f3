"""Two processes train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.finetuning.training_set import TrainingReport, TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.models.adapter import read_manifest

PROGRAM = """
import json, sys, torch
torch.set_num_threads(1)
from phi3_industry import LoraFinetuneEngine
settings = json.loads(sys.argv[1])
tuner = LoraFinetuneEngine(
    settings.pop("model"),
    train_set=settings.pop("train_set"),
    output_dir=settings.pop("output_dir"),
    device="cpu",
    **settings,
)
manifest = tuner.finetune()
print("finished with", manifest.metrics["steps"], "steps", flush=True)
"""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Twelve rows of different lengths, which fill every step, and two more held out."""
    made = [
        TrainingRow(
            prompt=DEFAULT_PROMPT.grounded(
                f"What is the pressure of P-{n}?", [f"P-{n}: {30 + n} bar. " + "Idle. " * (5 * n)]
            ),
            completion=[{"role": "assistant", "content": f"[1] {30 + n} bar"}],
            slice="grounded",
            split="validation" if n % 7 == 6 else "train",
        )
        for n in range(14)
    ]
    report = TrainingReport(questions=14, counts={})
    built = TrainingSet(
        rows=tuple(made), prompt_fingerprint=DEFAULT_PROMPT.fingerprint, report=report
    )
    return built.save(tmp_path / "rows")


def train(
    folder: Path, tiny: Path, rows: Path, *, processes: int, **settings: Any
) -> tuple[list[float], float, str]:
    """Give the losses, the loss on held-out rows, and what was printed."""
    arguments = {
        "model": str(tiny),
        "train_set": str(rows),
        "output_dir": str(folder),
        "max_steps": 6,
        "save_steps": 3,
        "lora_rank": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "lr_scheduler": "constant",
        **settings,
    }
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    finished = subprocess.run(
        [
            sys.executable,
            *(launcher if processes > 1 else []),
            str(program),
            json.dumps(arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    log = json.loads((folder / "training" / "log.json").read_text())
    metrics = read_manifest(folder).metrics
    losses = [point["loss"] for point in log["points"]]
    return losses, metrics["validation_loss_after"], finished.stdout + finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"packing": True},
        {"gradient_accumulation_steps": 2, "batch_size": 2},
        {"method": "qlora"},
    ],
    ids=["padded", "packed", "accumulated", "qlora"],
)
def test_two_processes_give_the_loss_curve_of_one(
    settings: dict[str, Any], tiny_phi3: Path, rows: Path, tmp_path: Path
) -> None:
    alone, held_out, _ = train(tmp_path / "one", tiny_phi3, rows, processes=1, **settings)
    shared, held_out_shared, said = train(
        tmp_path / "two", tiny_phi3, rows, processes=2, **settings
    )
    assert len(alone) == 6
    assert alone[-1] < alone[0]
    assert shared == pytest.approx(alone, abs=1e-4)
    assert held_out_shared == pytest.approx(held_out, abs=1e-4)
    # both end, and one of them reports
    assert said.count("finished with 6 steps") == 2
    assert said.count("The adapter is in") == 1
