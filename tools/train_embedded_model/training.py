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
from .encoding import FIRST_TOKEN_WEIGHT, MARKER_WEIGHT, Encoded, Encoder
from .network import Batch, Heads, collate, forward
from .optimisation import WeightAverage, build_optimisers, learning_rate_factor
from .real_text import RealText
from .stages import STAGES
from .stream import BatchStream, StreamState, held_out_set
from .tables import Table

__all__ = ["TrainingRun", "TrainingSettings"]

_POINTING_LAYERS = 2
_POINTING_HEADS = 2
_POINTING_WEIGHT = 0.5


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
    learning_rate: float = 3e-3
    tokens: int = 4096
    seed: int = 0
    stage: int = 0
    device: str = "cpu"
    warm_up: int = 60
    decay: float = 0.35
    evaluate_every: int = 100
    evaluation_size: int = 40


class TrainingRun:
    """A run, fresh or resumed from its output folder.

    Args:
        settings: Settings; a resumed run takes its own progress from the folder.
        tables: Real tables to mix in.
        text: Real text to mix in.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        tables: Sequence[Table] = (),
        text: RealText | None = None,
    ) -> None:
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
            text=text,
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
        self._set_learning_rate()
        batch = collate(self.stream.next_batch(), device=self.settings.device, dtype=torch.bfloat16)
        logits, heads = forward(
            self.model, batch, dtype=torch.bfloat16, layers_of_heads=_POINTING_LAYERS
        )
        losses = functional.cross_entropy(logits, batch.targets, reduction="none")
        loss = (losses * batch.weights).sum() / batch.weights.sum()
        pointing = _pointing_loss(batch, heads)
        (loss + _POINTING_WEIGHT * pointing).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1
        self.tokens_seen += batch.ids.numel()
        right = (logits.argmax(-1) == batch.targets).float()
        return {
            "loss": loss.item(),
            "pointing": pointing.item(),
            "passage": right[batch.weights == MARKER_WEIGHT].mean().item(),
            "first_token": right[batch.weights == FIRST_TOKEN_WEIGHT].mean().item(),
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
                stage: evaluate(self.model, self._tests[stage], self.settings.device)
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


def _pointing_loss(batch: Batch, heads: Sequence[Heads]) -> torch.Tensor:
    """Cross entropy of some heads' attention against the places that hold what is copied.

    The heads of the last layers that begin by matching previous tokens are told where the value
    stands; finding that out from the answers alone takes several times as many of them.
    """
    losses = []
    by_context: dict[tuple[int, int], list[tuple[int, tuple[int, ...]]]] = {}
    for place, context, held in batch.pointers:
        by_context.setdefault(context, []).append((place, held))
    for (start, stop), pointers in by_context.items():
        places = torch.tensor([place for place, _ in pointers], device=batch.ids.device)
        wanted = torch.full((len(pointers), stop - start), float("-inf"), device=batch.ids.device)
        for row, (_, held) in enumerate(pointers):
            wanted[row, [at - start for at in held]] = 0
        for layer in heads:
            queries = layer.queries[:_POINTING_HEADS, places].float()
            keys = layer.keys[:_POINTING_HEADS, start:stop].float()
            scores = torch.log_softmax(queries @ keys.transpose(1, 2), dim=-1)
            losses.append(-torch.logsumexp(scores + wanted, dim=-1).flatten())
    return torch.cat(losses).mean()


@torch.no_grad()
def evaluate(
    model: Phi3ForCausalLM, items: Sequence[Encoded], device: str, *, batch_size: int = 8
) -> dict[str, float]:
    """Share of answers whose every token is the most likely one after the right beginning.

    Returns:
        Shares for ``"all"`` answers, ``"answerable"``, ``"unanswerable"``, and each shape.
    """
    counts: dict[str, list[int]] = {}
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        batch = collate(part, device=device, dtype=torch.bfloat16)
        logits, _ = forward(model, batch, dtype=torch.bfloat16)
        right = (logits.argmax(-1) == batch.targets).tolist()
        answers = iter(batch.answers)
        for item in part:
            for branch in item.branches:
                exact = all(right[slice(*next(answers))])
                for key in ("all", item.shape, "answerable" if branch.marker else "unanswerable"):
                    count = counts.setdefault(key, [0, 0])
                    count[0] += exact
                    count[1] += 1
    return {key: round(hits / total, 4) for key, (hits, total) in sorted(counts.items())}
