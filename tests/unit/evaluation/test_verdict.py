"""Arms, contrasts and the recommendation, on answers whose rates are known."""

import random

import pytest

from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.contrasts import cluster_questions
from phi3_industry.evaluation.rows import Passage
from phi3_industry.evaluation.statistics import required_questions
from phi3_industry.grounding.questions import Question


def right_in(share: float, *, seed: int = 0):
    """Answer as the house wants for a share of the questions, chosen by their ids."""

    def reply(question: Question) -> str:
        if random.Random(f"{seed} {question.id}").random() < share:
            return f"[1] {question.reference}"
        return "[1] nothing"

    return reply


def test_arms_count_what_they_say(compared) -> None:
    arms = compared(30, unanswerable=10).arms
    assert arms["rag_fine_tuned"].house_match == Rate(30, 30)
    assert arms["rag"].house_match == Rate(0, 30)
    assert arms["rag"].value_match == Rate(30, 30)
    assert arms["rag"].abstention == Rate(10, 10)
    assert arms["base"].over_refusal == Rate(30, 30)
    assert arms["fine_tuned"].abstention == Rate(0, 10)
    # "7 bar pdis" against "1.5 bar pdis": 2 * 2 / (3 + 3); for the seventh "7.5 bar | PDIS" too
    assert arms["fine_tuned"].token_f1 == pytest.approx(2 / 3)
    assert arms["rag"].citation_right == Rate(30, 30)
    assert arms["base"].citation_right == Rate(0, 30)
    assert arms["rag"].prompt_tokens == 90
    assert arms["rag"].latency_p95_s >= arms["rag"].latency_p50_s


def test_a_rate_without_trials_is_no_number() -> None:
    assert Rate.of([None, None]).share is None
    assert Rate.of([]).interval is None
    assert Rate.of([True, None, False]) == Rate(1, 2)


def test_contrasts_are_the_planned_ones_for_both_measures(compared) -> None:
    result = compared(30)
    assert [(one.measure, one.first, one.second) for one in result.contrasts] == [
        (measure, first, second)
        for measure in ("right", "value_match")
        for first, second in (
            ("rag", "base"),
            ("fine_tuned", "base"),
            ("rag_fine_tuned", "rag"),
            ("rag_fine_tuned", "fine_tuned"),
            ("rag_fine_tuned-rag", "fine_tuned-base"),
        )
    ]


def test_a_contrast_by_hand(compared) -> None:
    result = compared(30)
    both = result.find("rag_fine_tuned", "rag")
    assert (both.difference, both.only_first, both.only_second, both.questions) == (1.0, 30, 0, 30)
    assert both.p_value == pytest.approx(2 / 2**30)
    assert both.p_adjusted == pytest.approx(5 * 2 / 2**30)
    # all questions agree, so the bootstrap has no width and Newcombe's interval stands in
    assert 0.8 < both.interval.low < 1.0
    assert both.interval.high == 1.0
    same = result.find("rag_fine_tuned", "rag", measure="value_match")
    assert (same.difference, same.p_value) == (0.0, 1.0)
    assert same.interval.low < 0 < same.interval.high


def test_a_contrast_says_how_many_questions_would_show_it(compared) -> None:
    result = compared(100, script={"rag": right_in(0.8, seed=1), "base": right_in(0.7, seed=2)})
    found = result.find("rag", "base")
    discordance = (found.only_first + found.only_second) / 100
    assert found.questions_needed == required_questions(found.difference, discordance)
    assert result.find("rag_fine_tuned-rag", "fine_tuned-base").questions_needed is None
    same = compared(30).find("rag_fine_tuned", "rag", measure="value_match")
    assert (same.difference, same.questions_needed) == (0, None)


def test_the_interaction_by_hand(compared) -> None:
    result = compared(30)
    # with RAG the adapter gains the format of all 30, without it nothing
    found = result.find("rag_fine_tuned-rag", "fine_tuned-base")
    assert (found.difference, found.only_first, found.only_second) == (1.0, 30, 0)
    assert found.p_value == pytest.approx(2 / 2**30)
    # no draw differs, so the intervals of the two gains are combined
    gain, nothing = result.find("rag_fine_tuned", "rag"), result.find("fine_tuned", "base")
    assert found.interval.low == pytest.approx(
        1 - ((1 - gain.interval.low) ** 2 + nothing.interval.high**2) ** 0.5
    )


def test_the_interaction_needs_all_four_ways(scripted, questions) -> None:
    asked = questions(3)
    result = compare_strategies(
        scripted(asked), questions=asked, strategies=["rag", "rag_fine_tuned"], show_progress=False
    )
    assert [(one.first, one.second) for one in result.contrasts] == [
        ("rag_fine_tuned", "rag"),
        ("rag_fine_tuned", "rag"),
    ]


def test_an_unplanned_contrast_names_the_planned_ones(compared) -> None:
    with pytest.raises(KeyError, match="rag_fine_tuned - rag on right"):
        compared(3).find("base", "rag")


def test_what_the_adapter_costs_in_reading_is_measured(compared) -> None:
    result = compared(100, script={"rag_fine_tuned": right_in(0.7)})
    harm = result.reading_harm
    lost = sum(not row.value_match for row in result.by_strategy["rag_fine_tuned"])
    assert harm.difference == pytest.approx(-lost / 100)
    assert (harm.only_first, harm.only_second) == (0, lost)
    assert harm.interval.high < 0
    assert f"{lost} lost, 0 gained" in result.summary()


def test_documents_are_clusters_if_there_are_enough() -> None:
    questions = [
        Question(id=f"{number}", question="?", answers=("x",), gold_ids=(f"d{number // 2}.md#s",))
        for number in range(60)
    ]
    clusters = cluster_questions(questions, [])
    assert (clusters.level, clusters.count) == ("document", 30)
    assert clusters.of["0"] == clusters.of["1"] != clusters.of["2"]


def test_passages_are_clusters_where_documents_are_few() -> None:
    questions = [
        Question(id=f"{n}", question="?", answers=("x",), gold_ids=(f"one.csv#row {n // 2}",))
        for n in range(60)
    ]
    clusters = cluster_questions(questions, [])
    assert (clusters.level, clusters.count) == ("passage", 30)


def test_each_question_stands_alone_where_passages_are_few_too() -> None:
    questions = [
        Question(id=f"{number}", question="?", answers=("x",), gold_ids=("one.csv#row 1",))
        for number in range(60)
    ]
    assert cluster_questions(questions, []).level == "question"


def test_the_document_of_a_gold_passage_is_found_among_those_shown() -> None:
    passages = [
        Passage(node_id=f"n{number}", source_id=f"s{number}", document_id=f"d{number}", text="")
        for number in range(20)
    ]
    questions = [
        Question(id=f"{number}", question="?", answers=("x",), gold_ids=(f"n{number}",))
        for number in range(20)
    ]
    clusters = cluster_questions(questions, passages)
    assert clusters.of["3"] == "document d3"


def test_the_best_is_recommended_if_it_is_clearly_better(compared) -> None:
    verdict = compared(60).recommendation
    assert (verdict.verdict, verdict.strategy) == ("use", "rag_fine_tuned")
    assert str(verdict).startswith(
        "Use RAG + fine-tuned: it is right in 100 % of 60 questions; the best of the cheaper ones"
    )


def test_a_cheaper_one_is_recommended_if_it_is_not_worse(compared, replies) -> None:
    verdict = compared(250, script={"rag": replies["house"]}).recommendation
    assert (verdict.verdict, verdict.strategy) == ("use", "rag")

    # one of five hundred is lost, which is within two points
    def nearly(question: Question) -> str:
        return "[1] x" if question.id == "q1" else f"[1] {question.reference}"

    verdict = compared(500, script={"rag": nearly}).recommendation
    assert (verdict.verdict, verdict.strategy) == ("use", "rag")
    assert "not worse than the best, RAG + fine-tuned with 100 %, by more than 2 points" in str(
        verdict
    )


def test_too_few_questions_cannot_tell(compared) -> None:
    script = {"rag": right_in(0.8, seed=1), "rag_fine_tuned": right_in(0.85, seed=2)}
    verdict = compared(60, script=script).recommendation
    assert (verdict.verdict, verdict.strategy) == ("cannot_tell", None)
    assert verdict.questions_needed > 60
    assert str(verdict).startswith("Cannot tell whether RAG")
    assert f"about {verdict.questions_needed:,} questions needed" in str(verdict)


def test_a_handful_of_equal_answers_does_not_prove_equality(compared) -> None:
    def almost(question: Question) -> str:
        return "[1] x" if question.id == "q1" else f"[1] {question.reference}"

    assert compared(6, script={"rag": almost}).recommendation.verdict == "cannot_tell"


def test_nothing_is_recommended_where_nothing_is_right(compared, replies) -> None:
    verdict = compared(5, script={"rag_fine_tuned": replies["habit"]}).recommendation
    assert (verdict.verdict, verdict.strategy) == ("none", None)
    assert "to any of the 5 questions" in str(verdict)
    # abstaining from everything is right now and then, and still of no use
    result = compared(5, unanswerable=50, script={"rag_fine_tuned": replies["abstain"]})
    assert result.arms["base"].right == Rate(50, 55)
    assert result.recommendation.verdict == "none"


def test_nothing_is_recommended_without_an_answerable_question(compared) -> None:
    result = compared(0, unanswerable=4)
    assert result.contrasts == ()
    assert result.reading_harm is None
    assert result.recommendation.verdict == "none"
    assert "n/a" in result.table()


def test_an_answer_that_is_made_up_counts_against_a_way(compared, replies) -> None:
    script = {"rag_fine_tuned": lambda question: f"[1] {question.reference or '3 bar | PDIS'}"}
    result = compared(60, unanswerable=60, script={**script, "rag": replies["house"]})
    assert result.arms["rag_fine_tuned"].house_match == Rate(60, 60)
    assert result.arms["rag_fine_tuned"].right == Rate(60, 120)
    assert result.recommendation.strategy == "rag"


def test_each_verdict_names_its_rule(compared, replies) -> None:
    both = compared(60).recommendation
    assert "retrieve and fine-tune" in both.rule
    reading = compared(250, script={"rag": replies["house"]}).recommendation
    assert "where answers need outside data, retrieve it" in reading.rule
    assert "do not fine-tune yet" in reading.rule  # the adapter was asked and gained nothing
    closed = compared(250, script={"fine_tuned": replies["house"]}).recommendation
    assert (closed.strategy, closed.rule) == (
        "fine_tuned",
        "Rule: for stable knowledge and precise terms, fine-tune.",
    )
    alone = compared(250, script={"base": replies["house"]}).recommendation
    assert "needs neither documents nor training" in alone.rule
    script = {"rag": right_in(0.8, seed=1), "rag_fine_tuned": right_in(0.85, seed=2)}
    doubt = compared(60, script=script).recommendation
    assert doubt.rule.startswith("Rule: do not fine-tune yet")
    assert doubt.rule in compared(60, script=script).summary()


def test_what_cannot_be_told_apart_is_named_and_what_is_worse_too(compared) -> None:
    script = {"rag": right_in(0.8, seed=1), "rag_fine_tuned": right_in(0.85, seed=2)}
    verdict = compared(60, script=script).recommendation
    assert verdict.candidates == ("rag", "rag_fine_tuned")
    assert str(verdict).endswith("Worse than the best: base, fine-tuned.")
