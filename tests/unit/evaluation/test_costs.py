"""What answers cost, worked by hand."""

import pytest

from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.costs import Prices, Upkeep
from phi3_industry.evaluation.wording import money


@pytest.fixture
def priced(scripted, questions):
    """Compare with prices; the scripted engine counts 90 or 12 tokens in and 6 out."""

    def run(prices: Prices, upkeep: Upkeep | None = None, strategies=None, **settings):
        asked = questions(20)
        return compare_strategies(
            scripted(asked, **settings),
            questions=asked,
            strategies=strategies,
            prices=prices,
            upkeep=upkeep,
            show_progress=False,
        )

    return run


def test_tokens_cost_what_they_cost(priced) -> None:
    result = priced(Prices(per_million_prompt_tokens=2, per_million_completion_tokens=10))
    rag, base = result.costs["rag"], result.costs["base"]
    assert rag.per_answer == pytest.approx((90 * 2 + 6 * 10) / 1e6)
    assert rag.per_thousand == pytest.approx(0.24)
    assert base.per_answer == pytest.approx((12 * 2 + 6 * 10) / 1e6)
    both = result.costs["rag_fine_tuned"]
    assert both.per_right_answer == pytest.approx(both.per_answer)  # every answer is right
    assert base.per_right_answer is None  # none is
    assert "0.24 USD" in result.table()


def test_the_machine_costs_by_its_hour_and_trains_by_it(priced) -> None:
    result = priced(Prices(per_hour=3.6, training=10), Upkeep(training_s=1000))
    arm = result.arms["rag"]
    assert result.costs["rag"].per_answer == pytest.approx(arm.machine_s * 0.001)
    assert result.costs["rag"].one_off == 0
    assert result.costs["fine_tuned"].one_off == pytest.approx(11)


def test_fine_tuning_is_paid_back_by_shorter_prompts(priced) -> None:
    result = priced(Prices(per_million_prompt_tokens=1000, training=78))
    # 78 tokens less for each answer at 0.001 each: 78 / 0.078
    assert result.costs["fine_tuned"].break_even == 1000
    assert result.costs["rag_fine_tuned"].break_even is None  # its answers cost the same
    lines = result.table().splitlines()[-6:]
    assert [line.split()[-1] for line in lines if line.startswith(("RAG +", "fine-"))] == [
        "1,000",
        "never",
    ]


def test_without_counted_tokens_their_price_gives_no_cost(priced) -> None:
    result = priced(Prices(per_million_prompt_tokens=1), bare=True)
    assert result.costs["rag"].per_answer is None
    assert "n/a" in result.table()


def test_the_verdict_goes_by_the_cost_where_it_is_known(priced) -> None:
    dear_reading = Prices(per_million_prompt_tokens=1)
    assert priced(dear_reading).cheapest_first == ["base", "fine_tuned", "rag", "rag_fine_tuned"]
    # ten answers have to pay for the training
    spread = Prices(per_million_prompt_tokens=1, training=100, answers=10)
    assert priced(spread).cheapest_first == ["base", "rag", "fine_tuned", "rag_fine_tuned"]


def test_auto_stands_before_the_dearest_if_it_takes_fewer_tokens(scripted, questions) -> None:
    asked = questions(3)
    ways = ["base", "rag_fine_tuned", "auto"]
    result = compare_strategies(
        scripted(asked), questions=asked, strategies=ways, show_progress=False
    )
    assert result.arms["auto"].tokens == 18  # the script reads nothing under auto
    assert result.cheapest_first == ["base", "auto", "rag_fine_tuned"]
    bare = compare_strategies(
        scripted(asked, bare=True), questions=asked, strategies=ways, show_progress=False
    )
    assert bare.cheapest_first == ways


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_hour": -1}, "per_hour is -1"),
        ({"training": float("nan")}, "training is nan"),
        ({"answers": 0}, "at least 1"),
    ],
)
def test_impossible_prices_are_refused(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prices(**settings)
    with pytest.raises(ValueError, match="reindex_s is -1"):
        Upkeep(reindex_s=-1)


def test_amounts_are_written_to_two_figures() -> None:
    assert money(0.01234, "EUR") == "0.012 EUR"
    assert money(1234.5, "EUR") == "1,234 EUR"
    assert (money(0, "EUR"), money(None, "EUR")) == ("0 EUR", "n/a")
