from __future__ import annotations

import pytest

from phi3_industry.query_engine.strategy import Evidence, Strategy, choose, parse_strategy


@pytest.mark.parametrize(
    ("evidence", "adapter", "strategy", "reason"),
    [
        (
            Evidence(passages=3, best_score=0.71),
            "pumps",
            Strategy.RAG_FINE_TUNED,
            "3 passages were found (best score 0.710), and the adapter 'pumps' knows the house's "
            "terms and form.",
        ),
        (
            Evidence(passages=1),
            None,
            Strategy.RAG,
            "1 passage was found, and no adapter is loaded to add to them.",
        ),
        (
            Evidence(passages=0),
            "pumps",
            Strategy.FINE_TUNED,
            "No passage was found, so the adapter 'pumps' answers from its weights.",
        ),
        (
            Evidence(passages=2, best_score=0.1, min_score=0.3),
            None,
            Strategy.RAG,
            "No passage is close enough (best score 0.100; 0.300 is required) and no adapter is "
            "loaded, so there is no ground to answer on.",
        ),
    ],
)
def test_the_choice_follows_the_evidence_and_says_why(
    evidence: Evidence, adapter: str | None, strategy: Strategy, reason: str
) -> None:
    choice = choose(evidence, adapter=adapter)
    assert (choice.strategy, choice.reason) == (strategy, reason)


def test_evidence_needs_passages_and_the_required_score() -> None:
    assert Evidence(passages=1).sufficient
    assert Evidence(passages=1, best_score=0.3, min_score=0.3).sufficient
    assert not Evidence(passages=1, best_score=0.29, min_score=0.3).sufficient
    assert not Evidence(passages=1, min_score=0.3).sufficient
    assert not Evidence(passages=0).sufficient


def test_strategies_say_what_they_use() -> None:
    assert [s.value for s in Strategy if s.uses_passages] == ["rag", "rag_fine_tuned"]
    assert [s.value for s in Strategy if s.uses_adapter] == ["fine_tuned", "rag_fine_tuned"]


def test_names_are_read() -> None:
    assert parse_strategy("auto") is None
    assert parse_strategy("rag") is Strategy.RAG
    with pytest.raises(ValueError, match=r"strategy is 'both'; it must be 'auto' or one of"):
        parse_strategy("both")
