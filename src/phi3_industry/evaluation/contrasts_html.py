"""The part of the report about one strategy against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phi3_industry.evaluation.contrasts import INTERACTION, MEASURES, Contrast
from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.plots import IntervalBar, interval_plot
from phi3_industry.evaluation.tables_html import (
    MEASURE_KINDS,
    MEASURE_NAMES,
    colour_key,
    table,
    table_row,
)
from phi3_industry.evaluation.wording import label, points, probability

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["contrast_table", "contrasts_section"]


def contrasts_section(result: ComparisonResult) -> Markup:
    """Write the planned comparisons: a plot, a table for each measure, and how they were made."""
    if not result.contrasts:
        return join()
    return element(
        "section",
        element("h2", "What makes the difference"),
        element("p", "The same questions, pair by pair, in percentage points."),
        _plot(result.contrasts),
        colour_key(MEASURES),
        *(_measure(measure, result.contrasts) for measure in MEASURES),
        element("p", _method(result), class_="note"),
    )


def contrast_table(family: Sequence[Contrast], *, corrected: bool = True) -> Markup:
    """Make a table of comparisons.

    Args:
        family: The comparisons.
        corrected: Whether to print the p-values after Holm's correction.
    """
    headings = [
        "difference",
        "only the first right",
        "only the second right",
        "p (Holm)" if corrected else "p, not corrected",
        "questions to see it",
    ]
    rows = [
        table_row(
            _pair(found),
            [
                f"{_signed(found.difference)} ({_signed(found.interval.low)} to "
                f"{_signed(found.interval.high)})",
                str(found.only_first),
                str(found.only_second),
                probability(found.p_adjusted if corrected else found.p_value),
                "-" if found.questions_needed is None else f"{found.questions_needed:,}",
            ],
            headings,
        )
        for found in family
    ]
    return table(["", *headings], rows)


def _measure(measure: str, contrasts: Sequence[Contrast]) -> Markup:
    name = MEASURE_NAMES[measure]
    family = [one for one in contrasts if one.measure == measure]
    return join(element("h3", name[0].upper() + name[1:]), contrast_table(family))


def _plot(contrasts: Sequence[Contrast]) -> Markup:
    pairs: dict[tuple[str, str], list[Contrast]] = {}
    for found in contrasts:
        pairs.setdefault((found.first, found.second), []).append(found)
    furthest = max(max(abs(c.interval.low), abs(c.interval.high)) for c in contrasts)
    bound = next(limit for limit in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0) if furthest <= limit + 1e-9)
    ticks = [-bound, -bound / 2, 0, bound / 2, bound]
    return interval_plot(
        [
            (_pair(family[0]), [_bar(one) for one in family], f"{_signed(family[0].difference)}")
            for family in pairs.values()
        ],
        low=-bound,
        high=bound,
        ticks=[(tick, _signed(tick)) for tick in ticks],
        description="Differences in percentage points with their 95 % intervals.",
    )


def _method(result: ComparisonResult) -> str:
    clusters = result.clusters
    drawn = f"{clusters.level}s" if clusters.count != 1 else clusters.level
    gains = any((found.first, found.second) == INTERACTION for found in result.contrasts)
    method = (
        f"95 % intervals from 10,000 bootstrap draws of whole {drawn} ({clusters.count} of them, "
        f"seed {result.seed}), or Newcombe's score interval where no draw differs from another; "
        "p from McNemar's exact test, corrected by Holm over the comparisons of each measure. "
        "“Questions to see it”: how many show a difference of this size with 80 % probability."
    )
    if gains:
        method += (
            " “Gain” is what fine-tuning adds; where that is more with RAG than without, the two "
            "help each other. Its p is from the exact sign-flip test."
        )
    return method


def _bar(found: Contrast) -> IntervalBar:
    return IntervalBar(
        value=found.difference,
        low=found.interval.low,
        high=found.interval.high,
        kind=MEASURE_KINDS[found.measure],
        title=f"{_pair(found)}, {MEASURE_NAMES[found.measure]}: {found}",
    )


def _pair(found: Contrast) -> str:
    return f"{label(found.first)} vs {label(found.second)}"


def _signed(difference: float) -> str:
    return points(difference, sign=True).replace("-", "−")
