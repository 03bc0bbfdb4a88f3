from __future__ import annotations

import pytest

from phi3_industry.query_engine.signals import Signals
from phi3_industry.query_engine.strategy import Choice, Strategy, choose, parse_strategy


@pytest.mark.parametrize(
    ("signals", "adapter", "choice"),
    [
        (
            Signals(passages=3, best_score=0.71, score_margin=0.25, sufficiency=0.97),
            "pumps",
            Choice(
                strategy=Strategy.RAG_FINE_TUNED,
                reason="3 passages were found (best score 0.710, 25% ahead of the next), which "
                "suffice (probability 0.97; 0.50 is required without calibration), and the "
                "adapter 'pumps' knows the house's terms and form.",
            ),
        ),
        (
            Signals(passages=1),
            None,
            Choice(
                strategy=Strategy.RAG,
                reason="1 passage was found, and no adapter is loaded to add to them.",
            ),
        ),
        (
            Signals(passages=0, expert_certainty=0.93),
            "pumps",
            Choice(
                strategy=Strategy.FINE_TUNED,
                reason="No passage was found, so the adapter 'pumps' answers from its weights "
                "with certainty 0.93 (0.80 is required without calibration).",
            ),
        ),
        (
            Signals(passages=0, expert_certainty=0.93, draft_abstains=True),
            "pumps",
            Choice(
                strategy=Strategy.RAG_FINE_TUNED,
                reason="No passage was found, and the adapter 'pumps' abstains itself (0.80 is "
                "required without calibration), so there is no ground to answer on.",
                abstains=True,
            ),
        ),
    ],
)
def test_the_choice_follows_the_signals_and_says_why(
    signals: Signals, adapter: str | None, choice: Choice
) -> None:
    assert choose(signals, adapter=adapter) == choice


def test_a_required_score_comes_first() -> None:
    far = choose(Signals(passages=2, best_score=0.1, sufficiency=0.9), adapter=None, min_score=0.3)
    assert far.abstains
    assert far.reason == (
        "No passage is close enough (best score 0.100; 0.300 is required) and no adapter is "
        "loaded, so there is no ground to answer on."
    )
    assert not choose(Signals(passages=2, best_score=0.3), adapter=None, min_score=0.3).abstains


def test_strategies_say_what_they_use() -> None:
    assert [s.value for s in Strategy if s.uses_passages] == ["rag", "rag_fine_tuned"]
    assert [s.value for s in Strategy if s.uses_adapter] == ["fine_tuned", "rag_fine_tuned"]


def test_names_are_read() -> None:
    assert parse_strategy("auto") is None
    assert parse_strategy("rag") is Strategy.RAG
    with pytest.raises(ValueError, match=r"strategy is 'both'; it must be 'auto' or one of"):
        parse_strategy("both")
