"""The loss curve of a run: kept while it trains, written as CSV, JSON and PNG."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry._optional import import_optional

__all__ = ["CSV_NAME", "LOG_NAME", "PLOT_NAME", "LossCurve", "LossPoint"]

CSV_NAME = "loss.csv"
LOG_NAME = "log.json"
PLOT_NAME = "loss.png"

_SMOOTHED_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    """What was measured at one step.

    Attributes:
        step: Optimiser steps done.
        epoch: Passes over the training rows done.
        loss: Mean negative log likelihood, in nats, of the answers' tokens since the last point.
        learning_rate: The learning rate of the step.
        grad_norm: Length of the gradient before it was cut.
        seconds: Seconds since training began.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


@dataclass
class LossCurve:
    """The points of a run and the losses on held-out rows.

    Attributes:
        points: The points, by rising step.
        validation: Loss on the held-out rows by the step at which it was measured.
    """

    points: list[LossPoint] = field(default_factory=list)
    validation: dict[int, float] = field(default_factory=dict)

    def write_csv(self, path: str | PathLike[str]) -> None:
        """Write one line a point, with a header."""
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([item.name for item in fields(LossPoint)])
            writer.writerows(asdict(point).values() for point in self.points)

    def write_json(self, path: str | PathLike[str], *, run: Mapping[str, Any]) -> None:
        """Write the points with a description of the run."""
        log = {
            "run": dict(run),
            "validation": {str(step): loss for step, loss in self.validation.items()},
            "points": [asdict(point) for point in self.points],
        }
        text = json.dumps(log, indent=1, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read_json(cls, path: str | PathLike[str]) -> LossCurve:
        """Read a curve that :meth:`write_json` wrote."""
        log = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(
            points=[LossPoint(**point) for point in log["points"]],
            validation={int(step): loss for step, loss in log["validation"].items()},
        )

    def write_png(self, path: str | PathLike[str], *, title: str) -> None:
        """Draw the curve.

        Args:
            path: The image to write, 1,200 x 675 pixels.
            title: Line above the curve.

        Raises:
            MissingDependencyError: matplotlib is not installed.
            ValueError: There is no point to draw.
        """
        if not self.points:
            raise ValueError("The curve has no point; draw it after a training step.")
        purpose = "draw the loss curve"
        figures = import_optional("matplotlib.figure", purpose=purpose, extra="plots")
        figure = figures.Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
        axes = figure.subplots()
        steps = [point.step for point in self.points]
        losses = [point.loss for point in self.points]
        axes.plot(steps, losses, color="#9db8d9", linewidth=1, label="training rows")
        axes.plot(steps, smoothed(losses), color="#1f4e8c", linewidth=2, label="running mean")
        if self.validation:
            axes.plot(
                list(self.validation),
                list(self.validation.values()),
                color="#c2571a",
                linestyle="none",
                marker="D",
                markersize=7,
                label="held-out rows",
            )
        axes.set(title=title, xlabel="optimiser step", ylabel="loss on answer tokens (nats)")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, format="png")


def smoothed(values: Sequence[float]) -> list[float]:
    """Average each value with those before it, over a twentieth of the curve.

    Args:
        values: The values in order.

    Returns:
        As many values.
    """
    width = max(1, math.ceil(len(values) * _SMOOTHED_SHARE))
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    return means
