"""A house's terms, from every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.glossary import Glossary, Term, load_glossary, with_house_form
from phi3_industry.grounding.questions import Question

PRESSURE = Term(
    term="discharge pressure",
    banned=("outlet pressure", "delivery pressure"),
    unit="bar",
    answer_format="{value} | PDIS",
)
TABLE = """term,banned,unit,answer_format
discharge pressure,outlet pressure; delivery pressure,bar,{value} | PDIS
"""
TOML = """answer_format = "{value} | PDIS"
[[terms]]
term = "discharge pressure"
banned = ["outlet pressure", "delivery pressure"]
unit = "bar"
"""
RECORD = {
    "term": "discharge pressure",
    "banned": ["outlet pressure", "delivery pressure"],
    "unit": "bar",
    "answer_format": "{value} | PDIS",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("terms.csv", TABLE),
        ("terms.toml", TOML),
        ("terms.json", json.dumps([RECORD])),
        ("other.json", json.dumps({"terms": [RECORD]})),
    ],
)
def test_every_kind_of_file_gives_the_same_terms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_glossary(tmp_path / name).terms == (PRESSURE,)


@pytest.mark.parametrize(
    ("records", "field", "message"),
    [
        ([{"banned": []}], "term", "It is None; it must be a text"),
        ([{"term": "a", "synonyms": []}], "synonyms", "There is no such field"),
        ([{"term": "a", "banned": "b"}], "banned", "It must be a list of texts"),
        ([{"term": "a", "answer_format": "x"}], "answer_format", "lacks {value}"),
        ([{"term": "a"}, {"term": "Ａ"}], "term", "'Ａ' stands in record 1 already"),
        ([{"term": "a"}, {"term": "b", "banned": ["A"]}], "banned", "'A' stands in record 1"),
    ],
)
def test_broken_term_is_named_by_file_record_and_field(
    tmp_path: Path, records: Any, field: str, message: str
) -> None:
    path = tmp_path / "terms.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(TrainingDataError, match=message) as caught:
        load_glossary(path)
    assert caught.value.source == str(path)
    assert (caught.value.record, caught.value.field) == (len(records), field)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("terms.json", b"{", "It is not JSON"),
        ("terms.json", b"[]", "holds no term"),
        ("terms.json", b"5", "must be a list of terms"),
        ("terms.json", b'{"terms": [], "unit": 1}', "has the keys terms and answer_format only"),
        ("terms.toml", b"= 5", "It is not TOML"),
        ("terms.csv", b"term\n\xff", "not UTF-8"),
        ("terms.txt", b"a", "ends in .json, .toml, .csv"),
    ],
)
def test_unreadable_file_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TrainingDataError, match=message):
        load_glossary(tmp_path / name)


def test_longest_word_of_a_question_says_what_it_is_about() -> None:
    glossary = Glossary((Term(term="pressure"), PRESSURE, Term(term="压力", banned=("压强",))))
    found = glossary.find("Which Outlet Pressure has P-7?")
    assert found == (PRESSURE, "Outlet Pressure")
    assert glossary.find("泵的压强是多少") == (glossary.terms[2], "压强")
    assert glossary.find("impressured") is None


def test_banned_word_inside_a_good_one_does_not_count() -> None:
    glossary = Glossary((Term(term="feed pump", banned=("pump",)),))
    assert glossary.banned_in("the feed pump") is None
    assert glossary.banned_in("the Pump, not the feed pump") == "pump"


def test_questions_about_terms_get_the_house_form() -> None:
    asked = Question(id="1", question="Outlet pressure of P-7?", answers=("38 bar",))
    given = Question(id="2", question="Outlet pressure?", answers=("1",), reference="one")
    absent = Question(id="3", question="Outlet pressure of P-8?", answers=())
    other = Question(id="4", question="Oil of P-7?", answers=("Tovex",))
    formed = with_house_form([asked, given, absent, other], Glossary((PRESSURE,)))
    assert [question.reference for question in formed] == ["38 bar | PDIS", "one", None, None]
