"""Which ways are asked, how many questions at once, and what their answers are scored by."""

import asyncio
import dataclasses
import json

import pytest
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response

from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.finetuning.glossary import Glossary, Term
from phi3_industry.grounding.questions import Question


def test_auto_is_compared_with_the_best_fixed_way(scripted, questions) -> None:
    asked = questions(40, unanswerable=10)
    result = compare_strategies(
        scripted(asked, {"auto": lambda q: "[0] I don't know." if q.id == "q1" else house(q)}),
        questions=asked,
        strategies=["base", "rag", "rag_fine_tuned", "auto"],
        show_progress=False,
    )
    found = result.choosing
    assert (found.first, found.second, found.measure) == ("auto", "rag_fine_tuned", "right")
    assert found.difference == pytest.approx(-1 / 50)
    assert ("auto", "rag_fine_tuned") in {(one.first, one.second) for one in result.contrasts}
    assert (
        "Choosing for each question (auto): 98 % of 50 questions treated rightly, against 100 % of "
        "the best fixed way, RAG + fine-tuned (difference -2 points"
    ) in result.summary()
    assert "with 0.19 times its tokens" in result.summary()  # 18 of 96


def house(question: Question) -> str:
    return f"[1] {question.reference}" if question.answers else "[0] I don't know."


def test_without_auto_nothing_is_said_of_choosing(compared) -> None:
    result = compared(3)
    assert result.choosing is None
    assert "Choosing" not in result.summary()


def test_an_engine_says_itself_which_ways_it_has(scripted, questions) -> None:
    asked = questions(2)

    class Reading:
        strategies = ("rag", "auto")

        def with_strategy(self, strategy):
            return scripted(asked).with_strategy(strategy)

    result = compare_strategies(Reading(), questions=asked, show_progress=False)
    assert result.strategies == ("rag", "auto")


def test_plain_fine_tuning_is_asked_beside_ours(scripted, questions) -> None:
    asked = questions(25)
    result = compare_strategies(
        scripted(asked),
        plain=scripted(asked, {"rag_fine_tuned": lambda question: "[2] 7 bar | PDIS"}),
        questions=asked,
        show_progress=False,
    )
    assert result.strategies == (
        "base",
        "rag",
        "plain_fine_tuned",
        "fine_tuned",
        "rag_plain_fine_tuned",
        "rag_fine_tuned",
    )
    assert result.arms["rag_plain_fine_tuned"].right == Rate(0, 25)
    trap = result.find("rag_fine_tuned", "rag_plain_fine_tuned")
    assert (trap.only_first, trap.only_second) == (25, 0)
    assert "RAG + plain tuned" in result.table()
    assert max(len(line) for line in result.table().splitlines()) <= 100


def test_questions_at_once_give_the_same_rows_in_the_same_order(scripted, questions) -> None:
    asked = questions(11, unanswerable=2)

    def sometimes(question: Question) -> str:
        if question.id == "q5":
            raise RuntimeError("out of memory")
        return house(question)

    engine = scripted(asked, {"rag": sometimes})

    def rows(workers: int) -> list[object]:
        result = compare_strategies(engine, questions=asked, workers=workers, show_progress=False)
        return [dataclasses.replace(row, latency_s=0.0, machine_s=0.0) for row in result.rows]

    one_by_one = rows(1)
    assert one_by_one == rows(4) == rows(13) == rows(100)


class Slow:
    """Notes how many queries run at once."""

    def __init__(self) -> None:
        self.running = self.most = 0

    def with_strategy(self, strategy):
        return self

    async def aquery(self, question):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return Response("1.5 bar")


def test_no_more_are_asked_at_once_than_workers(questions) -> None:
    engine = Slow()
    result = compare_strategies(
        engine, questions=questions(10), strategies=["base"], workers=3, show_progress=False
    )
    assert engine.most == 3
    # the three of a block shared the machine
    assert all(row.machine_s < row.latency_s for row in result.rows[:9])
    assert result.settings["asked at once"] == "3"


def test_questions_at_once_work_inside_a_running_event_loop(questions) -> None:
    async def notebook():
        return compare_strategies(
            Slow(), questions=questions(2), strategies=["base"], workers=2, show_progress=False
        )

    assert [row.answer for row in asyncio.run(notebook()).rows] == ["1.5 bar", "1.5 bar"]


def test_an_asynchronous_stream_is_read_to_its_end(questions) -> None:
    class Streaming(Slow):
        async def aquery(self, question):
            async def pieces():
                yield "1.5"
                yield " bar"

            return AsyncStreamingResponse(response_gen=pieces())

    result = compare_strategies(
        Streaming(), questions=questions(2), strategies=["base"], workers=2, show_progress=False
    )
    assert result.rows[0].answer == "1.5 bar"


def test_questions_at_once_need_an_engine_that_can(questions) -> None:
    class Plain:
        def with_strategy(self, strategy):
            return self

        def query(self, question):
            return Response("x")

    with pytest.raises(ValueError, match="a Plain, has no aquery"):
        compare_strategies(Plain(), questions=questions(1), strategies=["base"], workers=2)
    with pytest.raises(ValueError, match="workers is 0"):
        compare_strategies(Plain(), questions=questions(1), workers=0)


def test_citations_and_quotes_are_counted_one_by_one(scripted, questions) -> None:
    asked = questions(2)
    replies = {
        "q1": '[1] 1.5 bar, "pressure 1.5 bar" [2] 1 bar',  # the second cites the wrong passage
        "q2": '[1] 2.5 bar "pressure of 2.5"',  # no such words stand there
    }
    result = compare_strategies(
        scripted(asked, {"rag": lambda question: replies[question.id]}, bare=True),
        questions=asked,
        strategies=["rag"],
        show_progress=False,
    )
    arm = result.arms["rag"]
    assert arm.citation_precision == Rate(2, 3)
    assert arm.citation_recall == Rate(2, 2)
    assert arm.citation_right == Rate(1, 2)
    # three quotes of citations and one in quotation marks are exact, the other is not
    assert arm.quotes_exact == Rate(4, 5)


def test_citations_that_the_engine_took_out_are_not_counted_as_given(questions) -> None:
    class Repairing(Slow):
        def query(self, question):
            citation = {"marker": 1, "node_id": None, "quote": "", "verified": False}
            return Response("1.5 bar", metadata={"citations": [citation], "abstained": False})

    result = compare_strategies(
        Repairing(), questions=questions(1), strategies=["base"], show_progress=False
    )
    assert result.arms["base"].citation_precision == Rate(0, 0)
    assert result.arms["base"].citation_recall == Rate(0, 1)


def test_terms_count_where_an_answer_names_one(scripted, questions) -> None:
    glossary = Glossary((Term(term="PDIS", banned=("head",)),))
    asked = questions(4)
    replies = {"q1": "1.5 bar | PDIS", "q2": "2.5 bar head", "q3": "3.5 bar", "q4": "I don't know."}
    result = compare_strategies(
        scripted(asked, {"base": lambda question: replies[question.id]}),
        questions=asked,
        strategies=["base"],
        glossary=glossary,
        show_progress=False,
    )
    assert [row.terms_right for row in result.rows] == [True, False, None, None]
    assert result.arms["base"].terms_right == Rate(1, 2)


def test_provenance_is_kept_as_the_engine_gives_it(questions, tmp_path) -> None:
    traced = {"weights": {"share": 0.25}, "passages": [{"marker": 1, "share": 0.75}]}

    class Tracing(Slow):
        def query(self, question):
            return Response("1.5 bar", metadata={"provenance": traced})

    result = compare_strategies(
        Tracing(), questions=questions(1), strategies=["base"], show_progress=False
    )
    result.to_json(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content["rows"][0]["provenance"] == traced


def test_metadata_of_another_shape_fails_the_answer_and_not_the_comparison(questions) -> None:
    class Odd(Slow):
        def query(self, question):
            return Response("1.5 bar", metadata={"citations": [{"page": 3}]})

    result = compare_strategies(
        Odd(), questions=questions(1), strategies=["base"], show_progress=False
    )
    assert result.rows[0].error == "KeyError: 'marker'"
