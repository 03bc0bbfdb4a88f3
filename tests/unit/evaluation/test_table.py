"""The comparison for a terminal, and as data."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest

from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.wording import duration, percent, points, probability


def test_the_table_fits_a_terminal_and_is_aligned(compared) -> None:
    table = compared(120, unanswerable=30).table()
    lines = table.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert table.isascii()  # any terminal can print it
    body = [line for line in lines if line.endswith("ms")]
    assert [line.split("  ")[0] for line in body] == [
        "base",
        "RAG",
        "fine-tuned",
        "RAG + fine-tuned",
    ]
    assert len({len(line) for line in body}) == 1


def test_the_table_says_what_the_rates_are(compared) -> None:
    lines = compared(100, unanswerable=20).table().splitlines()
    row = next(line for line in lines if line.startswith("RAG + fine-tuned"))
    # 120 of 120: Wilson's lower end is 96.9 %
    cells = re.split(r"  +", row)
    assert cells[:-1] == [
        "RAG + fine-tuned",
        "100 % (97-100 %)",
        "100 %",
        "100 %",
        "1.00",
        "100 %",
        "100 %",
        "0 %",
    ]
    assert cells[-1].endswith(" ms")
    legend = next(line for line in lines if line.startswith("rightly treated:"))
    assert (
        "100 questions with an answer in the documents, 20 without"
        in lines[lines.index(legend) + 1]
    )


def test_a_long_strategy_name_does_not_break_the_table(scripted, questions) -> None:
    asked, name = questions(3), "a strategy with a very long name indeed"
    engine = scripted(asked, {name: lambda question: "x"})
    result = compare_strategies(engine, questions=asked, strategies=[name], show_progress=False)
    assert max(len(line) for line in result.table().splitlines()) <= 100


def test_the_summary_holds_table_verdict_and_notes(compared) -> None:
    result = compared(40, unanswerable=5)
    assert result.table() in result.summary()
    assert str(result.recommendation) in str(result)
    assert "RAG + fine-tuned abstained in 5 of 5 questions" in result.summary()


@pytest.mark.parametrize(
    ("share", "written"),
    [(0, "0 %"), (1, "100 %"), (0.874, "87 %"), (0.999, "99.9 %"), (0.001, "0.1 %"), (None, "n/a")],
)
def test_only_all_is_a_hundred_percent(share: float | None, written: str) -> None:
    assert percent(share) == written


def test_numbers_are_written_for_people() -> None:
    assert (points(0.084), points(-0.02), points(0.0004, sign=True)) == ("8.4", "-2", "0")
    assert (points(0.5, sign=True), points(-0.0004)) == ("+50", "0")
    assert (probability(0.00001), probability(0.0312)) == ("< 0.001", "0.031")
    assert duration(0.0001) == "< 1 ms"
    assert (duration(0.0452), duration(1.26), duration(None)) == ("45 ms", "1.3 s", "n/a")


def test_json_holds_everything(compared, tmp_path: Path) -> None:
    result = compared(4, unanswerable=1)
    result.to_json(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert len(content["rows"]) == 20
    assert content["arms"]["rag"]["value_match"]["successes"] == 4
    low, high = content["arms"]["rag"]["value_match"]["interval"]
    assert low == pytest.approx(0.5101, abs=1e-4)
    assert high == 1.0
    assert content["recommendation"]["sentence"] == str(result.recommendation)
    assert content["rows"][1]["citations"][0]["node_id"] in content["passages"]
    assert content["settings"] == {"model": "scripted", "adapter": "pumps"}


def test_data_survive_any_text(scripted, questions, tmp_path: Path) -> None:
    one = dataclasses.replace(
        questions(1)[0], question='泵 "x"\n,; \ud800', metadata={"key": "P-1"}
    )
    result = compare_strategies(scripted([one]), questions=[one], show_progress=False)
    result.to_json(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content["questions"][0]["question"] == one.question
    result.to_csv(tmp_path / "result.csv")
    with (tmp_path / "result.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["question"] == '泵 "x"\n,; \\ud800'


def test_csv_has_a_line_for_each_answer(compared, tmp_path: Path) -> None:
    result = compared(3, unanswerable=1)
    result.to_csv(tmp_path / "result.csv")
    text = (tmp_path / "result.csv").read_bytes().decode("utf-8")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 16
    assert lines[3]["strategy"] == "rag_fine_tuned"
    assert json.loads(lines[3]["cited"]) == ["pumps.csv#P-1"]
    assert (lines[3]["house_match"], lines[-1]["house_match"]) == ("True", "")


def test_csv_does_not_carry_formulas(compared, tmp_path: Path) -> None:
    result = compared(2, script={"base": lambda question: "=HYPERLINK(1)", "rag": lambda q: "-5"})
    result.to_csv(tmp_path / "result.csv")
    with (tmp_path / "result.csv").open(encoding="utf-8", newline="") as file:
        answers = [line["answer"] for line in csv.DictReader(file)]
    assert answers[:2] == ["'=HYPERLINK(1)", "-5"]
