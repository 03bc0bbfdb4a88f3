"""The part of the report about kinds of questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phi3_industry.evaluation.contrasts_html import contrast_table
from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.strata import MIN_STRATUM, StratumSummary
from phi3_industry.evaluation.table import rate_with_interval
from phi3_industry.evaluation.tables_html import table, table_row
from phi3_industry.evaluation.wording import label

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["strata_section"]


def strata_section(result: ComparisonResult) -> Markup:
    """Write what each strategy reached on each kind of question; nothing if there is one kind."""
    if len(result.strata) < 2:
        return join()
    headings = [f"{label(one.name)}, {one.questions} questions" for one in result.strata]
    rows = [
        table_row(
            label(name),
            [rate_with_interval(one.arms[name].right) for one in result.strata],
            headings,
            advised=name == result.recommendation.strategy,
        )
        for name in result.strategies
    ]
    return element(
        "section",
        element("h2", "By kind of question"),
        table(["", *headings], rows),
        element(
            "p",
            "Rightly treated, with the 95 % interval (Wilson). Differences are given for kinds "
            f"with {MIN_STRATUM} questions or more.",
            class_="note",
        ),
        *(_differences(one) for one in result.strata if one.contrasts),
    )


def _differences(stratum: StratumSummary) -> Markup:
    title = f"Differences on {stratum.questions} questions: {label(stratum.name)}"
    return element(
        "details",
        element("summary", title),
        contrast_table(stratum.contrasts, corrected=False),
        class_="more",
    )
