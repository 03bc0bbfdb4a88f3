"""Calibration on questions whose rules are known, so that what is learned can be checked."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from engine_parts import FixedRetriever, ScoringLLM, engine, found
from llama_index.core.base.llms.types import CompletionResponse

from phi3_industry.errors import ConfigurationError, TrainingDataError
from phi3_industry.grounding.questions import Question
from phi3_industry.query_engine.calibration import CALIBRATION_NAME, Calibration
from phi3_industry.query_engine.fitting import Observation, Outcome, Wish, fit_calibration
from phi3_industry.query_engine.observing import gives_the_answer
from phi3_industry.query_engine.signals import Signals
from phi3_industry.query_engine.strategy import Strategy


def observations(
    number: int = 200, *, seed: int = 0, sufficiency: bool = True
) -> list[Observation]:
    """Questions that passages answer where they suffice, and weights where these are certain."""
    draw = random.Random(seed)
    made = []
    for index in range(number):
        enough, known = draw.random() < 0.5, draw.random() < 0.5
        noise = draw.uniform(-0.15, 0.15)
        made.append(
            Observation(
                group=f"g{index // 2}",
                answerable=enough or known,
                signals=Signals(
                    passages=3,
                    best_score=0.5 + draw.random() / 10,
                    score_margin=draw.random(),
                    sufficiency=(0.8 if enough else 0.2) + noise if sufficiency else None,
                    expert_certainty=(0.8 if known else 0.2) + noise,
                    draft_abstains=False,
                ),
                outcomes={
                    Strategy.RAG_FINE_TUNED: Outcome(True, enough, 200),
                    Strategy.FINE_TUNED: Outcome(True, known, 30),
                },
            )
        )
    return made


def fit(given: list[Observation], **wishes: Any) -> Calibration:
    return fit_calibration(given, wish=Wish(**wishes), fingerprints={"model": "m"})


def signals(sufficiency: float, expert_certainty: float) -> Signals:
    return Signals(
        passages=3,
        best_score=0.55,
        score_margin=0.5,
        sufficiency=sufficiency,
        expert_certainty=expert_certainty,
        draft_abstains=False,
    )


def test_each_question_is_answered_the_way_that_is_right_and_costs_least() -> None:
    learned = fit(observations())
    both = learned.choose(signals(0.9, 0.1))
    assert (both.strategy, both.abstains) == (Strategy.RAG_FINE_TUNED, False)
    assert learned.choose(signals(0.1, 0.9)).strategy is Strategy.FINE_TUNED
    neither = learned.choose(signals(0.1, 0.1))
    assert neither.abstains
    cheap = learned.choose(signals(0.85, 0.85))
    assert cheap.strategy is Strategy.FINE_TUNED
    assert learned.right_rate > 0.95
    assert learned.right_rate > max(way.right_rate for way in learned.ways.values()) + 0.2
    assert learned.tokens < 150


def test_reasons_are_one_sentence_with_the_numbers() -> None:
    reason = fit(observations()).choose(signals(0.9, 0.1)).reason
    assert reason.startswith(
        "The way 'rag_fine_tuned' is probably right (rag_fine_tuned 1.00, fine"
    )
    assert "sufficiency 0.900" in reason
    assert "calibration on 200 questions" in reason
    assert reason.count(". ") == 0


def test_the_reported_curve_is_honest_where_nothing_can_be_learned() -> None:
    draw = random.Random(1)
    noise = [
        Observation(
            group=str(index),
            answerable=True,
            signals=Signals(
                passages=3,
                best_score=draw.random(),
                score_margin=draw.random(),
                sufficiency=draw.random(),
                certainty=draw.random(),
                expert_certainty=draw.random(),
            ),
            outcomes={Strategy.RAG: Outcome(True, draw.random() < 0.5, 100)},
        )
        for index in range(60)
    ]
    learned = fit(noise)
    # fitted and judged on the same 60 questions it would look like 0.7 on its surest ones
    assert 0.3 < learned.aurc < 0.7
    last = learned.curve[-1]
    assert last.coverage == 1.0
    assert last.accuracy == pytest.approx(learned.ways[Strategy.RAG].right_rate)


@pytest.mark.parametrize(("unanswerable", "told_apart"), [(1, False), (20, True)])
def test_threshold_is_left_at_0_unless_it_gains_more_than_chance(
    unanswerable: int, told_apart: bool
) -> None:
    draw = random.Random(2)
    given = [
        Observation(
            group=str(index),
            answerable=index >= unanswerable,
            signals=Signals(
                passages=3,
                best_score=draw.uniform(0.6, 0.9) if index >= unanswerable else 0.5,
                score_margin=draw.random(),
            ),
            outcomes={Strategy.RAG: Outcome(True, index >= unanswerable, 100)},
        )
        for index in range(80)
    ]
    learned = fit(given)
    assert (learned.threshold > 0) is told_apart
    assert learned.right_rate >= (80 - unanswerable) / 80
    # who asks for a share of the questions gets a threshold all the same
    assert fit(given, coverage=0.5).threshold > 0


def test_questions_about_too_few_passages_are_refused() -> None:
    """Questions about one passage are never parted, so there have to be enough passages."""
    few = [observation for observation in observations() if observation.group in ("g1", "g2")]
    with pytest.raises(TrainingDataError, match="40 questions about 2 passages were given"):
        fit(few * 10)


def test_coverage_and_accuracy_are_knobs() -> None:
    given = observations(400)
    wide, narrow = fit(given, coverage=0.7), fit(given, coverage=0.2)
    assert wide.threshold < narrow.threshold
    accurate = fit(given, accuracy=0.99)
    reached = [point for point in accurate.curve if point.threshold >= accurate.threshold]
    assert reached[-1].accuracy >= 0.98
    assert [point.coverage for point in accurate.curve] == sorted(
        point.coverage for point in accurate.curve
    )
    impossible = fit([o for o in given if not o.answerable] + given[:20], accuracy=1.0)
    assert impossible.threshold > 0.5
    with pytest.raises(ValueError, match="give one"):
        Wish(coverage=0.5, accuracy=0.5)
    with pytest.raises(ValueError, match=r"coverage is 1\.5"):
        Wish(coverage=1.5)


def test_features_that_add_nothing_are_not_paid_for() -> None:
    """Where retrieval alone tells, neither the passages are read nor a draft is written."""
    draw = random.Random(3)
    told = []
    for index in range(100):
        right = draw.random() < 0.5
        told.append(
            Observation(
                group=str(index),
                answerable=right,
                signals=Signals(
                    passages=3,
                    best_score=0.9 if right else 0.1,
                    score_margin=0.5,
                    sufficiency=draw.random(),
                    expert_certainty=draw.random(),
                ),
                outcomes={Strategy.RAG: Outcome(True, right, 100)},
            )
        )
    learned = fit(told)
    assert learned.features == ("found", "best_score", "score_margin")
    assert not learned.needs("sufficiency")
    assert not learned.needs("certainty")
    assert fit(observations()).needs("sufficiency")
    assert not fit(observations(sufficiency=False)).needs("sufficiency")


def test_without_passages_only_ways_without_them_are_open() -> None:
    learned = fit(observations())
    assert set(learned.probabilities(Signals(passages=0))) == {Strategy.FINE_TUNED}
    reading = fit(
        [
            Observation(
                group=o.group,
                answerable=o.answerable,
                signals=o.signals,
                outcomes={Strategy.RAG: o.outcomes[Strategy.RAG_FINE_TUNED]},
            )
            for o in observations()
        ]
    )
    assert reading.choose(Signals(passages=0)).abstains


def test_it_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    learned = fit(observations())
    assert learned.save(tmp_path) == tmp_path / CALIBRATION_NAME
    assert Calibration.load(tmp_path) == learned
    assert Calibration.load(learned.save(tmp_path / "other.json")) == learned
    assert "auto             right 0.9" in str(learned)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:100],
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
        lambda text: text.replace('"rag_fine_tuned"', '"rag_and_more"'),
        lambda text: text.replace('"best_score"', '"no_such_feature"'),
        lambda text: json.dumps({**json.loads(text), "means": [0.0]}),
        lambda text: "[]",
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: Any) -> None:
    file = fit(observations()).save(tmp_path)
    file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"phi3_industry_calibration\.json' is no calibr"):
        Calibration.load(tmp_path)


# --- through the engine ---------------------------------------------------------------------------


def test_an_answer_is_right_if_it_holds_what_is_wanted_in_its_form() -> None:
    plain = Question(id="1", question="q", answers=("38.2 bar",))
    house = Question(id="1", question="q", answers=("38.2 bar",), reference="38.2 bar | PDIS")
    assert gives_the_answer("[2] It is 38.2 bar.", plain)
    assert not gives_the_answer("[2] 38.2 bar", house)
    assert gives_the_answer("[2] 38.2 bar | PDIS", house)
    assert not gives_the_answer("[2] 138.2 bar", plain)


QUESTIONS = [
    Question(id=str(number), question=f"pressure {number}?", answers=("38.2 bar",))
    if number % 2
    else Question(id=str(number), question=f"colour {number}?", answers=())
    for number in range(40)
]


class Knowing(ScoringLLM):
    """Suffices for questions about pressure and says so; for others it talks all the same."""

    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        if "Context:" in prompt:
            return super().complete(prompt, formatted, **options)
        return CompletionResponse(text="I read nothing.", raw={"usage": {"total_tokens": 3}})

    def score(self, prompt: Any, continuations: Any) -> list[list[float]]:
        sure = "pressure" in prompt[-1]["content"].rsplit("Question:", 1)[-1]
        chance = {"[0]": -4.0 if sure else -0.1, "[2]": -0.1 if sure else -2.0}
        return [[chance.get(text, -6.0)] for text in continuations]


def test_the_engine_learns_when_to_abstain() -> None:
    asked = engine(llm=Knowing())
    before = asked.query("colour 99?").metadata
    assert "without calibration" in before["reason"]
    learned = asked.calibrate(QUESTIONS)
    assert asked.calibration is learned
    assert learned.questions == 40
    assert set(learned.ways) == {Strategy.BASE, Strategy.RAG}
    assert learned.right_rate == 1.0
    response = asked.query("pressure 99?")
    assert (response.response, response.metadata["strategy"]) == ("[2] 38.2 bar", "rag")
    assert "by calibration on 40 questions" in response.metadata["reason"]
    assert asked.query("colour 99?").metadata["abstained"]
    assert asked.with_strategy("rag").calibration is None
    assert asked.with_settings(calibration=False).calibration is None


def test_a_stale_calibration_is_refused(tmp_path: Path) -> None:
    asked = engine(llm=Knowing())
    asked.calibrate(QUESTIONS, path=tmp_path)
    again = engine(llm=Knowing(), calibration=tmp_path)
    assert again.calibration == asked.calibration

    class OtherRetriever(FixedRetriever):
        similarity_top_k = 7

    with pytest.raises(ConfigurationError, match="is stale: retriever was 'FixedRetriever, any"):
        engine(llm=Knowing(), calibration=tmp_path, retriever=OtherRetriever(found("a")))
    with pytest.raises(ConfigurationError, match="is stale: prompt was"):
        again.update_prompts({"abstention": "Unknown."})  # type: ignore[dict-item]
    assert again.query("pressure 99?").metadata["strategy"] == "rag"
    with pytest.raises(FileNotFoundError):
        engine(calibration=tmp_path / "nowhere.json")


class Foldered(Knowing):
    """Has its adapter in a folder."""

    adapter_paths: dict[str, str] = {}


def test_it_lies_beside_the_adapter_and_is_found_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    llm = Foldered(adapter_paths={"pumps": str(tmp_path)})
    learned = engine(llm=llm, adapter="pumps").calibrate(QUESTIONS)
    assert (tmp_path / CALIBRATION_NAME).is_file()
    assert engine(llm=llm, adapter="pumps").calibration == learned
    retrained = Foldered(adapter_paths={"pumps": str(tmp_path)}, revision="2")
    with caplog.at_level(logging.WARNING):
        passed_over = engine(llm=retrained, adapter="pumps")
    assert "adapter was" in caplog.text
    assert passed_over.calibration is None
    reason = passed_over.query("pressure 1?").metadata["reason"]
    assert "The calibration beside the adapter does not fit and was not used." in reason


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(TrainingDataError, match="3 questions about 3 passages were given"):
        engine(llm=Knowing()).calibrate(QUESTIONS[:3])
