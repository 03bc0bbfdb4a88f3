from __future__ import annotations

from pathlib import Path

import pytest

from phi3_industry.errors import TrainingDataError
from phi3_industry.grounding.questions import load_questions

GOOD = '{"id": "q1", "question": "Which?", "answers": ["38.2 bar"], "gold_ids": ["a.csv#P-1"]}'


def written(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "questions.jsonl"
    parts = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(b"\n".join(parts))
    return path


def test_questions_are_read_in_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeff" + GOOD,
        "",
        '{"question": "圧力\u2028は？", "answers": [], "reference": "x", "metadata": {"k": 1}}',
    )
    first, second = load_questions(path)
    assert (first.id, first.question, first.answers) == ("q1", "Which?", ("38.2 bar",))
    assert first.gold_ids == ("a.csv#P-1",)
    assert first.answerable
    assert first.wanted == "38.2 bar"
    assert second.id == "3"
    assert second.question == "圧力\u2028は？"
    assert not second.answerable
    assert second.wanted == "x"
    assert second.metadata == {"k": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "record 2: The line is not JSON"),
        ("[1]", "record 2: The line holds a list"),
        ("[" * 100_000, "record 2: The line is not JSON"),
        ('{"answers": []}', "record 2, field 'question': It is missing; it must be a text"),
        ('{"question": " ", "answers": []}', "field 'question': It is ' '"),
        ('{"question": "x"}', "field 'answers': It is missing; it must be a list of texts, empty"),
        ('{"question": "x", "answers": "y"}', "field 'answers': It is 'y'"),
        ('{"question": "x", "answers": [""]}', "field 'answers': It is"),
        ('{"question": "x", "answers": [], "gold_ids": [1]}', "field 'gold_ids': It is"),
        ('{"question": "x", "answers": [], "reference": 1}', "field 'reference': It is 1"),
        ('{"question": "x", "answers": [], "metadata": []}', "field 'metadata': It is"),
        (GOOD, "field 'id': The id 'q1' stands in record 1 already"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, GOOD, line)
    with pytest.raises(TrainingDataError, match=f"questions.jsonl'.*{message}") as caught:
        load_questions(path)
    assert caught.value.record == 2


def test_files_without_questions_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="holds no question"):
        load_questions(written(tmp_path, "", " "))
    with pytest.raises(TrainingDataError, match="not UTF-8"):
        load_questions(written(tmp_path, b"\xff\xfe\x00"))
    with pytest.raises(FileNotFoundError):
        load_questions(tmp_path / "nowhere.jsonl")
