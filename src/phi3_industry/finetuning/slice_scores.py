"""What a model makes of held-out rows, slice by slice, and whether an adapter made it better.

A row counts as exact when every token of the wanted answer is the model's first choice after the
tokens before it: then greedy generation writes that answer to the letter. So one forward pass a
row says what generation would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phi3_industry.finetuning.examples import TokenizedRow

__all__ = ["BeforeAndAfter", "SliceScore", "score_slices"]

_FEW_ROWS = 20
"""Of 20 rows a share of one half is uncertain by 22 points (95 % interval), of fewer by more."""

Verdict = Literal["better", "worse", "unclear", "not measured"]
"""``"better"`` and ``"worse"`` need exact answers and loss to agree; one may stand still."""


@dataclass(frozen=True, kw_only=True)
class SliceScore:
    """What a model makes of the rows of one slice.

    Attributes:
        rows: How many there are.
        tokens: Tokens of their answers.
        loss: Mean negative log likelihood of these tokens, in nats.
        exact: Rows whose answer greedy generation would write to the letter.
    """

    rows: int
    tokens: int
    loss: float
    exact: int


def score_slices(
    model: Any, rows: Sequence[TokenizedRow], slices: Sequence[str]
) -> dict[str, SliceScore]:
    """Score a model on rows, one forward pass each, without cache and without padding.

    Args:
        model: A causal language model, with or without an adapter.
        rows: The rows.
        slices: The slice of each.

    Returns:
        A score for each slice, in the order in which slices first appear.
    """
    scored: dict[str, list[tuple[int, float, bool]]] = defaultdict(list)
    was_training = model.training
    model.eval()
    try:
        for row, name in zip(rows, slices, strict=True):
            scored[name].append((row.trained, *_score(model, row)))
    finally:
        model.train(was_training)
    return {name: _sum(found) for name, found in scored.items()}


def _score(model: Any, row: TokenizedRow) -> tuple[float, bool]:
    """Give the summed loss of a row's answer and whether every token of it is the first choice."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([row.input_ids], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=row.trained + 1).logits
        scores = logits[0, :-1].float()  # (trained, vocab_size)
        wanted = ids[0, -row.trained :]
        loss = torch.nn.functional.cross_entropy(scores, wanted, reduction="sum")
        return float(loss), bool((scores.argmax(-1) == wanted).all())


def _sum(found: Sequence[tuple[int, float, bool]]) -> SliceScore:
    tokens = sum(count for count, _, _ in found)
    return SliceScore(
        rows=len(found),
        tokens=tokens,
        loss=sum(loss for _, loss, _ in found) / tokens,
        exact=sum(exact for _, _, exact in found),
    )


@dataclass(frozen=True, kw_only=True)
class BeforeAndAfter:
    """Scores of held-out rows without the adapter and with it.

    Attributes:
        before: By slice, the base model.
        after: By slice, with the adapter.
    """

    before: Mapping[str, SliceScore]
    after: Mapping[str, SliceScore]

    @property
    def verdict(self) -> Verdict:
        """Whether the adapter makes the model better on all held-out rows together."""
        if not self.before:
            return "not measured"
        before, after = _together(self.before), _together(self.after)
        gained, lowered = after.exact - before.exact, before.loss - after.loss
        if gained >= 0 and lowered >= 0 and (gained or lowered):
            return "better"
        if gained <= 0 and not lowered >= 0:  # a loss that is no number is worse
            return "worse"
        return "unclear"

    @property
    def loss(self) -> tuple[float, float] | None:
        """Loss of all answer tokens before and after; ``None`` without held-out rows."""
        if not self.before:
            return None
        return _together(self.before).loss, _together(self.after).loss

    def table(self) -> str:
        """Write the scores as a table; what was lost is marked, and slices too small to tell."""
        lines = [f"{'held-out rows':<16} {'rows':>5}  {'exact answers':>15}  {'loss':>15}"]
        named = [(name, self.before[name], self.after[name]) for name in self.before]
        if len(named) > 1:
            named.append(("all", _together(self.before), _together(self.after)))
        for name, before, after in named:
            exact = f"{before.exact / before.rows:.0%} -> {after.exact / after.rows:.0%}"
            loss = f"{before.loss:.3f} -> {after.loss:.3f}"
            mark = f"  worse by {before.exact - after.exact}" if after.exact < before.exact else ""
            lines.append(f"{name:<16} {before.rows:>5}  {exact:>15}  {loss:>15}{mark}")
        small = [name for name, score in self.before.items() if score.rows < _FEW_ROWS]
        if small:
            lines.append(f"fewer than {_FEW_ROWS} rows, a share says little: {', '.join(small)}")
        if "replay" in self.before:
            lost = self.before["replay"].exact - self.after["replay"].exact
            lines.append(
                f"forgetting: {max(lost, 0)} of {self.before['replay'].rows} plain answers lost"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Give the scores as JSON values."""
        return {
            "verdict": self.verdict,
            "before": {name: asdict(score) for name, score in self.before.items()},
            "after": {name: asdict(score) for name, score in self.after.items()},
        }


def _together(scores: Mapping[str, SliceScore]) -> SliceScore:
    tokens = sum(score.tokens for score in scores.values())
    return SliceScore(
        rows=sum(score.rows for score in scores.values()),
        tokens=tokens,
        loss=sum(score.loss * score.tokens for score in scores.values()) / tokens,
        exact=sum(score.exact for score in scores.values()),
    )
