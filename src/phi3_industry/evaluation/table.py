"""The comparison as plain text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phi3_industry.evaluation.arms import ArmSummary, Rate
from phi3_industry.evaluation.wording import (
    NOT_MEASURED,
    duration,
    interval,
    label,
    percent,
    points,
)

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["COLUMNS", "arm_cells", "arms_table", "notes", "rate_with_interval"]

COLUMNS = (
    ("right fact in", "house format"),
    ("right", "value"),
    ("token", "F1"),
    ("citation", "right"),
    ("abstained when", "it should"),
    ("wrongly", "abstained"),
    ("p50", "latency"),
)
"""Headings of the columns after the strategy, in two lines."""


def arms_table(result: ComparisonResult) -> str:
    """Lay out what each strategy reached, one line each.

    Args:
        result: The comparison.

    Returns:
        A table of at most 100 columns without colours, and a line that says what is in it.
    """
    lines = [["", *(top for top, _ in COLUMNS)], ["strategy", *(low for _, low in COLUMNS)]]
    lines += [[_shortened(label(name)), *arm_cells(arm)] for name, arm in result.arms.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    laid_out = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([*laid_out[:2], rule, *laid_out[2:], rule, _legend(result)])


def arm_cells(arm: ArmSummary) -> list[str]:
    """Write what a strategy reached, in the order of :data:`COLUMNS`."""
    return [
        rate_with_interval(arm.house_match),
        percent(arm.value_match.share),
        NOT_MEASURED if arm.token_f1 is None else f"{arm.token_f1:.2f}",
        percent(arm.citation_right.share),
        percent(arm.abstention.share),
        percent(arm.over_refusal.share),
        duration(arm.latency_p50_s),
    ]


def rate_with_interval(rate: Rate) -> str:
    """Write a rate with its 95 % interval: "87 % (79-92 %)"."""
    found = rate.interval
    if found is None:
        return NOT_MEASURED
    return f"{percent(rate.share)} ({interval(found.low, found.high)})"


def notes(result: ComparisonResult) -> list[str]:
    """Say what the table does not: the cost in reading, unanswerable questions, failures.

    Args:
        result: The comparison.

    Returns:
        Plain sentences.
    """
    sentences: list[str] = []
    harm = result.reading_harm
    if harm is not None:
        sentences.append(
            f"Reading with the adapter: right value {points(harm.difference, sign=True)} points "
            f"against RAG alone (95 % interval {points(harm.interval.low)} to "
            f"{points(harm.interval.high)}; {harm.only_second} lost, {harm.only_first} gained)."
        )
    advised = result.recommendation.strategy
    if advised is not None and result.arms[advised].abstention.trials:
        arm = result.arms[advised]
        sentences.append(
            f"Where the documents hold no answer, {label(advised)} abstained in "
            f"{arm.abstention.successes} of {arm.abstention.trials} questions."
        )
    failed = [row for row in result.rows if row.error]
    if failed:
        sentences.append(
            f"{len(failed)} of {len(result.rows)} queries failed and count as wrong; the first: "
            f"{label(failed[0].strategy)}, question {failed[0].question_id}: "
            f"{failed[0].error[:200]}"
        )
    return sentences


def _legend(result: ComparisonResult) -> str:
    answerable = sum(question.answerable for question in result.questions)
    others = len(result.questions) - answerable
    asked = f"{answerable} questions with an answer in the documents"
    asked += f", {others} without" if others else ""
    return f"{asked}; in brackets: Wilson 95 % interval"


def _shortened(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:17]}..."
