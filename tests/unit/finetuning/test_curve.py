"""The loss curve as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from phi3_industry.errors import MissingDependencyError
from phi3_industry.finetuning.curve import LossCurve, LossPoint, smoothed


def point(step: int, loss: float) -> LossPoint:
    return LossPoint(
        step=step, epoch=step / 10, loss=loss, learning_rate=1e-3, grad_norm=0.5, seconds=step / 2
    )


@pytest.fixture
def curve() -> LossCurve:
    return LossCurve(
        points=[point(step, 4.0 / step) for step in range(1, 31)], validation={0: 4.2, 30: 0.3}
    )


def test_csv_has_a_line_a_point(curve: LossCurve, tmp_path: Path) -> None:
    curve.write_csv(tmp_path / "loss.csv")
    with (tmp_path / "loss.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == list(range(1, 31))
    assert float(lines[3]["loss"]) == 1.0


def test_json_has_the_run_and_the_held_out_losses(curve: LossCurve, tmp_path: Path) -> None:
    curve.write_json(tmp_path / "log.json", run={"seed": 3})
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["run"] == {"seed": 3}
    assert log["validation"] == {"0": 4.2, "30": 0.3}
    assert log["points"][0]["loss"] == 4.0


def test_png_is_an_image_of_the_size_it_says(curve: LossCurve, tmp_path: Path) -> None:
    curve.write_png(tmp_path / "loss.png", title="Training pumps")
    data = (tmp_path / "loss.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 1200
    assert int.from_bytes(data[20:24], "big") == 675


def test_curve_without_a_point_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The curve has no point"):
        LossCurve().write_png(tmp_path / "loss.png", title="none")


def test_missing_matplotlib_names_the_extra(
    curve: LossCurve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'phi3-industry\[plots\]'"):
        curve.write_png(tmp_path / "loss.png", title="none")


def test_running_mean_is_that_of_the_last_twentieth() -> None:
    # 40 values: windows of 2
    values = [float(n) for n in range(40)]
    assert smoothed(values)[:3] == [0.0, 0.5, 1.5]
    assert smoothed([5.0]) == [5.0]
