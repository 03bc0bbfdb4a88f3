from __future__ import annotations

from dataclasses import replace

import pytest

from phi3_industry.errors import PromptTooLongError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt, Message

PASSAGES = ["Pumps\nTag: P-4471", "Pumps\nTag: P-4472; a much longer row than the others", "V-1"]


def count_characters(messages: list[Message]) -> int:
    return sum(len(message["content"]) for message in messages)


def fit(passages: list[str], context_window: int, question: str = "Which?") -> tuple[int, ...]:
    fitted = DEFAULT_PROMPT.fit(
        question,
        passages,
        count_tokens=count_characters,
        context_window=context_window,
        max_new_tokens=10,
    )
    assert fitted.tokens <= context_window - 10
    assert fitted.tokens == count_characters(fitted.messages)
    assert sorted((*fitted.kept, *fitted.dropped)) == list(range(len(passages)))
    return fitted.kept


BARE = count_characters(DEFAULT_PROMPT.grounded("Which?", [])) + 10


def test_passages_are_numbered_from_one_and_the_question_comes_last() -> None:
    system, user = DEFAULT_PROMPT.grounded("Which pump?", PASSAGES[:2])
    assert system == {"role": "system", "content": DEFAULT_PROMPT.system_text}
    assert user["role"] == "user"
    assert user["content"] == (
        "Context:\n[1] Pumps\nTag: P-4471\n"
        "[2] Pumps\nTag: P-4472; a much longer row than the others\n\nQuestion: Which pump?"
    )


def test_questions_on_the_same_passages_share_their_beginning() -> None:
    first = DEFAULT_PROMPT.grounded("One?", PASSAGES)[1]["content"]
    second = DEFAULT_PROMPT.grounded("Two?", PASSAGES)[1]["content"]
    assert first.removesuffix("One?") == second.removesuffix("Two?")


def test_a_closed_book_question_has_no_passages() -> None:
    assert DEFAULT_PROMPT.closed_book("Which?") == [{"role": "user", "content": "Question: Which?"}]
    prompt = GroundingPrompt(closed_book_instructions="Be brief.")
    assert prompt.closed_book("Which?")[0] == {"role": "system", "content": "Be brief."}


def test_answers_begin_with_their_citation() -> None:
    assert DEFAULT_PROMPT.answer("38.2 bar", marker=2) == "[2] 38.2 bar"
    assert DEFAULT_PROMPT.abstention_answer == "[0] I don't know."
    other = GroundingPrompt(abstention="わかりません。")
    assert other.abstention_answer == "[0] わかりません。"
    assert DEFAULT_PROMPT.system_text.endswith("write: [0] I don't know.")
    assert other.system_text.endswith("write: [0] わかりません。")


def test_the_fingerprint_follows_the_wording() -> None:
    assert DEFAULT_PROMPT.fingerprint == GroundingPrompt().fingerprint
    for change in ({"instructions": "x"}, {"context_label": "x"}, {"abstention": "x"}):
        assert replace(DEFAULT_PROMPT, **change).fingerprint != DEFAULT_PROMPT.fingerprint


def test_all_passages_are_kept_where_they_fit() -> None:
    assert fit(PASSAGES, 10_000) == (0, 1, 2)
    assert fit([], 10_000) == ()


def test_whole_passages_are_left_out_and_later_shorter_ones_may_enter() -> None:
    room_for_the_first_and_last = BARE + len("[1] ") + len(PASSAGES[0]) + len("\n[2] V-1")
    assert fit(PASSAGES, room_for_the_first_and_last) == (0, 2)
    assert fit(PASSAGES, room_for_the_first_and_last - 1) == (0,)


def test_a_question_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(PromptTooLongError, match="Shorten the question") as caught:
        fit(PASSAGES, BARE - 1)
    assert caught.value.needed == BARE - 10
    assert caught.value.available == BARE - 11


def test_passages_that_are_all_too_long_are_refused_with_advice() -> None:
    with pytest.raises(PromptTooLongError, match="Index the documents in smaller nodes"):
        fit([PASSAGES[1], PASSAGES[0]], BARE + 5)
