"""Packed against padded rows: real tokens trained on a second, and the same losses.

Each arm is the library's own fine-tuning of the same rows in the same order, by TRL; only what
stands between the rows differs. Arms take turns. A token is real when it is no padding.

    python benchmarks/packing.py examples/plant --rows 200 --batch-sizes 4 8 16
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from recipe_rows import load_recipe_rows

from phi3_industry import LoraFinetuneEngine
from phi3_industry.finetuning.examples import tokenize_rows
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.loading import load_base_model

_ARMS: dict[str, dict[str, Any]] = {
    "padded": {},
    "grouped by length": {"group_by_length": True},
    "packed": {"packing": True},
}


def main() -> None:
    """Measure each batch size and print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    train_set = load_recipe_rows(
        options.rows_from, model=options.model, limit=options.rows, seed=options.seed
    )
    lengths = _lengths(options.model, train_set)
    print(
        f"{len(lengths)} rows, {sum(lengths)} tokens, mean {sum(lengths) / len(lengths):.0f}, "
        f"longest {max(lengths)}; {options.model}, {options.threads} thread(s), {options.clock}"
    )
    for batch_size in options.batch_sizes:
        _compare(options, train_set, batch_size, tokens=sum(lengths))


def _compare(
    options: argparse.Namespace, train_set: TrainingSet, batch_size: int, *, tokens: int
) -> None:
    rates: dict[str, list[float]] = {name: [] for name in _ARMS}
    curves: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, settings in _ARMS.items():
            seconds, curves[name] = _train(options, train_set, batch_size, settings)
            rates[name].append(tokens / seconds)
    padded = rates["padded"]
    for name, found in rates.items():
        ratios = [rate / base for rate, base in zip(found, padded, strict=True)]
        line = f"batch {batch_size:>3}  {name:<18} {median(found):>8.0f} tokens/s"
        print(f"{line}  {median(ratios):.2f} x [{min(ratios):.2f}..{max(ratios):.2f}]", flush=True)
    pairs = zip(curves["padded"], curves["packed"], strict=True)
    furthest = max(abs(one - other) for one, other in pairs)
    print(
        f"batch {batch_size:>3}  losses of packed and padded steps differ by up to {furthest:.1e}"
    )


def _train(
    options: argparse.Namespace, train_set: TrainingSet, batch_size: int, settings: dict[str, Any]
) -> tuple[float, list[float]]:
    """Train one epoch; give the seconds inside the trainer and the loss of each step."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    taken = []
    train = transformers.Trainer.train

    def timed(trainer: Any, *args: Any, **given: Any) -> Any:
        began = clock()
        try:
            return train(trainer, *args, **given)
        finally:
            taken.append(clock() - began)

    transformers.Trainer.train = timed
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "adapter"
            LoraFinetuneEngine(
                options.model,
                train_set=train_set,
                output_dir=folder,
                num_epochs=1,
                batch_size=batch_size,
                gradient_accumulation_steps=1,
                save_steps=10**6,
                seed=options.seed,
                show_progress=False,
                **settings,
            ).finetune()
            log = json.loads((folder / "training" / "log.json").read_text(encoding="utf-8"))
    finally:
        transformers.Trainer.train = train
    return taken[0], [point["loss"] for point in log["points"]]


def _lengths(model: str, train_set: TrainingSet) -> list[int]:
    loaded = load_base_model(model)
    rows = tokenize_rows(
        train_set.split("train"), loaded.chat_format, max_length=loaded.checkpoint.context_window
    )
    return [len(row.input_ids) for row in rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("rows_from", type=Path, help="a training set, or an example's folder")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rows", type=int, help="train on this many rows; all")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["cpu", "wall"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
