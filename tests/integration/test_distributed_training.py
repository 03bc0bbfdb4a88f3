"""Two processes train what one does, each with the whole base (DDP) or with half of it (FSDP)."""

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
import json, os, signal, sys, torch
torch.set_num_threads(1)
from torch.distributed.tensor import DTensor
from phi3_industry import LoraFinetuneEngine
from phi3_industry.finetuning import progress

def say(line):
    os.write(1, f"{line}\\n".encode())  # whole: two processes write to one place

settings = json.loads(sys.argv[1])
if settings.pop("killed"):
    save = progress.Watcher.on_save
    def save_and_die(*args, **kwargs):
        save(*args, **kwargs)
        progress.wait_for_the_others()
        os.kill(os.getpid(), signal.SIGKILL)
    progress.Watcher.on_save = save_and_die
begin = progress.Watcher.on_train_begin
def begin_and_weigh(self, *args, model, **kwargs):
    weights = list(model.parameters())
    held = sum((w.to_local() if isinstance(w, DTensor) else w).nbytes for w in weights)
    say(f"holds {held / sum(w.nbytes for w in weights):.2f} of the weights")
    begin(self, *args, **kwargs)
progress.Watcher.on_train_begin = begin_and_weigh
resume = settings.pop("resume")
tuner = LoraFinetuneEngine(
    settings.pop("model"),
    train_set=settings.pop("train_set"),
    output_dir=settings.pop("output_dir"),
    device="cpu",
    **settings,
)
manifest = tuner.finetune(resume=resume)
say(f"finished with {manifest.metrics['steps']} steps")
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


def launch(
    folder: Path,
    tiny: Path,
    rows: Path,
    *,
    processes: int,
    sharded: bool = False,
    killed: bool = False,
    resume: bool = False,
    **settings: Any,
) -> subprocess.CompletedProcess[str]:
    """Train in processes, which can kill themselves after their first checkpoint."""
    arguments = {
        "killed": killed,
        "resume": resume,
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
    sharding = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    sharding["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [
            sys.executable,
            *(launcher if processes > 1 else []),
            str(program),
            json.dumps(arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **alone, **(sharding if sharded else {})},
        check=False,
    )


def train(
    folder: Path, tiny: Path, rows: Path, *, processes: int, **settings: Any
) -> tuple[list[float], float, str]:
    """Give the losses, the loss on held-out rows, and what was printed."""
    finished = launch(folder, tiny, rows, processes=processes, **settings)
    assert finished.returncode == 0, finished.stderr[-3000:]
    log = json.loads((folder / "training" / "log.json").read_text())
    metrics = read_manifest(folder).metrics
    losses = [point["loss"] for point in log["points"]]
    return losses, metrics["validation_loss_after"], finished.stdout + finished.stderr


VARIANTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "packed": {"packing": True},
    "accumulated": {"gradient_accumulation_steps": 2, "batch_size": 2},
    "checkpointed": {"gradient_checkpointing": True},
    "qlora": {"method": "qlora"},
    "dora": {"method": "dora"},
    "pissa": {"method": "pissa"},
}


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "shared out"])
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_two_processes_give_the_loss_curve_of_one(
    settings: dict[str, Any], sharded: bool, tiny_phi3: Path, rows: Path, tmp_path: Path
) -> None:
    alone, held_out, _ = train(tmp_path / "one", tiny_phi3, rows, processes=1, **settings)
    shared, held_out_shared, said = train(
        tmp_path / "two", tiny_phi3, rows, processes=2, sharded=sharded, **settings
    )
    assert len(alone) == 6
    assert alone[-1] < alone[0]
    assert shared == pytest.approx(alone, abs=1e-4)
    assert held_out_shared == pytest.approx(held_out, abs=1e-4)
    # both end, and one of them reports
    assert said.count("finished with 6 steps") == 2
    assert said.count(f"holds {'0.50' if sharded else '1.00'} of the weights") == 2
    assert said.count("The adapter is in") == 1


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "shared out"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_in_another_number_of_processes(
    before: int, after: int, sharded: bool, tiny_phi3: Path, rows: Path, tmp_path: Path
) -> None:
    alone, held_out, _ = train(tmp_path / "one", tiny_phi3, rows, processes=1)
    folder = tmp_path / "interrupted"
    killed = launch(folder, tiny_phi3, rows, processes=before, sharded=sharded, killed=True)
    checkpoint = tmp_path / ".interrupted.training" / "checkpoint-3"
    assert (checkpoint / "complete.json").exists(), killed.stderr[-3000:]
    assert killed.returncode != 0
    assert not folder.exists()
    losses, resumed_held_out, said = train(
        folder, tiny_phi3, rows, processes=after, sharded=sharded, resume=True
    )
    assert "It goes on after step 3." in said
    assert losses == pytest.approx(alone, abs=1e-4)
    assert resumed_held_out == pytest.approx(held_out, abs=1e-4)
