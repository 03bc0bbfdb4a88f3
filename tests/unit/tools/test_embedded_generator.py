from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tools.train_embedded_model import attributes, facts, tables
from tools.train_embedded_model.conversations import (
    Conversation,
    Difficulty,
    _near_miss,
    draw_conversation,
)
from tools.train_embedded_model.documents import document_family
from tools.train_embedded_model.draw import Draw, Split, held_out, wordings
from tools.train_embedded_model.questions import composed_question
from tools.train_embedded_model.real_tables import load_training_tables
from tools.train_embedded_model.stages import STAGES
from tools.train_embedded_model.tables import Table, draw_table, row_family, row_text
from tools.train_embedded_model.wordings import many_worded_key_question, many_worded_question

from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.ingestion.tables import row_texts


def conversations(seed: int, count: int, split: Split = "train") -> list[Conversation]:
    draw = Draw(seed, split)
    return [draw_conversation(draw, STAGES[n % len(STAGES)].difficulty) for n in range(count)]


def test_same_seed_gives_the_same_conversations() -> None:
    assert conversations(7, 40) == conversations(7, 40)
    assert conversations(7, 40) != conversations(8, 40)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_value_stands_word_for_word_in_the_cited_passage(split: Split) -> None:
    turns = [(c, t) for c in conversations(1, 300, split) for t in c.turns]
    answered = [(c, t) for c, t in turns if t.marker]
    assert len(answered) > 800
    for conversation, turn in answered:
        assert turn.value in conversation.passages[turn.marker - 1]
        assert turn.answer == f"[{turn.marker}] {turn.value}"


def test_a_third_of_the_questions_has_no_answer_and_says_so() -> None:
    turns = [t for c in conversations(2, 400) for t in c.turns]
    unanswerable = [t for t in turns if not t.marker]
    assert 0.30 < len(unanswerable) / len(turns) < 0.42
    assert {t.answer for t in unanswerable} == {DEFAULT_PROMPT.abstention_answer}


def test_held_out_numbers_are_never_answers_in_training() -> None:
    numbers = [
        turn.value
        for conversation in conversations(3, 400)
        for turn in conversation.turns
        if turn.marker and any(character.isdigit() for character in turn.value)
    ]
    assert len(numbers) > 800
    assert not [number for number in numbers if held_out(number)]


def test_evaluation_answers_only_with_held_out_numbers() -> None:
    numbers = [
        turn.value
        for conversation in conversations(3, 250, "eval")
        for turn in conversation.turns
        if turn.marker and any(character.isdigit() for character in turn.value)
    ]
    assert len(numbers) > 400
    assert all(held_out(number) for number in numbers)


@pytest.mark.parametrize(("split", "expected"), [("train", False), ("eval", True)])
def test_names_belong_to_their_split(split: Split, expected: bool) -> None:
    draw = Draw(4, split)
    families = [document_family(draw, passages=4, max_facts=3, filler=0.3) for _ in range(40)]
    made = [draw_table(draw, rows=5, max_columns=4) for _ in range(40)]
    families += [row_family(table, draw, shown=3) for table in made]
    subjects = {
        fact.subject
        for family in families
        for passage in family.passages
        for fact in passage.facts
        if fact.kind != "key"
    }
    assert len(subjects) > 150
    assert {held_out(subject) for subject in subjects} == {expected}


def test_held_out_wordings_are_apart_from_those_of_training() -> None:
    groups = [tables.CELL_QUESTIONS, tables.PERIOD_QUESTIONS, tables.KEY_ONLY_QUESTIONS]
    groups += [tables.COUNT_QUESTIONS, tables.REVERSE_QUESTIONS]
    draw = Draw(5)
    groups += [attributes.draw_attribute(draw).questions for _ in range(300)]
    groups = [templates for templates in groups if len(templates) >= 3]
    train = {wording for templates in groups for wording in wordings(templates, "train")}
    held = {wording for templates in groups for wording in wordings(templates, "eval")}
    assert len(train) > 100
    assert len(held) > 30
    assert not train & held


def test_most_training_prompts_are_the_ones_that_the_library_sends() -> None:
    default = 0
    drawn = [c for c in conversations(6, 400) if c.passages]
    for conversation in drawn:
        question = conversation.turns[0].question
        wanted = DEFAULT_PROMPT.grounded(question, conversation.passages)
        default += conversation.prompt(question) == wanted
    assert default / len(drawn) >= 0.7


def test_closed_book_conversations_abstain_in_the_closed_book_prompt() -> None:
    difficulty = Difficulty(passages=(1, 2), questions=2, closed_book=1.0)
    conversation = draw_conversation(Draw(0), difficulty)
    question = conversation.turns[0].question
    assert conversation.prompt(question) == DEFAULT_PROMPT.closed_book(question)
    assert [turn.answer for turn in conversation.turns] == ["[0] I don't know."]


def test_rows_are_written_as_ingestion_writes_them() -> None:
    columns, row = ("Pump", "Pressure (bar)", "Seal", "Price"), ("P-4471", "38.2", "", "$1,000")
    written = row_text(columns, row)
    assert written == "Pump: P-4471; Pressure (bar): 38.2; Price: $1,000"
    ingested = row_texts(columns, row, 0, max_tokens=500, count_tokens=len)
    assert list(ingested) == [written]


def test_an_absent_row_is_not_asked_by_a_name_that_a_shown_row_has() -> None:
    table = Table("Seals", ("Seal", "Size"), (("red oil seal", "5"), ("blue oil seal", "7")))
    for seed in range(60):
        family = row_family(table, Draw(seed), shown=1)
        shown = family.passages[0].facts[0]
        hidden = [fact for fact in family.absent if fact.subject != shown.subject]
        assert hidden
        for fact in hidden:
            assert "oil seal" not in fact.mentions


def test_real_tables_that_measure_the_library_are_left_out(tmp_path: Path) -> None:
    rows = [["", "2019", "2018"], ["Revenue", "10", "12"], ["Costs", "7", "8"], ["Tax", "2", "3"]]
    names = ["t-a-table", "t-b-table", "t-c-table"]
    lines = (json.dumps({"id": name, "rows": rows}) for name in names)
    (tmp_path / "tables.jsonl").write_text("\n".join(lines), encoding="utf-8")
    question = {"id": "q", "question": "?", "answers": [], "gold_ids": ["t-a-p01"]}
    (tmp_path / "questions.dev.jsonl").write_text(json.dumps(question), encoding="utf-8")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t-b-table.csv").write_text("", encoding="utf-8")

    found = load_training_tables(tmp_path)

    assert len(found) == 1
    assert found[0].columns == ("Item", "2019", "2018")
    kept = [cell for row in found[0].rows for cell in row if cell]
    assert kept
    assert not [cell for cell in kept if held_out(cell)]


def _held_out_wordings() -> set[str]:
    lists = (
        attributes._QUESTIONS,
        attributes._NUMERIC_QUESTIONS,
        facts.KEY_ONLY_QUESTIONS,
        tables.CELL_QUESTIONS,
        tables.PERIOD_QUESTIONS,
    )
    return {wording.lower() for templates in lists for wording in wordings(templates, "eval")}


@pytest.mark.parametrize(
    "make", [composed_question, many_worded_question, many_worded_key_question]
)
def test_no_question_put_together_for_training_is_a_held_out_wording(
    make: Callable[[Draw], str],
) -> None:
    draw = Draw(11)
    made = {make(draw).lower() for _ in range(4000)}
    assert len(made) > 50
    assert not made & _held_out_wordings()


def test_many_wordings_change_questions_in_training_only() -> None:
    plain, varied = STAGES[3].difficulty, replace(STAGES[3].difficulty, many_wordings=1.0)
    for split, differs in (("train", True), ("eval", False)):
        one, other = (
            [
                t.question
                for c in (draw_conversation(Draw(n, split), d) for n in range(30))
                for t in c.turns
            ]
            for d in (plain, varied)
        )
        assert (one != other) is differs


def test_a_near_miss_asks_a_held_fact_of_a_name_one_character_away() -> None:
    draw = Draw(5)
    difficulty = replace(STAGES[3].difficulty, near_misses=1.0)
    family = document_family(draw, passages=4, max_facts=3, filler=0.0)
    held = [(n, fact) for n, p in enumerate(family.passages, start=1) for fact in p.facts]
    names = [fact.identity for _, fact in held]
    found = [_near_miss(draw, held, names, difficulty) for _ in range(300)]
    missed = [fact for fact in found if fact is not None]
    assert len(missed) > 200
    for fact in missed:
        assert fact.identity not in names
        assert all(fact.subject in mention for mention in fact.mentions)
        assert any(
            len(fact.subject) == len(other.subject)
            and sum(a != b for a, b in zip(fact.subject, other.subject, strict=True)) == 1
            for _, other in held
        )
