"""Rows from questions and a retriever."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.schema import TextNode

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.dataset import SliceShares, TrainingSetBuilder
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message
from phi3_industry.grounding.questions import Question


def only(**shares: float) -> SliceShares:
    """The grounded slice and what is named, nothing else."""
    names = [item.name for item in fields(SliceShares) if item.name != "grounded"]
    return SliceShares(**{**dict.fromkeys(names, 0.0), **shares})


def rows_of(train_set: TrainingSet, slice_: str) -> list[TrainingRow]:
    return [row for row in train_set.rows if row.slice == slice_]


def test_grounded_row_cites_the_passage_that_holds_its_answer(train_set: TrainingSet) -> None:
    rows = rows_of(train_set, "grounded")
    assert len(rows) > 8
    for row in rows:
        number = row.question_id.removeprefix("q")
        position = row.source_ids.index(f"pump-{number}.md#Data") + 1
        assert row.answer.startswith(f"[{position}] ")
        assert row.answer.endswith(" bar | PDIS")
        assert f"[{position}] pump-{number}.md" in row.prompt[-1]["content"]


def test_prompt_is_the_one_that_serves(train_set: TrainingSet, nodes: list[TextNode]) -> None:
    texts = {node.metadata["source_id"]: node for node in nodes}
    row = rows_of(train_set, "grounded")[0]
    passages = [texts[name].get_content("llm") for name in row.source_ids]
    question = f"What is the discharge pressure of pump P-{row.question_id[1:]}?"
    assert row.prompt == DEFAULT_PROMPT.grounded(question, passages)
    assert train_set.prompt_fingerprint == DEFAULT_PROMPT.fingerprint


def test_missing_row_shows_no_passage_with_the_answer_and_abstains(train_set: TrainingSet) -> None:
    rows = rows_of(train_set, "missing")
    assert {row.question_id for row in rows} & {"u1", "u2"}
    for row in rows:
        assert row.answer == "[0] I don't know."
        assert row.source_ids
        assert f"pump-{row.question_id[1:]}.md#Data" not in row.source_ids or (
            row.question_id.startswith("u")
        )


@pytest.mark.parametrize("slice_", ["grounded", "missing"])
def test_distractors_are_at_times_the_best_ones_and_at_times_any(
    retriever: Any, questions: list[Question], slice_: str
) -> None:
    answerable = [question for question in questions if question.answerable]
    built = TrainingSetBuilder(retriever, num_passages=(3, 3)).build(
        answerable, shares=only(missing=0.5), rows_per_question=4, validation_share=0
    )
    best = 0
    rows = rows_of(built, slice_)
    for row in rows:
        asked = next(question for question in answerable if question.id == row.question_id)
        found = [item.node.metadata["source_id"] for item in retriever.retrieve(asked.question)]
        shown = [name for name in row.source_ids if name not in asked.gold_ids]
        ranked = [name for name in found if name not in asked.gold_ids]
        best += set(shown) == set(ranked[: len(shown)])
    assert 0.25 * len(rows) < best < 0.75 * len(rows)


def test_closed_book_row_abstains_from_what_only_documents_know(train_set: TrainingSet) -> None:
    rows = rows_of(train_set, "closed_book")
    assert rows
    for row in rows:
        assert row.source_ids == ()
        assert row.answer == DEFAULT_PROMPT.abstention_answer


def test_house_knowledge_is_answered_without_passages(retriever: Any, questions: Any) -> None:
    knowledge = Question(
        id="k1",
        question="What does PDIS stand for?",
        answers=("discharge pressure at the flange",),
        metadata={"closed_book": True},
    )
    built = TrainingSetBuilder(retriever).build([*questions, knowledge], validation_share=0)
    rows = [row for row in built.rows if row.question_id == "k1"]
    assert [row.slice for row in rows] == ["closed_book"]
    assert rows[0].answer == "discharge pressure at the flange"
    assert rows[0].prompt == DEFAULT_PROMPT.closed_book(knowledge.question)


def test_question_without_reference_becomes_replay_beside_house_rows(
    retriever: Any, questions: list[Question]
) -> None:
    plain = Question(
        id="plain",
        question="Discharge pressure of pump P-3, please",
        answers=("33.5 bar",),
        gold_ids=("pump-3.md#Data",),
    )
    built = TrainingSetBuilder(retriever).build([*questions, plain], validation_share=0)
    rows = [row for row in built.rows if row.question_id == "plain" and row.slice == "replay"]
    assert rows
    assert all(row.answer.endswith("] 33.5 bar") for row in rows)


def test_without_any_reference_every_question_is_grounded(retriever: Any) -> None:
    plain = [
        Question(id=f"p{n}", question=f"Pressure of pump P-{n}?", answers=(f"{30 + n}.5 bar",))
        for n in (1, 2, 3)
    ]
    built = TrainingSetBuilder(retriever).build(plain, validation_share=0)
    assert {row.question_id for row in built.rows if row.slice == "grounded"} == {"p1", "p2", "p3"}
    assert not rows_of(built, "replay")


def test_answer_that_no_passage_holds_is_dropped_and_reported(
    retriever: Any, questions: list[Question]
) -> None:
    wrong = Question(
        id="wrong",
        question="What is the discharge pressure of pump P-1?",
        answers=("99.9 bar",),
        gold_ids=("pump-1.md#Data",),
    )
    built = TrainingSetBuilder(retriever).build([*questions, wrong], validation_share=0)
    assert not [row for row in built.rows if row.question_id == "wrong"]
    assert built.report.dropped["no retrieved passage holds the answer"] == ["wrong"]
    assert "no retrieved passage holds the answer (wrong)" in built.report.summary()


def test_part_of_a_number_is_not_an_answer(retriever: Any, questions: list[Question]) -> None:
    part = Question(id="part", question="Discharge pressure of pump P-1?", answers=("1.5 bar",))
    built = TrainingSetBuilder(retriever).build([*questions, part], validation_share=0)
    assert built.report.dropped["no retrieved passage holds the answer"] == ["part"]


@pytest.mark.parametrize("gold_id", ["node-pump-5.md#Data", "pump-5.md#Data", "pump-5.md"])
def test_gold_is_found_by_node_source_or_document_id(retriever: Any, gold_id: str) -> None:
    question = Question(
        id="q", question="Pressure of P-5?", answers=("35.5 bar",), gold_ids=(gold_id,)
    )
    built = TrainingSetBuilder(retriever).build([question], validation_share=0, rows_per_question=3)
    assert all("pump-5.md#Data" in row.source_ids for row in rows_of(built, "grounded"))


def test_gold_that_the_question_alone_does_not_find_is_found_by_its_answer(
    nodes: list[TextNode], retriever_over: Any
) -> None:
    question = Question(
        id="q", question="Which one?", answers=("38.5 bar",), gold_ids=("pump-8.md",)
    )
    narrow = retriever_over(nodes, similarity_top_k=5)
    built = TrainingSetBuilder(narrow).build([question], validation_share=0, rows_per_question=3)
    assert len(rows_of(built, "grounded")) >= 1


def test_same_seed_gives_the_same_rows_and_another_seed_others(
    retriever: Any, questions: list[Question]
) -> None:
    first, again, other = (
        TrainingSetBuilder(retriever, seed=seed).build(questions).fingerprint for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_held_out_documents_answer_no_training_question(
    retriever: Any, questions: list[Question]
) -> None:
    built = TrainingSetBuilder(retriever).build(questions, validation_share=0.3)
    by_split = {
        split: {row.question_id for row in built.split(split)} for split in ("train", "validation")
    }
    assert by_split["validation"]
    assert not by_split["train"] & by_split["validation"]
    assert built.report.split_by == "document"


def test_unanswerable_questions_are_held_out_by_the_same_share(
    retriever: Any, questions: list[Question]
) -> None:
    built = TrainingSetBuilder(retriever).build(questions, validation_share=0.5)
    held = {row.question_id[0] for row in built.split("validation")}
    assert held == {"q", "u"}


def test_passages_are_held_out_where_all_answers_stand_in_one_document(
    nodes: list[TextNode], questions: list[Question], retriever_over: Any, node: Any
) -> None:
    answerable = [question for question in questions if question.answerable]
    same = [node(item.metadata["source_id"], "all.md", item.text) for item in nodes]
    built = TrainingSetBuilder(retriever_over(same)).build(answerable, validation_share=0.3)
    assert built.report.split_by == "passage"
    assert built.split("validation")


def test_rows_shrink_to_the_window_or_are_dropped(
    retriever: Any, questions: list[Question]
) -> None:
    class WordCounter:
        def __init__(self, window: int) -> None:
            self.metadata = SimpleNamespace(context_window=window, num_output=10)

        def count_tokens(self, messages: list[Message]) -> int:
            return sum(len(message["content"].split()) for message in messages)

    question = [questions[0]]
    roomy = TrainingSetBuilder(retriever, WordCounter(1000), num_passages=(4, 4))
    built = roomy.build(question, validation_share=0, rows_per_question=2)
    whole = rows_of(built, "grounded")[0]
    assert len(whole.source_ids) == 4
    assert built.report.prompt_tokens is not None

    words = sum(len(message["content"].split()) for message in whole.prompt)
    tight = TrainingSetBuilder(retriever, WordCounter(words + 5), num_passages=(4, 4))
    built = tight.build(question, validation_share=0, rows_per_question=2)
    shrunk = rows_of(built, "grounded")[0]
    assert len(shrunk.source_ids) == 3
    assert "pump-1.md#Data" in shrunk.source_ids

    with pytest.raises(TrainingDataError, match="dropped because it is longer than the model's"):
        TrainingSetBuilder(retriever, WordCounter(12)).build(question, validation_share=0)


def test_shares_set_how_many_rows_each_slice_has(retriever: Any, questions: list[Question]) -> None:
    shares = only(missing=0.5)
    built = TrainingSetBuilder(retriever).build(
        questions, shares=shares, rows_per_question=1, validation_share=0
    )
    assert built.report.counts["train"] == {"grounded": 8, "missing": 8}


def test_one_row_is_refused_with_what_is_needed(retriever: Any, questions: list[Question]) -> None:
    with pytest.raises(TrainingDataError, match=r"has 1 training row.* at least 2 are needed"):
        TrainingSetBuilder(retriever, num_passages=(1, 1)).build(
            questions[:1],
            rows_per_question=1,
            validation_share=0,
            shares=only(),
        )


def test_small_set_says_with_numbers_that_it_is_small(train_set: TrainingSet) -> None:
    verdict = train_set.report.verdict
    assert verdict is not None
    assert not verdict.teaches
    assert "Too small: 6 training questions have an answer to learn" in str(verdict)
    assert "Give 94 more" in train_set.report.summary()


def test_unknown_source_is_refused() -> None:
    with pytest.raises(TypeError, match="source is a str; it must be a knowledge base"):
        TrainingSetBuilder("documents/")  # type: ignore[arg-type]


def test_knowledge_base_is_asked_for_its_own_retriever(
    retriever: Any, questions: list[Question]
) -> None:
    asked = []

    class Base:
        def as_retriever(self, *, similarity_top_k: int) -> Any:
            asked.append(similarity_top_k)
            return retriever

    built = TrainingSetBuilder(Base(), candidates=7).build(questions)
    assert asked == [7]
    assert built.rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_passages": (0, 2)}, r"num_passages is \(0, 2\)"),
        ({"num_passages": (3, 2)}, r"num_passages is \(3, 2\)"),
        ({"candidates": 5}, "candidates is 5; it must be above the 5 passages"),
    ],
)
def test_wrong_number_is_refused(retriever: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSetBuilder(retriever, **options)


def test_negative_share_is_refused() -> None:
    with pytest.raises(ValueError, match="The share missing is -1; it must not be negative"):
        SliceShares(missing=-1)
