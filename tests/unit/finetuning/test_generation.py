"""Questions made of the documents themselves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from scripted_llm import ScriptedLLM

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.dataset import TrainingSetBuilder
from phi3_industry.finetuning.generation import ask_tables
from phi3_industry.finetuning.wordings import DEFAULT_WORDINGS, Wordings
from phi3_industry.grounding.questions import load_questions
from phi3_industry.ingestion import SectionNodeParser, parse_document

TABLE = """Tag,Oil,Pressure,Stock,Note
P-1,Tovex 32,12.50,3,
P-2,Tovex 46,14,5,spare
"""
OTHER = """Tag,Oil,Seal
P-1,Tovex 32,S-9
P-2,Alba 1,S-7
"""


def nodes_of(text: str, name: str = "pumps.csv") -> list[TextNode]:
    document = parse_document(text.encode(), name=name)
    return SectionNodeParser(token_counter=len).nodes_of(document, document_id=name)


def asked_of(nodes: list[TextNode], **options: Any) -> dict[str, tuple[str, ...]]:
    wordings = Wordings(table=("{row}|{column}",))
    questions = ask_tables(nodes, wordings=wordings, seed=0, **options)
    return {question.question: question.answers for question in questions}


def test_cells_are_asked_for_as_the_table_spells_them() -> None:
    asked = asked_of(nodes_of(TABLE), unanswerable_share=0)
    assert asked == {
        "P-1|Oil": ("Tovex 32",),
        "P-1|Pressure": ("12.50",),
        "P-1|Stock": ("3",),
        "P-2|Oil": ("Tovex 46",),
        "P-2|Pressure": ("14",),
        "P-2|Stock": ("5",),
        "P-2|Note": ("spare",),
    }


def test_cell_that_two_tables_give_differently_is_not_asked_for() -> None:
    asked = asked_of(nodes_of(TABLE) + nodes_of(OTHER, "oils.csv"), unanswerable_share=0)
    assert asked["P-1|Oil"] == ("Tovex 32",)
    assert "P-2|Oil" not in asked
    assert asked["P-1|Seal"] == ("S-9",)


def test_some_questions_ask_for_what_no_table_gives() -> None:
    asked = asked_of(nodes_of(TABLE), unanswerable_share=0.125)
    assert [question for question, answers in asked.items() if not answers] == ["P-1|Note"]


def test_questions_point_at_their_node() -> None:
    nodes = nodes_of(TABLE)
    questions = ask_tables(nodes, wordings=DEFAULT_WORDINGS, seed=0)
    assert {question.gold_ids for question in questions if question.answerable} == {
        (node.node_id,) for node in nodes
    }


def knowledge_base(nodes: list[TextNode], retriever_over: Any) -> Any:
    return SimpleNamespace(
        as_retriever=lambda similarity_top_k: retriever_over(nodes),
        vector_store=SimpleNamespace(get_nodes=lambda: nodes),
    )


def test_a_knowledge_base_alone_becomes_a_training_set(retriever_over: Any) -> None:
    nodes = nodes_of(TABLE)
    builder = TrainingSetBuilder(knowledge_base(nodes, retriever_over))
    built = builder.build(validation_share=0)
    assert built.report.questions >= 7
    assert built.report.counts["train"]["grounded"] == 7


def test_knowledge_base_without_tables_is_told_what_else_to_give(
    nodes: list[TextNode], retriever_over: Any
) -> None:
    builder = TrainingSetBuilder(knowledge_base(nodes, retriever_over))
    with pytest.raises(TrainingDataError, match=r"Give questions, or make some with"):
        builder.build()


def test_retriever_alone_needs_the_nodes(retriever: Any) -> None:
    with pytest.raises(TypeError, match="A WordRetriever does not list its nodes"):
        TrainingSetBuilder(retriever).generate_questions()


def test_question_that_its_retriever_does_not_find_is_dropped(retriever_over: Any) -> None:
    nodes = nodes_of(TABLE)
    narrow = retriever_over(nodes[:1])  # P-2's row is not in what is searched
    made = TrainingSetBuilder(narrow).generate_questions(nodes=nodes, unanswerable_share=0)
    assert {question.metadata["row"] for question in made.questions} == {"P-1"}
    assert len(made.dropped["the retriever does not find its passage"]) == 4


def reply(prompt: str) -> str:
    number = prompt.rpartition("pump P-")[2][0]
    good = {"question": f"How much pressure has pump P-{number}?", "answer": f"3{number}.5 bar"}
    bad = {"question": "What does it weigh?", "answer": "7 kg"}
    return f"Sure!\n```json\n{json.dumps(good)}\n{json.dumps(bad)} and {{broken\n```"


def test_model_asks_about_text_and_its_answers_are_checked(
    retriever: Any, nodes: list[TextNode]
) -> None:
    made = TrainingSetBuilder(retriever).generate_questions(
        llm=ScriptedLLM(reply=reply), nodes=nodes
    )
    assert len(made.questions) == 8
    assert made.questions[0].answers == ("31.5 bar",)
    assert len(made.dropped["its answer does not stand in the passage"]) == 8
    assert "dropped 8: its answer does not stand" in str(made)


def test_reader_has_to_find_the_answer(retriever: Any, nodes: list[TextNode]) -> None:
    def reads(prompt: str) -> str:
        return "[1] 33.5 bar" if "P-3" in prompt else "[0] I don't know."

    made = TrainingSetBuilder(retriever).generate_questions(
        llm=ScriptedLLM(reply=reply), reader=ScriptedLLM(reply=reads), nodes=nodes
    )
    assert [question.answers for question in made.questions] == [("33.5 bar",)]
    assert len(made.dropped["the reader does not find its answer"]) == 7


def test_same_question_twice_is_kept_once(retriever: Any, nodes: list[TextNode]) -> None:
    made = TrainingSetBuilder(retriever).generate_questions(
        llm=ScriptedLLM(reply=reply), nodes=[nodes[0], nodes[0]]
    )
    assert len(made.questions) == 1
    assert len(made.dropped["it is a near-duplicate of another one"]) == 1


def test_failed_request_costs_its_node_alone(retriever: Any, nodes: list[TextNode]) -> None:
    def fails_on_one(prompt: str) -> str:
        if "P-4" in prompt:
            raise ConnectionError("gone")
        return reply(prompt)

    made = TrainingSetBuilder(retriever).generate_questions(
        llm=ScriptedLLM(reply=fails_on_one), nodes=nodes
    )
    assert len(made.questions) == 7
    assert made.dropped["the request failed (ConnectionError)"] == ["pump-4.md#Data"]


def test_model_that_always_fails_is_an_error(retriever: Any, nodes: list[TextNode]) -> None:
    def fails(prompt: str) -> str:
        raise ConnectionError("gone")

    with pytest.raises(TrainingDataError, match="failed on each of 8 passages, last with Conn"):
        TrainingSetBuilder(retriever).generate_questions(llm=ScriptedLLM(reply=fails), nodes=nodes)


def test_saved_questions_are_a_questions_file(
    retriever: Any, nodes: list[TextNode], tmp_path: Path
) -> None:
    made = TrainingSetBuilder(retriever).generate_questions(
        llm=ScriptedLLM(reply=reply), nodes=nodes, limit=5
    )
    path = made.save(tmp_path / "questions.jsonl")
    assert load_questions(path) == list(made.questions)
    with pytest.raises(FileExistsError):
        made.save(path)


@pytest.mark.parametrize("options", [{"per_node": 0}, {"limit": 0}, {"unanswerable_share": 1.0}])
def test_wrong_number_is_refused(retriever: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}"):
        TrainingSetBuilder(retriever).generate_questions(nodes=[], **options)
