"""Draw the learning curve of a run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

__all__ = ["draw_curve"]


def draw_curve(log: Path, target: Path) -> None:
    """Draw exact match and loss over tokens, with the stages' borders.

    Args:
        log: Log of the run, JSON Lines.
        target: PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    tokens = [entry["tokens"] / 1e6 for entry in entries]
    figure, axis = pyplot.subplots(figsize=(8, 4.5))
    for key in ("all", "answerable", "unanswerable"):
        shares = [100 * entry["held_out_last_stage"][key] for entry in entries]
        axis.plot(tokens, shares, label=f"held out, last stage, {key}")
    for earlier, later in pairwise(entries):
        if earlier["stage"] != later["stage"]:
            axis.axvline(later["tokens"] / 1e6, color="grey", linestyle=":")
    axis.set_xlabel("million tokens")
    axis.set_ylabel("whole answer exact, %")
    axis.set_ylim(0, 100)
    losses = axis.twinx()
    losses.plot(tokens, [entry["loss"] for entry in entries], color="black", alpha=0.4)
    losses.set_ylabel("training loss (black)")
    axis.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
