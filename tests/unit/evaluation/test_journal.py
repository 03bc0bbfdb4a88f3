"""A comparison that was stopped goes on where it was."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llama_index.core.llms import MockLLM

from phi3_industry.errors import ConfigurationError
from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.journal import journal_settings
from phi3_industry.grounding.questions import Question
from phi3_industry.query_engine.calibration import Calibration
from phi3_industry.query_engine.evidence import EvidenceRules
from phi3_industry.query_engine.fitting import Observation, Outcome, Wish, fit_calibration
from phi3_industry.query_engine.hybrid import HybridQueryEngine
from phi3_industry.query_engine.signals import Signals
from phi3_industry.query_engine.strategy import Strategy

WAYS = (Strategy.BASE, Strategy.RAG)


@pytest.fixture
def journalled(scripted, questions, tmp_path: Path):
    """Compare with a journal; counts how often an answer was asked for."""
    asked_of: list[str] = []

    def run(count: int = 3, *, reply=None, asked=None, **settings):
        chosen = questions(count, unanswerable=1) if asked is None else asked

        def house(question: Question) -> str:
            asked_of.append(question.id)
            return reply(question) if reply else f"[1] {question.reference}"

        engine = scripted(chosen, {"rag_fine_tuned": house})
        return compare_strategies(
            engine,
            questions=chosen,
            journal=tmp_path / "answers.jsonl",
            show_progress=False,
            **settings,
        )

    run.asked_of, run.path = asked_of, tmp_path / "answers.jsonl"
    return run


def without_times(result) -> list[object]:
    return [dataclasses.replace(row, latency_s=0.0, machine_s=0.0) for row in result.rows]


def test_a_finished_comparison_is_read_back_whole(journalled) -> None:
    first = journalled()
    again = journalled()
    assert journalled.asked_of == ["q1", "q2", "q3", "q4"]
    assert again.rows == first.rows
    assert (again.passages, again.settings) == (first.passages, first.settings)
    assert again.to_json is not None
    assert again.summary() == first.summary()


def test_a_stopped_comparison_goes_on_and_gives_the_same(journalled, tmp_path: Path) -> None:
    def stops(question: Question) -> str:
        if question.id == "q3":
            raise KeyboardInterrupt
        return f"[1] {question.reference}"

    with pytest.raises(KeyboardInterrupt):
        journalled(reply=stops)
    assert journalled.asked_of == ["q1", "q2", "q3"]
    with journalled.path.open("ab") as file:
        file.write(b'{"row": {"question_id": "q3", "stra')  # what a kill cuts off
    result = journalled()
    assert journalled.asked_of == ["q1", "q2", "q3", "q3", "q4"]
    journalled.path.unlink()
    assert without_times(result) == without_times(journalled())


def test_what_failed_is_asked_again(journalled) -> None:
    def fails(question: Question) -> str:
        raise RuntimeError("overloaded")

    assert journalled(reply=fails).arms["rag_fine_tuned"].failed == 4
    assert journalled().arms["rag_fine_tuned"].failed == 0
    assert journalled().arms["rag_fine_tuned"].failed == 0
    assert len(journalled.asked_of) == 8


def test_a_journal_of_other_settings_is_refused(journalled, questions) -> None:
    journalled()
    with pytest.raises(ConfigurationError, match=r"strategies: expected 'rag', found 'base, rag"):
        journalled(strategies=["rag"])
    changed = questions(3, unanswerable=1)
    changed[0] = dataclasses.replace(changed[0], answers=("9 bar",))
    with pytest.raises(ConfigurationError, match="questions: expected"):
        journalled(asked=changed)


def test_a_calibration_read_from_its_file_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    observations = [
        Observation(
            group=f"g{n}",
            answerable=True,
            signals=Signals(passages=1, best_score=float(rng.random())),
            outcomes={way: Outcome(True, bool(rng.random() < 0.5), 10) for way in WAYS},
        )
        for n in range(40)
    ]
    fitted = fit_calibration(observations, wish=Wish(), fingerprints={"b": "1", "a": "2"})
    read = Calibration.load(fitted.save(tmp_path / "calibration.json"))
    other = dataclasses.replace(fitted, threshold=fitted.threshold + 0.1)
    hashes = [
        journal_settings([], {"auto": SimpleNamespace(calibration=one)}, None)["engine of auto"]
        for one in (fitted, read, other, None)
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_what_changes_answers_is_another_journal() -> None:
    engine = HybridQueryEngine(retriever=None, llm=MockLLM(), strategy="base")
    changes: list[dict[str, Any]] = [
        {}, {"conflicts": "show"}, {"unsupported": "mark"}, {"abstention": "Keine Ahnung."},
        {"evidence": EvidenceRules(per_source_cap=1)}, {"min_score": 0.5},
    ]  # fmt: skip
    hashes = {
        journal_settings([], {"base": engine.with_settings(**change)}, None)["engine of base"]
        for change in changes
    }
    assert len(hashes) == len(changes)
    same = journal_settings([], {"base": engine.with_settings(streaming=True)}, None)
    assert same["engine of base"] in hashes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("notes\n", "is no journal of a comparison"),
        ("notes", "its first line has no end"),
        (json.dumps({"format": "x", "version": 1, "settings": {}}) + "\n", "it is 'x', version 1"),
        ("[]\n", "is no journal"),
    ],
)
def test_another_file_is_refused_and_left_alone(journalled, content: str, message: str) -> None:
    journalled.path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        journalled()
    assert journalled.path.read_text(encoding="utf-8") == content


def test_a_header_that_was_cut_off_is_begun_again(journalled) -> None:
    journalled.path.write_bytes(b'{"format": "phi3-ind')
    assert len(journalled().rows) == 16


def test_a_damaged_line_is_named(journalled) -> None:
    journalled()
    lines = journalled.path.read_bytes().splitlines(keepends=True)
    journalled.path.write_bytes(b"".join([*lines[:3], b'{"row": 1}\n', *lines[4:]]))
    with pytest.raises(ConfigurationError, match="line 4: TypeError"):
        journalled()


def test_half_a_surrogate_pair_survives(journalled, questions) -> None:
    one = dataclasses.replace(questions(1)[0], question="\ud800 泵\n")
    first = journalled(asked=[one], reply=lambda question: "\ud800 泵 \u2028")
    assert journalled(asked=[one]).rows == first.rows
