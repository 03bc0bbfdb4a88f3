"""Kinds of questions are scored apart."""

import dataclasses

import pytest

from phi3_industry.errors import TrainingDataError
from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.costs import Upkeep
from phi3_industry.grounding.questions import Question, load_questions


@pytest.fixture
def stratified(scripted, questions):
    """60 questions: 30 in the corpus, 20 changed, 10 unanswerable."""

    def run(**settings):
        asked = [
            dataclasses.replace(one, metadata={**one.metadata, "stratum": "changed"})
            if 30 <= number < 50
            else one
            for number, one in enumerate(questions(50, unanswerable=10))
        ]
        engine = scripted(asked, {"fine_tuned": lambda question: "7 bar | PDIS"})
        return compare_strategies(engine, questions=asked, show_progress=False, **settings)

    return run


def test_a_question_without_an_answer_is_unanswerable_whatever_it_says() -> None:
    metadata = {"stratum": "changed"}
    assert Question(id="1", question="?", answers=(), metadata=metadata).stratum == "unanswerable"
    assert Question(id="1", question="?", answers=("x",), metadata=metadata).stratum == "changed"
    assert Question(id="1", question="?", answers=("x",)).stratum == "in_corpus"


def test_a_stratum_that_is_no_text_is_refused(tmp_path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "?", "answers": [], "metadata": {"stratum": 3}}\n', "utf-8")
    with pytest.raises(TrainingDataError, match="whose stratum is a text"):
        load_questions(path)


def test_each_stratum_has_its_own_rates_and_differences(stratified) -> None:
    strata = {stratum.name: stratum for stratum in stratified().strata}
    assert list(strata) == ["in_corpus", "changed", "unanswerable"]
    assert strata["in_corpus"].arms["rag_fine_tuned"].right == Rate(30, 30)
    assert strata["changed"].arms["rag"].right == Rate(0, 20)
    assert strata["changed"].arms["rag"].value_match == Rate(20, 20)
    assert strata["unanswerable"].arms["rag"].right == Rate(10, 10)
    assert strata["unanswerable"].arms["fine_tuned"].right == Rate(0, 10)
    gain = strata["changed"].contrasts[2]
    assert (gain.first, gain.second, gain.difference) == ("rag_fine_tuned", "rag", 1.0)
    assert gain.measure == "right"


def test_a_small_stratum_has_rates_but_no_differences(stratified) -> None:
    small = stratified().strata[-1]
    assert (small.questions, small.contrasts) == (10, ())


def test_the_table_shows_the_strata_only_if_there_are_several(stratified, compared) -> None:
    table = stratified().table()
    assert "changed after fin..." in table
    assert "20 questions" in table
    assert max(len(line) for line in table.splitlines()) <= 100
    assert "by kind of question" not in compared(3).table()


def test_freshness_is_said_with_both_times(stratified) -> None:
    summary = stratified(upkeep=Upkeep(training_s=5400, reindex_s=12)).summary()
    assert (
        "Right values on 20 facts that changed after fine-tuning, right after indexing again, "
        "which took 12.0 s: base 0 %, RAG 100 %, fine-tuned 0 %, RAG + fine-tuned 100 %. Weights "
        "know of a change only after training again: 90 min."
    ) in summary
    assert "right after indexing again: base" in stratified().summary()
