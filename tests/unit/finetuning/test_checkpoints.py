"""Which checkpoint of an interrupted run is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from phi3_industry.errors import ConfigurationError
from phi3_industry.finetuning.checkpoints import (
    complete_checkpoints,
    mark_complete,
    open_run,
    run_folder_of,
)

IDENTITY = {"rows": "abc", "learning_rate": 2e-3, "target_modules": None}


def write_checkpoint(run: Path, step: int, *, complete: bool = True) -> Path:
    checkpoint = run / f"checkpoint-{step}"
    (checkpoint / "inside").mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(bytes(range(200)))
    (checkpoint / "inside" / "optimizer.pt").write_bytes(b"moments")
    if complete:
        mark_complete(checkpoint)
    return checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = run_folder_of(tmp_path / "pumps")
    assert open_run(folder, IDENTITY, resume=False) is None
    return folder


def test_run_folder_is_hidden_beside_the_adapter(tmp_path: Path) -> None:
    assert run_folder_of(tmp_path / "pumps") == tmp_path / ".pumps.training"


def test_run_goes_on_from_its_last_complete_checkpoint(run: Path) -> None:
    for step in (9, 18, 100):
        write_checkpoint(run, step)
    write_checkpoint(run, 109, complete=False)
    assert open_run(run, IDENTITY, resume=True) == run / "checkpoint-100"


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "marker"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(run: Path, damage: str) -> None:
    write_checkpoint(run, 9)
    broken = write_checkpoint(run, 18)
    weights = broken / "adapter_model.safetensors"
    content = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif damage == "truncate":
        weights.write_bytes(content[:50])
    elif damage == "delete":
        (broken / "inside" / "optimizer.pt").unlink()
    else:
        (broken / "complete.json").write_text('{"adapter_model')
    assert open_run(run, IDENTITY, resume=True) == run / "checkpoint-9"


def test_without_a_complete_checkpoint_a_run_begins_anew(run: Path) -> None:
    left = write_checkpoint(run, 9, complete=False)
    assert open_run(run, IDENTITY, resume=True) is None
    assert not left.exists()


def test_unfinished_run_is_not_thrown_away_unasked(run: Path) -> None:
    write_checkpoint(run, 9)
    with pytest.raises(FileExistsError, match=r"after step 9 .* finetune\(resume=True\)"):
        open_run(run, IDENTITY, resume=False)
    assert complete_checkpoints(run)


@pytest.mark.parametrize(("name", "value"), [("rows", "other"), ("learning_rate", 1e-3)])
def test_another_run_is_not_taken_for_this_one(run: Path, name: str, value: object) -> None:
    write_checkpoint(run, 9)
    message = re.escape(f"{name} was {IDENTITY[name]!r} and is {value!r}")
    with pytest.raises(ConfigurationError, match=message):
        open_run(run, {**IDENTITY, name: value}, resume=True)
    assert complete_checkpoints(run)


def test_process_that_does_not_write_changes_nothing(run: Path) -> None:
    left = write_checkpoint(run, 9, complete=False)
    assert open_run(run, IDENTITY, resume=True, writes=False) is None
    assert left.exists()
