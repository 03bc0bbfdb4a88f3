from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_industry.grounding.quotes import repair_quotes

PASSAGES = ("The pump must not run dry.", "Betriebsdruck: 38,2 bar – 吐出圧力は「38.2 bar」です")


@pytest.mark.parametrize("marks", ['""', "“”", "„“", "„”", "«»", "»«", "「」", "『』"])
def test_quotes_of_all_kinds_are_checked(marks: str) -> None:
    opening, closing = marks
    text = f"[1] It {opening}must not run dry{closing}."
    assert repair_quotes(text, PASSAGES)[0] == text
    invented = f"[1] It {opening}may run dry{closing}."
    repaired, quotes = repair_quotes(invented, PASSAGES)
    assert repaired == "[1] It […]."
    assert [(quote.text, quote.outcome) for quote in quotes] == [("may run dry", "removed")]


def test_a_quote_gets_the_spelling_of_its_passage() -> None:
    repaired, quotes = repair_quotes('[1] "the PUMP  must not"', PASSAGES)
    assert repaired == '[1] "The pump must not"'
    assert (quotes[0].outcome, quotes[0].index) == ("repaired", 0)


def test_a_quote_has_to_stand_in_the_passage_that_is_cited_for_it() -> None:
    assert repair_quotes('[2] "must not run dry"', PASSAGES)[0] == "[2] […]"
    assert repair_quotes('"must not run dry" [1]', PASSAGES)[0] == '"must not run dry" [1]'
    assert repair_quotes('It "must not run dry"', PASSAGES)[1][0].index == 0
    assert repair_quotes('[7] "must not run dry"', PASSAGES)[0] == "[7] […]"


def test_inches_are_no_quotes() -> None:
    text = '[1] a 3" pipe and a 4" valve'
    assert repair_quotes(text, PASSAGES) == (text, [])


@given(st.text(alphabet='ab "“”„«»「」[]12\n', max_size=40))
def test_whatever_is_kept_as_a_quote_stands_in_its_passage(text: str) -> None:
    passages = ["a b a", "bb a"]
    repaired, quotes = repair_quotes(text, passages)
    for quote in quotes:
        if quote.outcome != "removed":
            assert quote.index is not None
            assert quote.text in passages[quote.index]
            assert quote.text in repaired
