"""Asking every question under every strategy."""

import json
from pathlib import Path

import pytest
from llama_index.core.base.response.schema import StreamingResponse

from phi3_industry.errors import TrainingDataError
from phi3_industry.evaluation.compare import STRATEGIES, compare_strategies
from phi3_industry.grounding.questions import Question


def test_each_question_is_asked_once_under_each_strategy(compared) -> None:
    result = compared(5, unanswerable=2)
    assert [(row.question_id, row.strategy) for row in result.rows] == [
        (f"q{number}", strategy) for number in range(1, 8) for strategy in STRATEGIES
    ]
    assert all(row.latency_s >= 0 for row in result.rows)


def test_an_answer_is_scored_in_every_respect(compared) -> None:
    result = compared(3, unanswerable=1)
    row = result.by_strategy["rag_fine_tuned"][0]
    assert (row.answer, row.body) == ("[1] 1.5 bar | PDIS", "1.5 bar | PDIS")
    assert (row.house_match, row.value_match, row.exact_match) == (True, True, True)
    assert row.token_f1 == 1.0
    assert (row.gold_shown, row.citation_right, row.abstained) == (True, True, False)
    assert (row.prompt_tokens, row.completion_tokens) == (90, 6)
    assert (row.used_strategy, row.reason) == ("rag_fine_tuned", "asked for rag_fine_tuned")
    assert row.passages == ("node-P-1", "node-P-0")
    assert result.passages["node-P-1"].document_id == "pumps.csv"

    plain = result.by_strategy["rag"][0]
    assert (plain.house_match, plain.value_match, plain.exact_match) == (False, True, True)
    other = result.by_strategy["fine_tuned"][0]
    assert (other.house_match, other.value_match, other.exact_match) == (False, False, False)
    # "7 bar pdis" against "1.5 bar pdis", which is nearer than "1.5 bar"
    assert other.token_f1 == pytest.approx(2 * 2 / (3 + 3))


def test_without_a_house_format_any_accepted_answer_is_right(scripted) -> None:
    one = Question(id="1", question="?", answers=("Yes", "It is"), metadata={"key": "P-1"})
    engine = scripted(
        [one], {"base": lambda question: "it is", "fine_tuned": lambda question: "No"}
    )
    result = compare_strategies(
        engine, questions=[one], strategies=["base", "fine_tuned"], show_progress=False
    )
    assert [(row.right, row.house_match) for row in result.rows] == [(True, False), (False, False)]


def test_an_unanswerable_question_is_scored_by_abstention_alone(compared) -> None:
    result = compared(1, unanswerable=1)
    row = result.by_strategy["rag"][1]
    assert row.abstained
    assert row.house_match is row.value_match is row.exact_match is row.token_f1 is None
    assert row.citation_right is row.gold_shown is None
    assert not result.by_strategy["fine_tuned"][1].abstained


def test_abstaining_is_no_right_answer_even_beside_a_value(compared) -> None:
    result = compared(2, script={"rag": lambda question: "[0] I don't know."})
    row = result.by_strategy["rag"][0]
    assert row.abstained
    assert (row.value_match, row.token_f1, row.citation_right) == (False, 0.0, False)


def test_a_failed_query_is_recorded_and_counts_as_wrong(compared) -> None:
    def sometimes(question: Question) -> str:
        if question.id == "q2":
            raise RuntimeError("out of memory")
        return f"[1] {question.reference}"

    result = compared(4, script={"rag_fine_tuned": sometimes})
    row = result.by_strategy["rag_fine_tuned"][1]
    assert row.error == "RuntimeError: out of memory"
    assert (row.house_match, row.value_match, row.citation_right) == (False, False, False)
    assert not row.abstained
    arm = result.arms["rag_fine_tuned"]
    assert (arm.house_match.successes, arm.house_match.trials, arm.failed) == (3, 4, 1)
    assert "1 of 16 queries failed" in result.summary()
    assert "out of memory" in result.summary()


def test_an_interrupt_is_not_swallowed(scripted, questions) -> None:
    def interrupted(question: Question) -> str:
        raise KeyboardInterrupt

    asked = questions(1)
    with pytest.raises(KeyboardInterrupt):
        compare_strategies(
            scripted(asked, {"base": interrupted}), questions=asked, show_progress=False
        )


def test_strategies_take_turns_in_going_first(scripted, questions) -> None:
    asked = questions(4)
    order: list[str] = []

    def note(name: str):
        def reply(question: Question) -> str:
            order.append(name)
            return "x"

        return reply

    compare_strategies(
        scripted(asked, {name: note(name) for name in STRATEGIES}),
        questions=asked,
        show_progress=False,
    )
    assert order[::4] == list(STRATEGIES)


def test_an_engine_that_is_not_ours_is_scored_from_its_text(scripted, questions) -> None:
    asked = questions(3)
    engine = scripted(asked, {"base": lambda question: "[7] 1.5 bar"}, bare=True)
    result = compare_strategies(engine, questions=asked, show_progress=False)
    right = result.by_strategy["rag"][0]
    assert right.citations[0].node_id == "node-P-1"
    assert right.citations[0].quote == "1.5 bar"
    assert right.citation_right
    assert right.prompt_tokens is None
    nowhere = result.by_strategy["base"][0]
    assert (nowhere.citations[0].node_id, nowhere.citation_right) == (None, False)


def test_a_streamed_answer_is_read_to_its_end(questions) -> None:
    class Streaming:
        def with_strategy(self, strategy):
            return self

        def query(self, question):
            return StreamingResponse(response_gen=iter(["1.5", " bar"]))

    result = compare_strategies(
        Streaming(), questions=questions(1), strategies=["base"], show_progress=False
    )
    assert result.rows[0].answer == "1.5 bar"
    assert result.rows[0].value_match


def test_an_empty_response_is_an_empty_answer(questions) -> None:
    class Silent:
        def with_strategy(self, strategy):
            return self

        def query(self, question):
            return StreamingResponse(response_gen=None)

    result = compare_strategies(
        Silent(), questions=questions(1), strategies=["base"], show_progress=False
    )
    assert result.rows[0].answer == ""
    assert not result.rows[0].value_match


def test_questions_may_be_a_file(scripted, questions, tmp_path: Path) -> None:
    asked = questions(2)
    path = tmp_path / "questions.jsonl"
    lines = [
        {"id": one.id, "question": one.question, "answers": one.answers, "gold_ids": one.gold_ids}
        for one in asked
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    result = compare_strategies(
        scripted(asked), questions=path, strategies=["rag"], show_progress=False
    )
    # without a reference of its own the first answer is what the house wants
    assert [row.house_match for row in result.rows] == [True, True]
    assert [row.right for row in result.rows] == [True, True]
    path.write_text("", encoding="utf-8")
    with pytest.raises(TrainingDataError, match="holds no question"):
        compare_strategies(scripted(asked), questions=path, show_progress=False)


def test_a_refused_strategy_is_refused_before_any_question(scripted, questions) -> None:
    asked = questions(1)

    def never(question: Question) -> str:
        raise AssertionError("a question was asked")

    with pytest.raises(ValueError, match="no strategy 'guess'"):
        compare_strategies(
            scripted(asked, {"base": never}), questions=asked, strategies=["base", "guess"]
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": []}, "questions is empty"),
        ({"strategies": []}, "strategies is empty"),
        ({"strategies": "rag"}, "give a list of names"),
        ({"strategies": ["rag", "rag"]}, "more than once"),
        ({"margin": 2}, "a share between 0 and 1"),
        ({"margin": 0}, "a share between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused(scripted, questions, settings, message: str) -> None:
    asked = questions(1)
    with pytest.raises(ValueError, match=message):
        compare_strategies(
            scripted(asked), **{"questions": asked, "show_progress": False, **settings}
        )


def test_repeated_question_ids_are_refused(scripted, questions) -> None:
    asked = questions(1) * 2
    with pytest.raises(ValueError, match=r"\['q1'\] more than once"):
        compare_strategies(scripted(asked), questions=asked, show_progress=False)


def test_progress_is_drawn_if_asked_for(scripted, questions, capsys) -> None:
    asked = questions(2)
    compare_strategies(scripted(asked), questions=asked, show_progress=False)
    assert capsys.readouterr().err == ""
    compare_strategies(scripted(asked), questions=asked)
    assert "8/8" in capsys.readouterr().err
