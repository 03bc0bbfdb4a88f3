"""Runs that are interrupted, and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.errors import EngineError
from phi3_industry.finetuning.checkpoints import complete_checkpoints, run_folder_of
from phi3_industry.finetuning.progress import Watcher
from phi3_industry.finetuning.trainer import LoraFinetuneEngine
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.adapter import read_manifest


def engine(tiny: Path, train_set: TrainingSet | Path, folder: Path, **settings: Any) -> Any:
    quick = {
        "max_steps": 10,
        "save_steps": 3,
        "lora_rank": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "lora_dropout": 0.1,  # its random numbers go on, too
    }
    return LoraFinetuneEngine(
        str(tiny), train_set=train_set, output_dir=folder, show_progress=False, **(quick | settings)
    )


def losses(folder: Path) -> list[float]:
    log = json.loads((folder / "training" / "log.json").read_text())
    return [point["loss"] for point in log["points"]]


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break off as an interrupt from the keyboard does."""
    on_step_end = Watcher.on_step_end

    def breaking(self: Watcher, args: Any, state: Any, control: Any, **options: Any) -> None:
        on_step_end(self, args, state, control, **options)
        if state.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watcher, "on_step_end", breaking)


@pytest.fixture
def whole(tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path) -> Path:
    """The adapter of a run that nothing interrupted."""
    engine(tiny_phi3, train_set, tmp_path / "whole").finetune()
    return tmp_path / "whole"


def test_interrupted_run_ends_as_one_that_was_not(
    whole: Path, tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    folder, said = tmp_path / "pumps", []
    tuner = engine(tiny_phi3, train_set, folder, report=said.append)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(8, patch)
        with pytest.raises(KeyboardInterrupt):
            tuner.finetune()
    assert not folder.exists()
    with pytest.raises(FileExistsError, match="interrupted after step 6"):
        tuner.finetune()
    # the last checkpoint is damaged, so the one before is taken
    newest = run_folder_of(folder) / "checkpoint-6" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    manifest = tuner.finetune(resume=True)
    assert "It goes on after step 3." in said
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-4)
    after = read_manifest(whole).metrics["validation_loss_after"]
    assert manifest.metrics["validation_loss_after"] == pytest.approx(after, abs=1e-4)
    assert not run_folder_of(folder).exists()


def test_run_that_ended_but_was_not_written_takes_no_further_step(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    # 8 steps end in the midst of an epoch, where transformers would go on
    assert len(train_set.split("train")) % (8 * 4) != 0
    tuner = engine(tiny_phi3, train_set, tmp_path / "pumps", max_steps=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tuner.finetune()
    last = run_folder_of(tmp_path / "pumps") / "checkpoint-8" / "adapter_model.safetensors"
    weights = last.read_bytes()
    assert tuner.finetune(resume=True).metrics["steps"] == 8
    assert len(losses(tmp_path / "pumps")) == 8
    assert (tmp_path / "pumps" / "adapter_model.safetensors").read_bytes() == weights


def test_loss_that_is_lost_leaves_the_last_good_adapter(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_log = Watcher.on_log

    def lost(
        self: Watcher, args: Any, state: Any, control: Any, logs: Any = None, **o: Any
    ) -> None:
        if logs and "loss" in logs and state.global_step == 8:
            logs["loss"] = float("nan")
        on_log(self, args, state, control, logs=logs, **o)

    monkeypatch.setattr(Watcher, "on_log", lost)
    tuner = engine(tiny_phi3, train_set, tmp_path / "pumps")
    with pytest.raises(
        EngineError, match=r"stopped at step 8: .* as it was at step 6 is in '.*pumps-step-6'"
    ):
        tuner.finetune()
    assert [path.name for path in tmp_path.iterdir()] == ["pumps-step-6"]
    metrics = read_manifest(tmp_path / "pumps-step-6").metrics
    assert metrics["steps"] == 6
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]


def test_full_disk_ends_a_run_that_goes_on_when_there_is_room(
    whole: Path, tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    import torch

    tuner = engine(tiny_phi3, train_set, tmp_path / "pumps")
    save, written = torch.save, []

    def fill_up(value: Any, path: Any, **options: Any) -> None:
        written.append(path)
        if "checkpoint-6" in str(path):
            Path(path).write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file")
        save(value, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", fill_up)
        with pytest.raises(OSError, match=r"checkpoint of step 6 cannot be written .* Free some"):
            tuner.finetune()
    assert written
    assert not (tmp_path / "pumps").exists()
    tuner.finetune(resume=True)
    assert losses(tmp_path / "pumps") == pytest.approx(losses(whole), abs=1e-4)


def test_memory_that_runs_out_is_said_with_what_would_help(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl import SFTTrainer

    def run_out(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SFTTrainer, "training_step", run_out)
    with pytest.raises(
        EngineError, match=r"after step 0 with batch_size 4 .* batch_size=2 with gradient_acc"
    ):
        engine(tiny_phi3, train_set, tmp_path / "pumps").finetune()
    assert not (tmp_path / "pumps").exists()


def test_training_stops_when_held_out_rows_get_no_better(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    settings = {"max_steps": 60, "save_steps": 1, "learning_rate": 0.3, "lora_dropout": 0.0}
    tuner = engine(tiny_phi3, train_set, tmp_path / "pumps", early_stopping_patience=2, **settings)
    metrics = tuner.finetune().metrics
    log = json.loads((tmp_path / "pumps" / "training" / "log.json").read_text())
    held_out = {int(step): loss for step, loss in log["validation"].items() if step != "0"}
    assert len(held_out) < 60
    best = min(held_out.values())
    assert held_out[metrics["steps"]] == pytest.approx(best, rel=0.05)
    assert metrics["steps"] < max(held_out)


@pytest.mark.slow
def test_killed_process_goes_on_from_its_last_checkpoint(
    whole: Path, tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    rows, folder = train_set.save(tmp_path / "rows"), tmp_path / "pumps"
    program = (
        "import sys\nfrom phi3_industry import LoraFinetuneEngine\n"
        f"LoraFinetuneEngine({str(tiny_phi3)!r}, train_set={str(rows)!r}, max_steps=10,\n"
        f"    output_dir={str(folder)!r}, save_steps=3, lora_rank=4, batch_size=4,\n"
        "    learning_rate=1e-2, lora_dropout=0.1).finetune()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 300
    while not complete_checkpoints(run_folder_of(folder)):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    engine(tiny_phi3, rows, folder).finetune(resume=True)
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-4)
