"""The metrics against numbers worked by hand."""

import numpy as np
import pytest

from phi3_industry.evaluation.metrics import (
    answer_tokens,
    citation_right,
    exact_match,
    house_match,
    normalise_answer,
    quantile,
    token_f1,
    value_match,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Pump.", "pump"),
        ("38.2 bar", "38.2  bar"),
        ("38.2bar", "38.2 bar"),
        ("３８．２　ｂａｒ", "38.2 bar"),  # full width
        ("٣٨", "38"),  # Arabic-Indic digits
        ("STRASSE", "straße"),
        ("Brno\u200b", "Brno"),  # zero-width space
        ("P–4471", "P-4471"),
        ("-5 °C", "−5°C"),
        ("« Vanne »", "vanne"),
        ("「北京」。", "北京"),
        ("re\u0301serve", "réserve"),
        ("ｶﾞｽ", "ガス"),
        ("5%", "5 %"),
        ("**38.2 bar**", "38.2 bar"),
    ],
)
def test_what_does_not_change_an_answer_is_ignored(one: str, other: str) -> None:
    assert normalise_answer(one) == normalise_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("38.2", "382"),
        ("38.2", "38"),
        ("-5 °C", "5 °C"),
        ("5 A", "5 V"),
        ("5 A", "5"),
        ("10²", "102"),
        ("C#", "C"),
        ("C++", "C"),
        ("5 %", "5"),
        ("Class A", "Class"),
        ("3 bar", "3 bars"),
        ("1/2", "12"),
        ("v1.2.3", "v1.23"),
    ],
)
def test_what_changes_an_answer_is_kept(one: str, other: str) -> None:
    assert normalise_answer(one) != normalise_answer(other)


def test_an_article_is_dropped_before_a_word_and_kept_as_a_unit_or_a_name() -> None:
    assert normalise_answer("the inlet of a pump") == "inlet of pump"
    assert normalise_answer("5 A maximum") == "5 a maximum"
    assert normalise_answer("Class A") == "class a"


def test_scripts_without_spaces_are_split_into_characters() -> None:
    assert answer_tokens("泵P-4471的压力") == [*"泵", "p", "4471", *"的压力"]
    assert answer_tokens("データ") == ["デ", "ー", "タ"]
    assert answer_tokens("ปั๊ม") == ["ปั๊", "ม"]  # vowel and tone marks stay on their letter
    assert answer_tokens("насос П-12 работает") == ["насос", "п", "12", "работает"]
    assert answer_tokens("펌프 압력") == ["펌프", "압력"]


def test_exact_match_takes_any_of_the_answers() -> None:
    assert exact_match("The valve", ["pump", "valve"])
    assert not exact_match("valve seat", ["pump", "valve"])


def test_exact_match_of_bare_punctuation_compares_the_texts_themselves() -> None:
    assert exact_match(" – ", ["–"])
    assert not exact_match("...", ["–"])
    assert not exact_match("", ["–"])


def test_token_f1_by_hand() -> None:
    # 2 of 3 predicted tokens are among the 4 wanted: 2 * 2 / (3 + 4)
    assert token_f1("red steel valve", ["blue steel gate valve"]) == pytest.approx(4 / 7)
    assert token_f1("red steel valve", ["nothing", "red steel valve"]) == 1.0
    assert token_f1("", ["valve"]) == 0.0
    # a repeated token counts as often as both have it: 1 common, 2 + 1 tokens
    assert token_f1("bar bar", ["bar"]) == pytest.approx(2 / 3)
    # 北京市 against 北京: 2 common, 3 + 2 characters
    assert token_f1("北京市", ["北京"]) == pytest.approx(4 / 5)


@pytest.mark.parametrize("measure", [exact_match, token_f1, value_match])
def test_measures_of_answers_refuse_a_question_without_one(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="answers is empty"):
        measure("anything", [])
    with pytest.raises(ValueError, match="give a list of texts"):
        measure("anything", "anything")


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("38.2 bar", "38.2 bar"),
        ("38.2 bar | PDIS", "38.2 bar"),
        ("38.2 bar|PDIS", "38.2 bar"),
        ("38.2 bar (PDIS)", "38.2 bar"),
        ("38.2 bar.", "38.2 bar"),
        ("38.2 bar, at full load", "38.2 bar"),
        ("38.2bar | PDIS", "38.2 bar"),
        ("The red valve; see V-3", "red valve"),
        ("-5 °C | T", "−5 °C"),
        ("38 | X", "38"),
        ("北京（首都）", "北京"),
        ("ＯＫ | 1", "ok"),
    ],
)
def test_a_value_with_house_words_after_it_is_right(body: str, answer: str) -> None:
    assert value_match(body, [answer])


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("38.2", "38"),
        ("38.2 bar", "38"),
        ("3 bars", "3 bar"),
        ("13 bar", "3 bar"),
        ("10-20", "10"),
        ("10 – 20", "10"),
        ("1 000 bar", "1"),
        ("10:30", "10"),
        ("P-4471", "P"),
        ("foo_bar", "foo"),
        ("AC/DC", "AC"),
        ("5 bar", "-5 bar"),
        ("PDIS | 38.2 bar", "38.2 bar"),
        ("", "38"),
        ("北京市", "北京"),
        ("38.2", "–"),
    ],
)
def test_another_value_that_begins_alike_is_wrong(body: str, answer: str) -> None:
    assert not value_match(body, [answer])


def test_house_match_is_exact_up_to_white_space_and_composition() -> None:
    assert house_match(" 38.2  bar |\nPDIS ", "38.2 bar | PDIS")
    assert house_match("re\u0301gler", "régler")
    assert not house_match("38.2 bar | pdis", "38.2 bar | PDIS")
    assert not house_match("38.2 bar", "38.2 bar | PDIS")
    assert not house_match("38.2 bar|PDIS", "38.2 bar | PDIS")


def test_a_citation_is_right_if_it_is_verified_and_gold() -> None:
    gold = ["pumps.csv#P-1"]
    right, wrong = {"n1", "pumps.csv#P-1", "pumps.csv"}, {"n2", "pumps.csv#P-2", "pumps.csv"}
    assert citation_right([right], [True], gold)
    assert citation_right([right], [True], ["pumps.csv"])
    assert citation_right([right], [True], ["n1"])
    assert not citation_right([right], [False], gold)
    assert not citation_right([wrong], [True], gold)
    assert not citation_right([right, wrong], [True, True], gold)
    assert not citation_right([set()], [True], gold)
    assert not citation_right([], [], gold)


def test_quantile_agrees_with_numpy() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    for q in (0, 0.05, 0.5, 0.95, 1):
        assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)))
    assert quantile([7.0], 0.95) == 7.0


def test_quantile_refuses_what_it_cannot_give() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1.0], 50)
