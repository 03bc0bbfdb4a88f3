from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi3_industry.grounding.citations import parse_answer, repair, verify

PASSAGES = [
    "Pumps\nTag: P-4471; Discharge pressure: 38.2 bar; Flow rate: 120 m3/h",
    "Pumps\nThe rated pressure of pump P-2 is\n138.2 bars. 圧力は３８ｂａｒです。",
    "Straße 7 — Größe: M12; Price: 1,000 EUR",
    "Encrypted: ✔; Shared: ✘",
]


@pytest.mark.parametrize(
    ("text", "markers", "body", "abstained"),
    [
        ("[2] 38.2 bar", (2,), "38.2 bar", False),
        ("38.2 bar", (), "38.2 bar", False),
        ("38.2 bar [2]", (2,), "38.2 bar", False),
        ("[1] one [2] two [1] three", (1, 2), "one two three", False),
        ("[0] I don't know.", (), "I don't know.", True),
        ("I don't know.", (), "I don't know.", True),
        ("  i DON'T know. ", (), "i DON'T know.", True),
        ("[0] 38.2 bar", (), "38.2 bar", True),
        ("[0] [2] 38.2 bar", (2,), "38.2 bar", False),
        ("", (), "", True),
        ("[3]", (3,), "", True),
        ("item [a] and [12345]", (), "item [a] and [12345]", False),
    ],
)
def test_an_answer_is_taken_apart(
    text: str, markers: tuple[int, ...], body: str, abstained: bool
) -> None:
    parsed = parse_answer(text)
    assert (parsed.markers, parsed.body, parsed.abstained) == (markers, body, abstained)


def test_the_abstention_sentence_can_be_of_any_language() -> None:
    assert parse_answer("わかりません。", abstention="わかりません。").abstained
    assert not parse_answer("わかりません。").abstained


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("[1] 38.2 bar", "38.2 bar"),
        ("[1] 38.2 BAR", "38.2 bar"),
        ("[1] 38.2  bar.", "38.2 bar"),
        ("[1] 38.2 bar | PDIS", "38.2 bar"),
        ("[1] 120 m3/h; and more", "120 m3/h"),
        ("[2] is 138.2 bars.", "is\n138.2 bars."),
        ("[2] 圧力は38bar", "圧力は３８ｂａｒ"),
        ("[2] 38bar", "３８ｂａｒ"),
        ("[3] STRASSE 7", "Straße 7"),
        ("[3] 1,000 EUR", "1,000 EUR"),
        ("[2] The pressure of pump P-2", "pressure of pump P-2"),
        ("[4] ✔", "✔"),
    ],
)
def test_what_stands_in_the_passage_is_verified_in_its_own_spelling(
    answer: str, quote: str
) -> None:
    citation = verify(answer, PASSAGES)[0]
    assert citation.verified
    assert citation.quote == quote
    assert citation.quote in PASSAGES[citation.marker - 1]


@pytest.mark.parametrize(
    "answer",
    [
        "[1] 8.2 bar",
        "[1] 38 bar",
        "[1] 38.2 bars",
        "[1] 38.20 bar",
        "[1] 2 bar",
        "[2] 38.2 bar",
        "[2] 138 bars",
        "[3] 1 EUR",
        "[3] 000 EUR",
        "[1] Flow rate of 12 m3/h",
        "[1] the pump is broken",
        "[1] ",
        "[7] 38.2 bar",
    ],
)
def test_what_does_not_stand_in_the_passage_is_not_verified(answer: str) -> None:
    assert not verify(answer, PASSAGES)[0].verified


def test_a_number_of_no_passage_has_no_index() -> None:
    citation = verify("[7] 38.2 bar", PASSAGES)[0]
    assert (citation.marker, citation.index, citation.quote) == (7, None, "")


def test_each_citation_answers_for_the_text_after_it() -> None:
    citations = verify("First [1] 38.2 bar and [2] 40 bars", PASSAGES)
    assert [citation.verified for citation in citations] == [True, False]


def test_verified_answers_are_left_as_they_are() -> None:
    for answer in ("[1] 38.2 bar | PDIS", "[0] I don't know.", "no citation", "", "a [1] 38.2 bar"):
        assert repair(answer, PASSAGES)[0] == answer


def test_a_wrong_number_is_put_right_where_one_passage_alone_bears_the_claim() -> None:
    answer, citations = repair("[2] 38.2 bar", PASSAGES)
    assert answer == "[1] 38.2 bar"
    assert [(citation.marker, citation.verified) for citation in citations] == [(1, True)]


def test_a_citation_that_no_passage_bears_is_taken_out_and_listed() -> None:
    answer, citations = repair("[1] 40 bar", PASSAGES)
    assert answer == "40 bar"
    assert [(citation.marker, citation.verified) for citation in citations] == [(1, False)]


def test_a_citation_that_several_passages_could_bear_is_not_guessed() -> None:
    twice = [PASSAGES[0], PASSAGES[0], "other"]
    answer, citations = repair("[3] 38.2 bar", twice)
    assert answer == "38.2 bar"
    assert not citations[0].verified


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.lists(st.text(max_size=60), max_size=3))
def test_any_text_is_parsed_and_every_quote_stands_in_its_passage(
    text: str, passages: list[str]
) -> None:
    for answer in (text, f"[1] {text}", f"{text}[2]{text}[0]"):
        parse_answer(answer)
        _, citations = repair(answer, passages)
        for citation in citations:
            if citation.index is None:
                assert not citation.verified
            else:
                assert citation.quote in passages[citation.index]


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_a_passage_quoted_whole_is_verified(passage: str) -> None:
    citations = verify(f"[1] {passage}", [passage])
    if any(character.isalnum() for character in passage) and "[" not in passage:
        assert citations[0].verified


SENTENCE = "Tag: P-4471; Discharge pressure: 38.2 bar; Oil: Tovex 32"


@pytest.mark.parametrize(
    ("answer", "verified"),
    [
        ("[1] The discharge pressure of P-4471 is 38.2 bar.", True),
        ("The discharge pressure of P-4471 is 38.2 bar [1].", True),
        ("[1] The discharge pressure of P-4471 is 39.2 bar.", False),
        ("[1] The suction temperature is low at 38.2 bar.", False),
        ("[1] The oil is Kelmar Supra Ultra 32", False),
        ("[1] Pump P-4471 takes the grease Kelmar", False),
        ("[1] Tag: P-4471; Discharge pressure: 99 bar", False),
        ("[1] P-4471: 99 bar", False),
        ("[1] 38.2 bar | TOIL-2", True),
    ],
)
def test_a_sentence_around_a_fact_is_borne_by_its_words_and_numbers(
    answer: str, verified: bool
) -> None:
    assert [citation.verified for citation in verify(answer, [SENTENCE])] == [verified]


def test_citations_side_by_side_share_their_claim() -> None:
    both = ["Oil: Tovex 32", "Lubricant: Tovex 32"]
    for answer in ("[1][2] Tovex 32", "Tovex 32 [1][2]", "Tovex 32 [1] [2]."):
        assert [citation.verified for citation in verify(answer, both)] == [True, True]
        assert repair(answer, both)[0] == answer


def test_a_trailing_citation_is_put_right_or_taken_out_in_its_place() -> None:
    passages = ["Oil: Tovex 32", "Oil: Kelmar 46"]
    assert repair("Kelmar 46 [1].", passages)[0] == "Kelmar 46 [2]."
    assert repair("Tovex 32 [1]. Ruby 68 [2].", passages)[0] == "Tovex 32 [1]. Ruby 68."
