"""The parts of the report about each strategy by itself: what it reached, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phi3_industry.evaluation.arms import ArmSummary
from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.plots import IntervalBar, interval_plot
from phi3_industry.evaluation.table import (
    COLUMNS,
    COST_COLUMNS,
    arm_cells,
    cost_cells,
    rate_with_interval,
)
from phi3_industry.evaluation.tables_html import (
    MEASURE_KINDS,
    MEASURE_NAMES,
    colour_key,
    table,
    table_row,
)
from phi3_industry.evaluation.wording import duration, label, percent

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["arms_section", "costs_section"]

_PLOTTED = ("right", "value_match")
_DETAILS = (
    "exact match",
    "right numbers",
    "terms kept",
    "citations right",
    "cited at all rightly",
    "quotes exact",
    "passage found",
    "p95 latency",
)


def arms_section(result: ComparisonResult) -> Markup:
    """Write what each strategy reached: a table, a plot, and more columns to open."""
    headings = [" ".join(lines) for lines in COLUMNS]
    rows = [
        table_row(label(name), arm_cells(arm), headings, advised=_is_advised(result, name))
        for name, arm in result.arms.items()
    ]
    return element(
        "section",
        element("h2", "What each strategy reached"),
        table(["", *headings], rows),
        element(
            "p",
            "Rightly treated: the wanted answer, in house format where the question gives one, or "
            "an abstention where the documents hold no answer; in brackets the 95 % interval of "
            "the share (Wilson). "
            "Shares of facts, values and citations are of the questions that have an answer in "
            "the documents, or name the passage that holds it; “abstained rightly” is of those "
            "that have none.",
            class_="note",
        ),
        _plot(result),
        _details(result),
    )


def costs_section(result: ComparisonResult) -> Markup:
    """Write what each strategy costs; nothing without prices."""
    if result.prices is None:
        return join()
    headings = [" ".join(lines) for lines in COST_COLUMNS]
    rows = [
        table_row(
            label(name), cost_cells(result, name, cost), headings, advised=_is_advised(result, name)
        )
        for name, cost in result.costs.items()
    ]
    order = ", ".join(label(name) for name in result.cheapest_first)
    return element(
        "section",
        element("h2", "What it costs"),
        table(["", *headings], rows),
        element(
            "p",
            "From the user's prices and the measured tokens and times. “Paid back after” is the "
            "number of answers after which cheaper answers than those of RAG have made good the "
            f"one-off cost. The cheapest first: {order}.",
            class_="note",
        ),
    )


def _is_advised(result: ComparisonResult, name: str) -> bool:
    return name == result.recommendation.strategy


def _details(result: ComparisonResult) -> Markup:
    rows = [
        table_row(label(name), _detail_cells(arm), _DETAILS) for name, arm in result.arms.items()
    ]
    return element(
        "details",
        element("summary", "More of each answer: numbers, terms, citations, quotes"),
        table(["", *_DETAILS], rows),
        element(
            "p",
            "Right numbers: those of an answer and no others. Terms kept: no banned word, of the "
            "answers that name a term of the glossary. Citations right: verified and of a passage "
            "that holds the answer, of those given; cited at all rightly: of the questions that "
            "name such a passage. Quotes exact: character for character in their passage. Passage "
            "found: it was among those shown.",
            class_="note",
        ),
        class_="more",
    )


def _detail_cells(arm: ArmSummary) -> list[str]:
    return [
        percent(arm.exact_match.share),
        percent(arm.number_match.share),
        percent(arm.terms_right.share),
        percent(arm.citation_precision.share),
        percent(arm.citation_recall.share),
        percent(arm.quotes_exact.share),
        percent(arm.gold_shown.share),
        duration(arm.latency_p95_s),
    ]


def _plot(result: ComparisonResult) -> Markup:
    rows = []
    for name, arm in result.arms.items():
        bars = []
        for measure, rate in (("right", arm.right), ("value_match", arm.value_match)):
            share, ends = rate.share, rate.interval
            if share is not None and ends is not None:
                bars.append(
                    IntervalBar(
                        value=share,
                        low=ends.low,
                        high=ends.high,
                        kind=MEASURE_KINDS[measure],
                        title=f"{label(name)}, {MEASURE_NAMES[measure]}: "
                        f"{rate_with_interval(rate)}",
                    )
                )
        rows.append((label(name), bars, duration(arm.latency_p50_s)))
    plot = interval_plot(
        rows,
        low=0,
        high=1,
        ticks=[(0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1, "100 %")],
        description="Shares of right answers with their 95 % intervals; the table has the numbers.",
    )
    return join(
        plot,
        colour_key(_PLOTTED),
        element("p", "On the right the median time of an answer.", class_="note"),
    )
