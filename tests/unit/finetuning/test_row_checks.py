"""What is checked of each row and label, and what the report says of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.schema import TextNode

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.checks import row_problem
from phi3_industry.finetuning.dataset import TrainingSetBuilder
from phi3_industry.finetuning.glossary import Glossary, Term
from phi3_industry.finetuning.report import judge
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.grounding.questions import Question


def row(answer: str, *, slice_: Any = "grounded", split: Any = "train", id_: str = "q") -> Any:
    return TrainingRow(
        prompt=[{"role": "user", "content": "?"}],
        completion=[{"role": "assistant", "content": answer}],
        slice=slice_,
        split=split,
        question_id=id_,
    )


@pytest.mark.parametrize(
    ("answer", "quote", "problem"),
    [
        ("[2] 38.2 bar | PDIS", "38.2 bar", None),
        ("[0] I don't know.", "", None),
        ("[1] 38.2 bar", "38.2 bar", "does not begin with a quote of the passage"),
        ("[2] 38,2 bar", "38.2 bar", "reference does not hold the answer"),
        ("[2] 38.2 BAR", "38.2 BAR", "no exact quote"),
        (" ", "", "it has no answer"),
        ("\ud83d", "", "no valid Unicode"),
        ("x" * 1_000_001, "", "more than 1000000 characters"),
    ],
)
def test_row_that_must_not_be_taught_has_a_reason(
    answer: str, quote: str, problem: str | None
) -> None:
    found = row_problem(row(answer), ["other", "It has 38.2 bar."], quote=quote)
    assert found is None if problem is None else problem in (found or "")


def test_answer_is_spelled_as_its_passage_spells_it(retriever_over: Any, node: Any) -> None:
    nodes = [node("a", "a.md", "Oil: TOVEX 32"), node("b", "b.md", "Oil: Alba")]
    asked = [
        Question(id="1", question="Oil?", answers=("Tovex 32",), reference="Tovex 32 (oil)"),
        Question(id="2", question="Which oil?", answers=("alba",), reference="alba (oil)"),
    ]
    built = TrainingSetBuilder(retriever_over(nodes)).build(asked, validation_share=0)
    answers = {r.answer[4:] for r in built.rows if r.slice == "grounded"}
    assert answers == {"TOVEX 32 (oil)", "Alba (oil)"}


def test_reference_without_its_answer_is_dropped(retriever: Any, questions: Any) -> None:
    changed = [replace(questions[0], reference="about thirty | PDIS"), *questions[1:]]
    built = TrainingSetBuilder(retriever).build(changed, validation_share=0)
    assert built.report.dropped["its reference does not hold the answer"].count("q1") >= 1
    assert not [r for r in built.rows if r.question_id == "q1" and r.slice == "grounded"]


def test_ten_megabyte_question_is_left_out_and_the_rest_stays(
    retriever: Any, questions: list[Question]
) -> None:
    big = Question(id="big", question="x" * 10_000_000, answers=("31.5 bar",))
    built = TrainingSetBuilder(retriever).build([*questions, big], validation_share=0)
    assert built.report.dropped["it has more than 1000000 characters"] == ["big"]
    assert built.report.counts["train"]["grounded"] == 8


def test_two_questions_of_one_id_are_refused(retriever: Any, questions: list[Question]) -> None:
    with pytest.raises(TrainingDataError, match="record 3, field 'id': The id 'q1' is there"):
        TrainingSetBuilder(retriever).build([*questions[:2], questions[0]])


def test_row_far_beyond_the_window_is_not_even_counted(retriever: Any, tmp_path: Any) -> None:
    class Counter:
        metadata = SimpleNamespace(context_window=100, num_output=10)

        def count_tokens(self, messages: Any) -> int:
            assert sum(len(message["content"]) for message in messages) < 10_000
            return 5

    path = tmp_path / "chat.jsonl"
    lines = [f'{{"instruction": "{n}", "output": "{"x" * size}"}}' for n, size in enumerate((9, 9))]
    big = f'{{"instruction": "big", "output": "{"x" * 900_000}"}}'
    path.write_text("\n".join([*lines, big]))
    built = TrainingSetBuilder(retriever, Counter()).build(conversations=path, validation_share=0)
    assert len(built.rows) == 2
    assert built.report.dropped == {"it is longer than the model's window": ["chat.jsonl:3"]}


def test_rows_stay_within_the_budget_of_serving(retriever: Any, questions: Any) -> None:
    class Counter:
        metadata = SimpleNamespace(context_window=1000, num_output=10)
        prompt_budget = 70

        def count_tokens(self, messages: Any) -> int:
            return sum(len(message["content"].split()) for message in messages)

    built = TrainingSetBuilder(retriever, Counter(), num_passages=(4, 4)).build(
        questions, validation_share=0
    )
    assert built.report.prompt_tokens is not None
    assert built.report.prompt_tokens["max"] <= 70


def test_suspect_labels_are_named_and_kept(retriever: Any, questions: list[Question]) -> None:
    again = replace(questions[0], id="again", answers=("32.5 bar",), gold_ids=("pump-2.md",))
    unit = Question(
        id="unit",
        question="discharge pressure of P-3?",
        answers=("33.5 bar",),
        reference="33.5 bar | X",
    )
    banned = replace(questions[3], reference="34.5 bar outlet pressure")
    glossary = Glossary((Term(term="discharge pressure", banned=("outlet pressure",), unit="MPa"),))
    built = TrainingSetBuilder(retriever).build(
        [*questions[:3], banned, again, unit], glossary=glossary, validation_share=0
    )
    suspects = built.report.suspects
    assert suspects["the same question has another answer elsewhere"] == ["q1", "again"]
    assert suspects["its answer holds a word that the glossary bans"] == ["q4"]
    assert "unit" in suspects["its answer has another unit than the glossary"]
    assert "unit" in {r.question_id for r in built.rows}
    assert built.report.verdict is not None
    assert "Too noisy: 6 of 6 questions have a suspect label" in str(built.report.verdict)


def test_held_out_copy_of_a_training_passage_is_taken_out(
    nodes: list[TextNode], questions: list[Question], retriever_over: Any, node: Any
) -> None:
    copies = [
        node(f"copy-{n.metadata['source_id']}", f"copy-{n.ref_doc_id}", n.text) for n in nodes
    ]
    asked = [q for q in questions if q.answerable]
    asked += [replace(q, id=f"copy-{q.id}", gold_ids=(f"copy-{q.gold_ids[0]}",)) for q in asked]
    builder = TrainingSetBuilder(retriever_over([*nodes, *copies], similarity_top_k=16))
    built = builder.build(asked, validation_share=0.5)
    trained = {r.question_id.removeprefix("copy-") for r in built.split("train")}
    held = {r.question_id.removeprefix("copy-") for r in built.split("validation")}
    assert built.report.leaks
    assert held
    assert not trained & held
    assert not set(built.report.leaks) & {r.question_id for r in built.rows}
    assert "held out no more, near-duplicates:" in built.report.summary()


def test_held_out_copy_of_a_training_exchange_is_taken_out(retriever: Any, tmp_path: Any) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text('{"instruction": "Say hello to the team", "output": "Hello, dear team"}\n' * 4)
    with_copies = TrainingSetBuilder(retriever).build
    other = tmp_path / "other.jsonl"
    other.write_text(
        "".join(f'{{"instruction": "Count to {n}", "output": "{n * "x"}"}}\n' for n in (3, 4, 5, 6))
    )
    built = with_copies(conversations=[path, other], validation_share=0.5)
    assert [name for name in built.report.leaks if name.startswith("chat")]
    held = {r.question_id for r in built.split("validation")}
    assert not held & set(built.report.leaks)


def test_verdict_counts_questions_and_not_rows() -> None:
    rows = [row("a", id_=str(n % 30)) for n in range(300)]
    verdict = judge(rows, questions=30, repeated=0, suspects=0)
    assert not verdict.teaches
    assert "Too small: 30 training questions have an answer to learn" in verdict.reasons[0]
    assert "No row is held out" in verdict.reasons[1]


def test_verdict_on_a_good_set_says_what_the_held_out_rows_can_show() -> None:
    rows = [row("a", id_=str(n)) for n in range(300)]
    rows += [row("a", id_=f"v{n}", split="validation") for n in range(100)]
    verdict = judge(rows, questions=400, repeated=10, suspects=40)
    assert verdict.teaches
    assert str(verdict) == (
        "This set can teach. 100 rows are held out: a share measured on them is uncertain by "
        "10 points."
    )


def test_verdict_on_a_set_that_repeats_itself_says_so() -> None:
    rows = [row("a", id_=str(n)) for n in range(300)]
    verdict = judge(rows, questions=300, repeated=250, suspects=0)
    assert "250 of them near-duplicates" in verdict.reasons[0]
    assert "Too alike: 250 of 300" in verdict.reasons[1]


def test_page_lists_every_slice_with_its_share(train_set: Any) -> None:
    page = train_set.report.markdown()
    assert page.startswith("# Training set\n\nThis set is not fit to teach.")
    total = sum(sum(counts.values()) for counts in train_set.report.counts.values())
    counts = [train_set.report.counts[split]["grounded"] for split in ("train", "validation")]
    share = f"{sum(counts) / total:.1%}"
    assert f"| grounded | {counts[0]} | {counts[1]} | {share} | 16 |" in page


def test_passages_that_the_question_does_not_find_are_counted(
    nodes: list[TextNode], retriever_over: Any
) -> None:
    narrow = retriever_over(nodes, similarity_top_k=5)
    asked = [
        Question(id=str(n), question=f"Which one is {n}?", answers=(f"3{n}.5 bar",), gold_ids=(g,))
        for n, g in ((8, "pump-8.md"), (7, "pump-7.md"))
    ]
    built = TrainingSetBuilder(narrow).build(asked, validation_share=0, rows_per_question=2)
    assert built.report.unfound == ["8", "7"]
    assert "not found by the question: 2 (8, 7)" in built.report.summary()
    assert "does not find the passage of 2 of 2 questions" in str(built.report.verdict)
