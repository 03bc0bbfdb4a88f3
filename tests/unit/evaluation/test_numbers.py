"""Right numbers, however they are written."""

import pytest

from phi3_industry.evaluation.numbers import number_match


@pytest.mark.parametrize(
    ("body", "answer", "right"),
    [
        ("38.2 bar", "38.2 bar", True),
        ("38.20", "38.2 bar", True),
        ("1,000 kg", "1000 kg", True),
        ("1.000 kg", "1000 kg", True),  # a point parts thousands in half of Europe
        ("1'000", "1000", True),
        ("1,234.5", "1234.5", True),
        ("1.234,5", "1234.5", True),
        ("3,5", "3.5", True),
        ("38,2", "382", False),
        ("about 38.2 or 40", "38.2", False),
        ("-5 °C", "5 °C", False),
        ("−5 °C", "-5 °C", True),
        ("３８.２ bar", "38.2 bar", True),
        ("٣٨٫٢", "38.2", True),
        ("version 1.2.3", "1.2.3", True),
        ("version 1.2.4", "1.2.3", False),
        ("many", "12", False),
        ("", "12", False),
        ("12 and 13", "13 to 12", True),
        ("12", "13 to 12", False),
    ],
)
def test_numbers_are_compared_by_value(body: str, answer: str, right: bool) -> None:
    assert number_match(body, [answer]) is right


def test_an_answer_without_numbers_asks_for_none() -> None:
    assert number_match("7", ["yes", "no"]) is None
    # one of several answers names a number: that one is wanted
    assert number_match("ten", ["ten", "10"]) is False


def test_numbers_of_the_question_may_be_repeated_and_others_may_not() -> None:
    question = "What is the pressure of P-4471?"
    assert number_match("P-4471 gives 38.2 bar", ["38.2 bar"], question=question)
    assert not number_match("P-4472 gives 38.2 bar", ["38.2 bar"], question=question)
    assert not number_match("P-4471 gives it", ["38.2 bar"], question=question)
