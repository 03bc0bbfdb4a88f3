"""Interval plots as inline SVG.

Positions are percentages and there is no view box, so a plot takes the width it is given while
its dots and letters keep their size, on a phone as on a desk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phi3_industry.evaluation.markup import Markup, element

__all__ = ["IntervalBar", "interval_plot"]


@dataclass(frozen=True, kw_only=True)
class IntervalBar:
    """A value with its interval.

    Attributes:
        value: The value.
        low: Lower end of its interval.
        high: Upper end of its interval.
        kind: Name of the CSS class that draws it.
        title: What a pointer over it shows.
    """

    value: float
    low: float
    high: float
    kind: str
    title: str


def interval_plot(
    rows: Sequence[tuple[str, Sequence[IntervalBar], str]],
    *,
    low: float,
    high: float,
    ticks: Sequence[tuple[float, str]],
    description: str,
) -> Markup:
    """Draw rows of values with their intervals over one axis.

    Args:
        rows: For each row its label, its bars, drawn one below the other, and what is printed
            after it.
        low: Left end of the axis.
        high: Right end of the axis.
        ticks: Places on the axis with their labels.
        description: What the plot shows, for those who cannot see it.

    Returns:
        HTML that :file:`report.css` lays out.
    """

    def place(value: float) -> str:
        clipped = min(max(value, low), high)
        return f"{100 * (clipped - low) / (high - low):.2f}%"

    drawn = [
        element(
            "div",
            element("div", name, class_="plot-label"),
            _strip(bars, [tick for tick, _ in ticks], place),
            element("div", printed, class_="plot-value"),
            class_="plot-row",
        )
        for name, bars, printed in rows
    ]
    axis = element(
        "div",
        element("div", class_="plot-label"),
        element(
            "svg",
            *(_tick_label(place(tick), text, tick, low, high) for tick, text in ticks),
            class_="plot-axis",
            height="18",
            width="100%",
            aria_hidden="true",
        ),
        element("div", class_="plot-value"),
        class_="plot-row",
    )
    return element("div", *drawn, axis, class_="plot", role="img", aria_label=description)


def _strip(
    bars: Sequence[IntervalBar], ticks: Sequence[float], place: Callable[[float], str]
) -> Markup:
    height = 10 + 14 * len(bars)
    lines = [
        element(
            "line",
            x1=place(tick),
            x2=place(tick),
            y1=0,
            y2=height,
            class_="tick" if tick else "tick zero",
        )
        for tick in ticks
    ]
    marks = [_mark(bar, y=12 + 14 * index, place=place) for index, bar in enumerate(bars)]
    return element("svg", *lines, *marks, class_="plot-strip", height=height, width="100%")


def _mark(bar: IntervalBar, *, y: int, place: Callable[[float], str]) -> Markup:
    return element(
        "g",
        element("title", bar.title),
        element("line", x1=place(bar.low), x2=place(bar.high), y1=y, y2=y, class_="whisker"),
        element("circle", cx=place(bar.value), cy=y, r=4.5, class_="dot"),
        class_=f"bar {bar.kind}",
    )


def _tick_label(x: str, text: str, tick: float, low: float, high: float) -> Markup:
    anchor = "start" if tick == low else "end" if tick == high else "middle"
    return element("text", text, x=x, y="13", text_anchor=anchor)
