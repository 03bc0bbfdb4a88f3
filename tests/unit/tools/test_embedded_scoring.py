from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tools.train_embedded_model.adapting import HOUSES, Adaptation, measure_adaptation
from tools.train_embedded_model.card import Measured, write_card
from tools.train_embedded_model.conversations import Turn
from tools.train_embedded_model.scoring import (
    Reader,
    Score,
    ScoreRow,
    format_scores,
    held_out_rows,
    real_cells_row,
    real_spans_row,
)


def answerable(value: str, marker: int = 2) -> Turn:
    return Turn("?", f"[{marker}] {value}", marker, value, "measured")


FEW = ("all shapes, 1 passage", "table rows, 3 passages")
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


def test_the_shipped_checkpoint_answers_what_training_never_held(embedded_folder: Path) -> None:
    """A floor far below the card's scores: a broken file or prompt answers next to nothing."""
    rows = list(held_out_rows(Reader(embedded_folder), answerable=15, seed=1, names=FEW))
    assert [row.name for row in rows] == list(FEW)
    for row in rows:
        value, cited = row.shares["value_right"], row.shares["citation_right_of_right_values"]
        assert value is not None
        assert cited is not None
        assert value >= 45
        assert cited >= 80


def test_the_card_says_what_was_measured(embedded_folder: Path, tmp_path: Path) -> None:
    score = Score()
    score.add(answerable("38.2 bar"), "[2] 38.2 bar")
    record = {
        "parameters": 4_819_712,
        "questions": 1,
        "milliseconds": 41.5,
        "threads": 1,
        "rows": [{"name": "all shapes, 3 passages", "shares": score.shares()}],
    }
    (tmp_path / "scores.json").write_text(json.dumps(record), encoding="utf-8")
    shares = {"all": 0.5, "answerable": 0.25, "unanswerable": 0.75}
    entry = {"step": 7, "tokens": 3_400_000, "minutes": 9.0, "stage": 2}
    line = json.dumps({**entry, "held_out_last_stage": shares})
    (tmp_path / "log.jsonl").write_text(line + "\n", encoding="utf-8")
    later = json.dumps({**entry, "step": 5, "held_out_last_stage": shares})
    (tmp_path / "later.jsonl").write_text(later + "\n", encoding="utf-8")
    adapted = Adaptation(
        house="codes",
        method="lora",
        seed=0,
        seconds=77.5,
        form=97.0,
        both=88.0,
        plain_before=90.0,
        plain_after=89.0,
        merged_equal=100.0,
    )
    (tmp_path / "adapted.jsonl").write_text(json.dumps(asdict(adapted)) + "\n", encoding="utf-8")
    measured = Measured(
        logs=[tmp_path / "log.jsonl", tmp_path / "later.jsonl"],
        scores=tmp_path / "scores.json",
        quantised={"NF4": tmp_path / "scores.json"},
        adapted=tmp_path / "adapted.jsonl",
    )
    write_card(
        embedded_folder,
        measured,
        seeds=[3, 4],
        hardware="one core",
        data="No real text is among them.",
        target=tmp_path / "README.md",
    )
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "4,819,712" in card
    assert "41.5 ms" in card
    assert "| all shapes, 3 passages | 1 | 100.0 | 100.0 | 100.0 | – | 0.0 | 0 | – |" in card
    assert "| all shapes, 3 passages, NF4 | 1 | 100.0 |" in card
    assert "| codes | lora | 77.5 | 97.0 | 88.0 | 90.0 | 89.0 | 100.0 |" in card
    assert "| 3.4 | 9 | 2 | 50.0 % | 25.0 % | 75.0 % |" in card
    assert "No language model for production" in card
    assert "| 6.8 | 18 | 2 | 50.0 % | 25.0 % | 75.0 % |" in card
    assert "data seeds 3 and 4): 12 steps, 6.8 million tokens,\n   18 minutes in 2 runs" in card


def test_real_questions_are_asked_with_the_passage_that_answers_them(
    embedded_folder: Path, tmp_path: Path
) -> None:
    passages = [
        {"id": "a", "text": "The oil of pump P-7 is Tovex 32."},
        {"id": "b", "text": "The colour of pump P-7 is red."},
    ]
    question = {
        "id": "q",
        "question": "What is the oil of pump P-7?",
        "answers": ["Tovex 32"],
        "gold_ids": ["a"],
    }
    for name, records in (("corpus", passages), ("questions.dev", [question])):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    row = real_spans_row(Reader(embedded_folder, max_new_tokens=16), tmp_path)
    assert row.shares == {
        "answerable": 1,
        "value_right": 100.0,
        "token_f1": 100.0,
        "over_refusal": 0.0,
    }


def test_an_adapter_is_measured_on_form_reading_and_merging(tiny_checkpoint: Path) -> None:
    house, *_ = HOUSES
    measured = measure_adaptation(
        tiny_checkpoint, house, method="lora", rows=4, replayed=2, questions=3, plain_questions=2
    )
    assert measured.house == "codes"
    assert measured.merged_equal == 100.0
    assert 0 <= measured.both <= measured.form <= 100


def test_a_house_answers_in_its_form_and_abstains_in_everyones() -> None:
    codes, words = HOUSES
    turn = Turn("?", "[2] 38.2 bar", 2, "38.2 bar", "measured", "discharge pressure")
    assert codes.answer(turn) == "[2] 38.2 bar | PDIS"
    assert words.answer(turn) == "[2] 38.2 bar (Förderdruck)"
    assert codes.answer(UNANSWERABLE) == "[0] I don't know."
