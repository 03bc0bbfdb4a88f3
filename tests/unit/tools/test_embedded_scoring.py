from __future__ import annotations

from pathlib import Path

import pytest
from tools.train_embedded_model.conversations import Turn
from tools.train_embedded_model.scoring import (
    Reader,
    Score,
    ScoreRow,
    format_scores,
    real_cells_row,
)


def answerable(value: str, marker: int = 2) -> Turn:
    return Turn("?", f"[{marker}] {value}", marker, value, "measured")


UNANSWERABLE = Turn("?", "[0] I don't know.", 0, "I don't know.", "measured")


def test_shares_are_those_counted_by_hand() -> None:
    score = Score()
    score.add(answerable("38.2 bar"), "[2] 38.2 bar")
    score.add(answerable("38.2 bar"), "[1] 38.2 bar")
    score.add(answerable("38.2 bar"), "[2] 38 bar")
    score.add(answerable("38.2 bar"), "[0] I don't know.")
    score.add(UNANSWERABLE, "[0] I don't know.")
    score.add(UNANSWERABLE, "[1] 4 bar")
    shares = score.shares()
    assert shares["answerable"] == 4
    assert shares["value_right"] == 50.0
    assert shares["citation_right_of_right_values"] == 50.0
    assert shares["value_and_citation_right"] == 25.0
    assert shares["over_refusal"] == 25.0
    assert shares["unanswerable"] == 2
    assert shares["abstained"] == 50.0


@pytest.mark.parametrize("answer", ["38.2 bar", "[2]38.2 bar", "[2] 38.2 bar.", "[2] 38.2", ""])
def test_an_answer_in_another_form_is_not_right(answer: str) -> None:
    score = Score()
    score.add(answerable("38.2 bar"), answer)
    assert score.value == 0


def test_shares_of_nothing_are_left_open() -> None:
    assert Score().shares()["abstained"] is None
    table = format_scores([ScoreRow("nothing", Score().shares())])
    assert table.splitlines()[2].startswith("| nothing | 0 | – | – |")


def test_cells_of_real_tables_are_asked_beside_other_rows(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "aws" / "tables"
    folder.mkdir(parents=True)
    (folder / "limits_1.csv").write_text(
        "Resource,Default\nRules per listener,100\nTargets per group,500\n", encoding="utf-8"
    )
    failures: list[dict[str, object]] = []
    reader = Reader(tiny_checkpoint, max_new_tokens=4)
    row = real_cells_row(reader, folder, questions=3, passages=5, seed=1, failures=failures)
    assert row.shares["answerable"] == 3
    assert row.name.startswith("aws cells")
    assert len(failures) == 3
    passages = failures[0]["passages"]
    assert isinstance(passages, tuple)
    assert sorted(passages) == [
        "limits 1\nResource: Rules per listener; Default: 100",
        "limits 1\nResource: Targets per group; Default: 500",
    ]
