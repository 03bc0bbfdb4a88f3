from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_industry.grounding.matching import numbers_in, spelling_in, stands_in, words_of


@pytest.mark.parametrize(
    ("text", "passage", "stands"),
    [
        ("38.2 bar", "Discharge pressure: 38.2 bar", True),
        ("8.2 bar", "Discharge pressure: 38.2 bar", False),
        ("38.2", "Discharge pressure: 38.2.1", False),
        ("吐出圧力", "定格吐出圧力は38.2 barです", True),
        ("давление", "Номинальное давление нагнетания", True),
        ("давлени", "Номинальное давление нагнетания", False),
        ("tlak 38,2", "Výtlačný  TLAK 38,2 bar", True),
        ("", "anything", False),
    ],
)
def test_whole_texts_stand_in_passages_of_any_script(text: str, passage: str, stands: bool) -> None:
    assert stands_in(text, passage) is stands


def test_words_are_those_of_the_script() -> None:
    assert words_of("The pressure is 38.2 bar (max).") == [
        "the",
        "pressure",
        "is",
        "38.2",
        "bar",
        "max",
    ]
    assert words_of("圧力は38.2 bar") == ["圧", "力", "は", "38.2", "bar"]


def test_numbers_are_whole() -> None:
    assert numbers_in("P-4471: 38.2 bar, 1,000 h, ３.５ kg") == ["4471", "38.2", "1,000", "3.5"]


@given(st.text(max_size=60), st.text(max_size=10), st.text(max_size=10))
def test_a_spelling_is_a_substring(text: str, before: str, after: str) -> None:
    spelled = spelling_in(text, f"{before} {text.upper()} {after}")
    assert spelled is None or spelled in f"{before} {text.upper()} {after}"
