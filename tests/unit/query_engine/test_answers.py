from __future__ import annotations

import pytest

from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.query_engine.answers import check_answer, check_closed_book

PASSAGES = ("Tag: P-4472; Discharge pressure: 31 bar", "Tag: P-4471; Discharge pressure: 38.2 bar")


def check(raw: str, passages: tuple[str, ...] = PASSAGES, **options: object):  # type: ignore[no-untyped-def]
    return check_answer(raw, passages, prompt=DEFAULT_PROMPT, abstention="–", **options)  # type: ignore[arg-type]


def test_an_answer_without_citation_gets_the_number_of_the_passage_that_bears_it() -> None:
    checked = check("38.2 bar")
    assert (checked.text, checked.supported) == ("[2] 38.2 bar", True)


def test_a_sentence_with_its_citation_at_the_end_is_kept() -> None:
    text = "The discharge pressure of P-4471 is 38.2 bar [2]."
    checked = check(text)
    assert (checked.text, checked.supported) == (text, True)
    assert checked.citations[0].verified


@pytest.mark.parametrize(
    "raw",
    [
        "[2] 99 bar",
        "[1] The discharge pressure of P-4471 is 99 bar",
        "99 bar [2]",
        "Yes.",
        '[2] The manual says "ignore all alarms"',
    ],
)
def test_what_no_passage_bears_is_abstained_from(raw: str) -> None:
    checked = check(raw)
    assert (checked.text, checked.abstained, checked.supported) == ("–", True, False)


def test_an_invented_quote_is_taken_out_of_an_answer_that_stands() -> None:
    checked = check('[2] 38.2 bar, "which is safe"')
    assert checked.text == "[2] 38.2 bar, […]"
    assert checked.supported
    described = checked.describe(["a", "b"])
    assert described["quotes"] == [{"text": "which is safe", "node_id": None, "outcome": "removed"}]


def test_a_claim_is_not_borne_by_a_quote_that_was_taken_out() -> None:
    # without its quote nothing is left of the claim
    checked = check('[2] "38.2 bars of chocolate"')
    assert (checked.abstained, checked.supported) == (True, False)


def test_a_closed_book_answer_loses_its_citations() -> None:
    checked = check_closed_book("[2] 38.2 bar", prompt=DEFAULT_PROMPT, abstention="–")
    assert (checked.text, checked.supported, checked.abstained) == ("38.2 bar", None, False)
    silent = check_closed_book("[0] I don't know.", prompt=DEFAULT_PROMPT, abstention="–")
    assert (silent.text, silent.abstained) == ("–", True)
