"""Before and after, by slice."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi3_industry.finetuning.examples import TokenizedRow, tokenize_rows
from phi3_industry.finetuning.slice_scores import BeforeAndAfter, SliceScore, score_slices
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.loading import load_base_model


def one(rows: int, exact: int, loss: float) -> dict[str, SliceScore]:
    return {"grounded": SliceScore(rows=rows, tokens=10 * rows, loss=loss, exact=exact)}


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (one(10, 2, 1.0), one(10, 5, 0.5), "better"),
        (one(10, 2, 1.0), one(10, 2, 0.5), "better"),
        (one(10, 2, 1.0), one(10, 2, 1.0), "unclear"),
        (one(10, 2, 1.0), one(10, 2, 1.5), "worse"),
        (one(10, 2, 1.0), one(10, 1, 1.5), "worse"),
        (one(10, 2, 1.0), one(10, 0, float("nan")), "worse"),
        (one(10, 2, 1.0), one(10, 5, 1.5), "unclear"),
        (one(10, 2, 1.0), one(10, 1, 0.5), "unclear"),
        ({}, {}, "not measured"),
    ],
)
def test_verdict_weighs_exact_answers_and_loss(
    before: dict[str, SliceScore], after: dict[str, SliceScore], verdict: str
) -> None:
    assert BeforeAndAfter(before=before, after=after).verdict == verdict


def test_losses_of_slices_are_weighed_by_their_tokens() -> None:
    scores = {
        "grounded": SliceScore(rows=2, tokens=30, loss=1.0, exact=1),
        "replay": SliceScore(rows=1, tokens=10, loss=5.0, exact=1),
    }
    assert BeforeAndAfter(before=scores, after=scores).loss == (2.0, 2.0)


def test_table_marks_what_was_lost_and_what_was_forgotten() -> None:
    scores = {
        "grounded": SliceScore(rows=4, tokens=30, loss=1.0, exact=1),
        "replay": SliceScore(rows=4, tokens=10, loss=0.1, exact=4),
    }
    after = {
        "grounded": SliceScore(rows=4, tokens=30, loss=0.2, exact=4),
        "replay": SliceScore(rows=4, tokens=10, loss=0.5, exact=1),
    }
    table = BeforeAndAfter(before=scores, after=after).table()
    assert "25% -> 100%" in table
    assert "worse by 3" in table
    assert "forgetting: 3 of 4 plain answers lost" in table


def test_table_names_the_slices_that_are_too_small_to_tell() -> None:
    def table(**rows: int) -> str:
        scores = {name: SliceScore(rows=n, tokens=n, loss=1.0, exact=0) for name, n in rows.items()}
        return BeforeAndAfter(before=scores, after=scores).table()

    said = "fewer than 20 rows, a share says little: "
    assert table(grounded=49, conflict=5, hostile=19).splitlines()[-1] == f"{said}conflict, hostile"
    assert "says little" not in table(grounded=49, missing=20)


def test_exact_is_what_greedy_generation_writes(tiny_phi3: Path, train_set: TrainingSet) -> None:
    import torch

    loaded = load_base_model(str(tiny_phi3))
    prompt = train_set.rows[0].prompt
    asked = loaded.chat_format.encode_messages(prompt)
    with torch.inference_mode():
        written = loaded.model.generate(
            torch.tensor([asked]), max_new_tokens=6, do_sample=False, eos_token_id=-1
        )[0].tolist()

    def row(ids: list[int]) -> TokenizedRow:
        return TokenizedRow(input_ids=ids, labels=[-100] * len(asked) + ids[len(asked) :])

    other = [*written[:-1], (written[-1] + 1) % 100]
    scores = score_slices(loaded.model, [row(written), row(other)], ["as is", "changed"])
    assert [score.exact for score in scores.values()] == [1, 0]
    assert scores["as is"].tokens == 6


def test_loss_is_that_of_the_model_itself(tiny_phi3: Path, train_set: TrainingSet) -> None:
    import torch

    loaded = load_base_model(str(tiny_phi3))
    (row,) = tokenize_rows(train_set.rows[:1], loaded.chat_format, max_length=512)
    with torch.inference_mode():
        expected = loaded.model(
            input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])
        ).loss
    found = score_slices(loaded.model, [row], ["grounded"])["grounded"]
    assert found.loss == pytest.approx(float(expected), abs=1e-5)
