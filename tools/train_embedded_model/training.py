"""The training run: one loop that can be killed at any moment and goes on where it stood."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from transformers import AutoTokenizer, Phi3ForCausalLM

from .checkpoint import export_checkpoint
from .curve import draw_curve
from .encoding import BatchStream, Encoded, Encoder, StreamState, collate, held_out_set
from .optimisation import WeightAverage, build_optimisers, learning_rate_factor
from .stages import STAGES
from .tables import Table

__all__ = ["TrainingRun", "TrainingSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a run.

    Attributes:
        start: Checkpoint folder that the run starts from.
        output: Folder of the run: state, log, curve, exported checkpoint.
        minutes: Time for training, over all resumed parts.
        max_steps: Upper bound on steps; 0 for none.
        learning_rate: Peak learning rate.
        tokens: Tokens of a step, padding included.
        seed: Seed of the data.
        stage: First stage.
        device: ``"cpu"`` or ``"cuda"``.
        warm_up: Steps of warm-up.
        decay: Share of the run over which the learning rate falls.
        evaluate_every: Steps between evaluations.
        evaluation_size: Conversations of an evaluation.
    """

    start: Path
    output: Path
    minutes: float
    max_steps: int = 0
    learning_rate: float = 2e-3
    tokens: int = 4096
    seed: int = 0
    stage: int = 0
    device: str = "cpu"
    warm_up: int = 60
    decay: float = 0.35
    evaluate_every: int = 100
    evaluation_size: int = 50


class TrainingRun:
    """A run, fresh or resumed from its output folder.

    Args:
        settings: Settings; a resumed run takes its own progress from the folder.
        tables: Real tables to mix in.
    """

    def __init__(self, settings: TrainingSettings, *, tables: Sequence[Table] = ()) -> None:
        self.settings = settings
        self.tokenizer = AutoTokenizer.from_pretrained(settings.start)
        self.model = Phi3ForCausalLM.from_pretrained(settings.start, dtype=torch.float32)
        self.model.to(settings.device).train()
        self.model.config.use_cache = False
        self.encoder = Encoder(self.tokenizer)
        self.optimisers = build_optimisers(self.model, learning_rate=settings.learning_rate)
        self.average = WeightAverage(self.model)
        self.step = 0
        self.tokens_seen = 0
        self.seconds = 0.0
        self.stage = settings.stage
        state = self._restore()
        self.stream = BatchStream(
            self.encoder,
            seed=settings.seed,
            tokens=settings.tokens,
            state=state or StreamState(stage=settings.stage),
            tables=tables,
        )
        self.stream.promote(self.stage)
        self._tests = {
            stage: held_out_set(
                self.encoder, stage=stage, conversations=settings.evaluation_size, seed=99 + stage
            )
            for stage in range(len(STAGES))
        }

    @property
    def progress(self) -> float:
        """Share of the run that is over, 0 to 1."""
        by_time = self.seconds / (60 * self.settings.minutes)
        by_steps = self.step / self.settings.max_steps if self.settings.max_steps else 0.0
        return min(1.0, max(by_time, by_steps))

    def run(self) -> None:
        """Train to the end, then export the checkpoint and draw the curve."""
        self.settings.output.mkdir(parents=True, exist_ok=True)
        sums: list[dict[str, float]] = []
        while self.progress < 1:
            began = time.perf_counter()
            sums.append(self.train_step())
            self.seconds += time.perf_counter() - began
            if self.step % self.settings.evaluate_every == 0:
                self._report(sums)
                sums = []
                self.save()
                self.export()
        self.save()
        self.export()

    def train_step(self) -> dict[str, float]:
        """Take one step.

        Returns:
            Loss, and accuracies of passage numbers and of first value tokens.
        """
        batch = self.stream.next_batch()
        self._set_learning_rate()
        ids, weights = (t.to(self.settings.device) for t in collate(batch, pad=self.encoder.pad))
        targets, target_weights = ids[:, 1:], weights[:, 1:]
        with torch.autocast(self.settings.device, torch.bfloat16):
            hidden = self.model.model(input_ids=ids).last_hidden_state[:, :-1]
            chosen = target_weights > 0
            logits = self.model.lm_head(hidden[chosen]).float()
        losses = functional.cross_entropy(logits, targets[chosen], reduction="none")
        kept = target_weights[chosen]
        loss = (losses * kept).sum() / kept.sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1
        self.tokens_seen += ids.numel()
        right = (logits.argmax(-1) == targets[chosen]).float()
        return {
            "loss": loss.item(),
            "passage": right[kept == 3.0].mean().item(),
            "first_token": right[kept == 2.5].mean().item(),
        }

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(
            self.step, self.progress, warm_up=self.settings.warm_up, decay=self.settings.decay
        )
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.settings.learning_rate * factor

    def _report(self, sums: list[dict[str, float]]) -> None:
        """Evaluate the averaged weights, log, and go on if this stage is learned."""
        means = {
            name: sum(values) / len(values)
            for name in sums[0]
            if (values := [entry[name] for entry in sums if entry[name] == entry[name]])
        }
        last = len(STAGES) - 1
        with self.average.applied_to(self.model):
            exact = {
                stage: evaluate(self.model, self._tests[stage], self.encoder, self.settings.device)
                for stage in {self.stage, last}
            }
        entry = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 1),
            "tokens": self.tokens_seen,
            "stage": self.stage,
            **{name: round(value, 4) for name, value in means.items()},
            "held_out": exact[self.stage],
            "held_out_last_stage": exact[last],
        }
        with (self.settings.output / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)
        draw_curve(self.settings.output / "log.jsonl", self.settings.output / "curve.png")
        if exact[self.stage]["all"] >= STAGES[self.stage].promote_at:
            self.stage += 1
            self.stream.promote(self.stage)

    def save(self) -> None:
        """Write everything that a resumed run needs, as one atomic replacement."""
        state = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "seconds": self.seconds,
            "stage": self.stage,
            "stream": asdict(self.stream.state),
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "average": self.average.state(),
        }
        path = self.settings.output / "state.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def _restore(self) -> StreamState | None:
        path = self.settings.output / "state.pt"
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(
            path, map_location=self.settings.device, weights_only=True
        )
        self.step, self.tokens_seen = state["step"], state["tokens_seen"]
        self.seconds, self.stage = state["seconds"], state["stage"]
        self.model.load_state_dict(state["model"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.average.restore(state["average"])
        return StreamState(**state["stream"])

    def export(self) -> None:
        """Write the averaged weights as a checkpoint that transformers reads."""
        export_checkpoint(
            self.model,
            self.tokenizer,
            self.settings.output / "checkpoint",
            weights=self.average.values,
        )


@torch.no_grad()
def evaluate(
    model: Phi3ForCausalLM, items: Sequence[Encoded], encoder: Encoder, device: str
) -> dict[str, float]:
    """Share of answers whose every token is the most likely one after the right beginning.

    Returns:
        Shares for ``"all"`` answers, ``"first"`` turns, ``"answerable"``, ``"unanswerable"``,
        and each shape.
    """
    model.eval()
    counts: dict[str, list[int]] = {}
    ordered = sorted(items, key=lambda item: len(item.ids))
    for start in range(0, len(ordered), 8):
        batch = ordered[start : start + 8]
        ids, _ = collate(batch, pad=encoder.pad)
        ids = ids.to(device)
        with torch.autocast(device, torch.bfloat16):
            hidden = model.model(input_ids=ids).last_hidden_state
        for row, item in enumerate(batch):
            for turn, (begin, stop, marker) in enumerate(item.answers):
                logits = model.lm_head(hidden[row, begin - 1 : stop - 1].float())
                right = bool((logits.argmax(-1) == ids[row, begin:stop]).all())
                keys = ["all", item.shape, "answerable" if marker else "unanswerable"]
                for key in (*keys, "first") if turn == 0 else keys:
                    count = counts.setdefault(key, [0, 0])
                    count[0] += right
                    count[1] += 1
    model.train()
    return {key: round(hits / total, 4) for key, (hits, total) in sorted(counts.items())}
