"""What is seen of a run while it trains, and what ends it early.

This module imports transformers; it is imported when training begins.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from phi3_industry.errors import MissingDependencyError
from phi3_industry.finetuning.checkpoints import mark_complete
from phi3_industry.finetuning.curve import CSV_NAME, PLOT_NAME, LossCurve, LossPoint
from phi3_industry.finetuning.processes import wait_for_the_others

__all__ = ["CURVE_NAME", "SPIKE_STEPS", "Watcher", "diverges"]

CURVE_NAME = "curve.json"
"""File of a checkpoint that holds the curve up to it."""

_STEPS_BEFORE_ESTIMATE = 3
_SECONDS_BETWEEN_WRITES = 5.0
_SECONDS_BETWEEN_PLOTS = 60.0
SPIKE_STEPS = 5
"""Steps in a row with a loss above where it began that end a run."""


def diverges(losses: list[float]) -> bool:
    """Tell whether a run has lost its way.

    Args:
        losses: The losses so far, in nats.

    Returns:
        Whether the last one is no number, or each of the last five lies above what the first five
        had on average by half and by a nat. A single high loss is no sign: it can be a hard row.
    """
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * SPIKE_STEPS:
        return False
    beginning = sum(losses[:SPIKE_STEPS]) / SPIKE_STEPS
    return min(losses[-SPIKE_STEPS:]) > max(1.5 * beginning, beginning + 1.0)


class Watcher(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Keeps the curve, shows progress, completes checkpoints, and stops a run that diverges.

    Args:
        curve: The curve to continue.
        folder: The folder of the run; the curve's CSV and PNG grow in it.
        say: Takes lines for the user.
        show_progress: Whether to show a progress bar.
        leads: Whether this process writes; of several one does.
    """

    def __init__(
        self,
        curve: LossCurve,
        folder: Path,
        *,
        say: Callable[[str], None],
        show_progress: bool,
        leads: bool,
    ) -> None:
        self.failed_at: int | None = None
        self._curve = curve
        self._folder = folder
        self._say = say
        self._show_progress = show_progress
        self._leads = leads
        self._bar: Any = None
        self._first_step = 0
        self._started = self._before = 0.0
        self._written = self._drawn = -math.inf

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Open the progress bar."""
        self._first_step = state.global_step
        self._before = self._curve.points[-1].seconds if self._curve.points else 0.0
        self._started = time.monotonic()
        if self._show_progress:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="Training",
                unit="step",
                file=sys.stderr,
            )

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Move the progress bar, and say once how long the run will take."""
        if self._bar is not None:
            self._bar.update(1)
        done, left = state.global_step - self._first_step, state.max_steps - state.global_step
        if done == _STEPS_BEFORE_ESTIMATE or (done < _STEPS_BEFORE_ESTIMATE and not left):
            each = (time.monotonic() - self._started) / done
            self._say(
                f"Estimated from {done} steps of {each:.2f} s: about {each * (done + left):.0f} s "
                f"for {done + left} steps"
            )

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Take in one point of the curve."""
        if logs and "eval_loss" in logs:
            self._curve.validation[state.global_step] = float(logs["eval_loss"])
        if not logs or "loss" not in logs:
            return
        point = LossPoint(
            step=state.global_step,
            epoch=float(state.epoch or 0),
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            grad_norm=float(logs.get("grad_norm", 0.0)),
            seconds=self._before + time.monotonic() - self._started,
        )
        losses = [earlier.loss for earlier in self._curve.points]
        if not math.isfinite(point.grad_norm) or diverges([*losses, point.loss]):
            self.failed_at = self.failed_at or point.step
            control.should_training_stop = True
            control.should_save = False
        if math.isfinite(point.loss):
            self._curve.points.append(point)
        if self._leads and point.seconds - self._written > _SECONDS_BETWEEN_WRITES:
            self._curve.write_csv(self._folder / CSV_NAME)
            self._written = point.seconds
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{point.loss:.3f}")

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Write the curve into the checkpoint and declare it complete."""
        wait_for_the_others()  # each process adds its random state to the checkpoint
        if not self._leads:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._curve.write_json(checkpoint / CURVE_NAME, run={})
        mark_complete(checkpoint)
        if time.monotonic() - max(self._drawn, self._started) > _SECONDS_BETWEEN_PLOTS:
            self._draw()

    def close(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        try:
            self._curve.write_png(self._folder / PLOT_NAME, title="Training, so far")
        except MissingDependencyError:
            self._drawn = math.inf  # said at the end of the run
