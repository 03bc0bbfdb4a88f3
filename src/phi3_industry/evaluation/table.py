"""The comparison as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phi3_industry.evaluation.arms import ArmSummary, Rate
from phi3_industry.evaluation.notes import notes
from phi3_industry.evaluation.wording import (
    NOT_MEASURED,
    duration,
    interval,
    label,
    money,
    percent,
)

if TYPE_CHECKING:
    from phi3_industry.evaluation.costs import ArmCost
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = [
    "COLUMNS",
    "COST_COLUMNS",
    "arm_cells",
    "cost_cells",
    "rate_with_interval",
    "summary_text",
    "tables",
]

COLUMNS = (
    ("rightly", "treated"),
    ("in house", "format"),
    ("right", "value"),
    ("token", "F1"),
    ("citation", "right"),
    ("abstained", "rightly"),
    ("abstained", "wrongly"),
    ("p50", "latency"),
)
"""Headings of the columns after the strategy, in two lines."""

COST_COLUMNS = (
    ("tokens", "in"),
    ("tokens", "out"),
    ("1,000", "answers"),
    ("a right", "answer"),
    ("one-off", "training"),
    ("paid back after", "answers"),
)
"""Headings of the table of costs."""

_MOST_STRATA = 4


def tables(result: ComparisonResult) -> str:
    """Lay out what each strategy reached, one line each, with strata and costs below.

    Args:
        result: The comparison.

    Returns:
        Tables of at most 100 columns without colours, and a line that says what is in the first.
    """
    arms = [[_shortened(label(name)), *arm_cells(arm)] for name, arm in result.arms.items()]
    parts = [f"{_laid_out(COLUMNS, arms)}\n{_legend(result)}"]
    if len(result.strata) > 1:
        parts.append(_strata(result))
    if result.costs:
        lines = [
            [_shortened(label(name)), *cost_cells(result, name, cost)]
            for name, cost in result.costs.items()
        ]
        parts.append(_laid_out(COST_COLUMNS, lines))
    return "\n\n".join(parts)


def summary_text(result: ComparisonResult) -> str:
    """Write the tables, the verdict with its rule, and what to know about them."""
    verdict = result.recommendation
    lines = [tables(result), "", str(verdict), *([verdict.rule] if verdict.rule else [])]
    return "\n".join([*lines, *notes(result)])


def arm_cells(arm: ArmSummary) -> list[str]:
    """Write what a strategy reached, in the order of :data:`COLUMNS`."""
    return [
        rate_with_interval(arm.right),
        percent(arm.house_match.share),
        percent(arm.value_match.share),
        NOT_MEASURED if arm.token_f1 is None else f"{arm.token_f1:.2f}",
        percent(arm.citation_right.share),
        percent(arm.abstention.share),
        percent(arm.over_refusal.share),
        duration(arm.latency_p50_s),
    ]


def cost_cells(result: ComparisonResult, name: str, cost: ArmCost) -> list[str]:
    """Write what a strategy costs, in the order of :data:`COST_COLUMNS`."""
    arm = result.arms[name]
    currency = result.prices.currency if result.prices else ""
    return [
        NOT_MEASURED if arm.prompt_tokens is None else f"{arm.prompt_tokens:,.0f}",
        NOT_MEASURED if arm.completion_tokens is None else f"{arm.completion_tokens:,.0f}",
        money(cost.per_thousand, currency),
        money(cost.per_right_answer, currency),
        money(cost.one_off, currency),
        _break_even(cost),
    ]


def rate_with_interval(rate: Rate) -> str:
    """Write a rate with its 95 % interval: "87 % (79-92 %)"."""
    found = rate.interval
    if found is None:
        return NOT_MEASURED
    return f"{percent(rate.share)} ({interval(found.low, found.high)})"


def _strata(result: ComparisonResult) -> str:
    """Lay out how many of each kind of question were treated rightly; the rest is in the report."""
    largest = sorted(result.strata, key=lambda stratum: -stratum.questions)[:_MOST_STRATA]
    shown = [stratum for stratum in result.strata if stratum in largest]
    headings = [(_shortened(label(s.name)), f"{s.questions} questions") for s in shown]
    lines = [
        [_shortened(label(name)), *(percent(s.arms[name].right.share) for s in shown)]
        for name in result.strategies
    ]
    left = len(result.strata) - len(shown)
    text = _laid_out(headings, lines)
    return f"{text}\nrightly treated, by kind of question" + (
        f"; {left} smaller kinds are in the report" if left else ""
    )


def _laid_out(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    lines = [["", *(top for top, _ in columns)], ["strategy", *(low for _, low in columns)], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    laid_out = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([*laid_out[:2], rule, *laid_out[2:], rule])


def _break_even(cost: ArmCost) -> str:
    if not cost.one_off:
        return "-"
    if cost.break_even is None:
        return "never"
    digits = 10 ** max(0, len(str(cost.break_even)) - 2)  # prices are not known to more figures
    return f"{-(-cost.break_even // digits) * digits:,}"


def _legend(result: ComparisonResult) -> str:
    answerable = sum(question.answerable for question in result.questions)
    others = len(result.questions) - answerable
    asked = f"{answerable} questions with an answer in the documents"
    asked += f", {others} without" if others else ""
    return (
        "rightly treated: the wanted answer (in house format if one is given), or abstained if "
        "there is none\n"
        f"{asked}; in brackets: Wilson 95 % interval"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:17]}..."
