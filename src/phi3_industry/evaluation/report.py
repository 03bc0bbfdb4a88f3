"""The comparison as one HTML file that needs no other, runs no script and reaches no network."""

from __future__ import annotations

import base64
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_industry.evaluation.contrasts import Contrast
from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.notes import notes
from phi3_industry.evaluation.plots import IntervalBar, interval_plot
from phi3_industry.evaluation.questions_html import questions_section
from phi3_industry.evaluation.table import COLUMNS, arm_cells, rate_with_interval
from phi3_industry.evaluation.wording import duration, label, points, probability

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["image_data_uri", "render_report"]

_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
_DATA_URI = re.compile(r"data:image/(?:png|jpeg|webp|svg\+xml);base64,[A-Za-z0-9+/=]+")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_MEASURES = {"house_match": "right fact in house format", "value_match": "right value"}
_KINDS = {"house_match": "house", "value_match": "value"}


def image_data_uri(path: str | os.PathLike[str]) -> str:
    """Read a picture into a ``data:`` URI, to be shown in a report.

    Args:
        path: A PNG, JPEG, WebP or SVG file.

    Returns:
        The URI, with the whole picture in it.

    Raises:
        ValueError: The file's suffix is none of these.
    """
    source = Path(path)
    media_type = _MEDIA_TYPES.get(source.suffix.lower())
    if media_type is None:
        raise ValueError(
            f"'{source}' is no picture that a report can show; give a file that ends in "
            f"{', '.join(sorted(_MEDIA_TYPES))}."
        )
    return f"data:{media_type};base64,{base64.b64encode(source.read_bytes()).decode()}"


def render_report(
    result: ComparisonResult,
    *,
    title: str,
    date: str,
    settings: Mapping[str, str],
    figures: Mapping[str, str],
) -> str:
    """Write the report as an HTML page.

    Every text is taken for untrusted and escaped; the page forbids itself scripts and requests.

    Args:
        result: The comparison.
        title: Its heading.
        date: When the questions were asked, as it is to be printed.
        settings: What should be known, by name, beside what is known here already.
        figures: Pictures by caption, each a ``data:`` URI.

    Returns:
        The page.

    Raises:
        ValueError: A figure is no ``data:`` URI of an image.
    """
    style = resources.files("phi3_industry.evaluation").joinpath("report.css").read_text("utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        _opening(result, title, date),
        _arms(result),
        _contrasts(result),
        _figures(figures),
        questions_section(result),
        _settings(result, settings),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _opening(result: ComparisonResult, title: str, date: str) -> Markup:
    asked = f"{len(result.questions)} questions, asked under {len(result.strategies)} strategies"
    return element(
        "header",
        element("h1", title),
        element("p", f"{asked}{', ' if date else ''}{date}.", class_="byline"),
        element("p", str(result.recommendation), class_="verdict"),
        *(element("p", note, class_="note") for note in notes(result)),
    )


def _arms(result: ComparisonResult) -> Markup:
    headings = [" ".join(lines) for lines in COLUMNS]
    rows = [
        element(
            "tr",
            element("th", label(name), scope="row"),
            *(_cell(text, heading) for text, heading in zip(arm_cells(arm), headings, strict=True)),
            class_="advised" if name == result.recommendation.strategy else False,
        )
        for name, arm in result.arms.items()
    ]
    return element(
        "section",
        element("h2", "What each strategy reached"),
        _table(["", *headings], rows),
        element(
            "p",
            "In brackets the 95 % interval of the share (Wilson). Shares of facts, values and "
            "citations are of the questions that have an answer in the documents, or name the "
            "passage that holds it; “abstained rightly” is of those that have none.",
            class_="note",
        ),
        _arms_plot(result),
    )


def _cell(text: str, heading: str) -> Markup:
    value, bracket, rest = text.partition(" (")
    small = element("small", f"{bracket}{rest}") if bracket else ""
    return element("td", element("span", value, small), data_label=heading)


def _table(headings: list[str], rows: list[Markup]) -> Markup:
    top = element("tr", *(element("th", heading, scope="col") for heading in headings))
    return element("table", element("thead", top), element("tbody", *rows), class_="stacked")


def _arms_plot(result: ComparisonResult) -> Markup:
    rows = []
    for name, arm in result.arms.items():
        bars = []
        for measure, rate in (
            ("house_match", arm.house_match),
            ("value_match", arm.value_match),
        ):
            share, ends = rate.share, rate.interval
            if share is not None and ends is not None:
                bars.append(
                    IntervalBar(
                        value=share,
                        low=ends.low,
                        high=ends.high,
                        kind=_KINDS[measure],
                        title=f"{label(name)}, {_MEASURES[measure]}: {rate_with_interval(rate)}",
                    )
                )
        rows.append((label(name), bars, duration(arm.latency_p50_s)))
    if not any(bars for _, bars, _ in rows):
        return join()
    plot = interval_plot(
        rows,
        low=0,
        high=1,
        ticks=[(0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1, "100 %")],
        description="Shares of right answers with their 95 % intervals; the table has the numbers.",
    )
    return join(
        plot, _key(), element("p", "On the right the median time of an answer.", class_="note")
    )


def _key() -> Markup:
    entries = [
        join(element("span", class_=f"key {_KINDS[measure]}"), text)
        for measure, text in _MEASURES.items()
    ]
    return element("p", *entries, class_="note")


def _contrasts(result: ComparisonResult) -> Markup:
    if not result.contrasts:
        return join()
    pairs: dict[tuple[str, str], list[Contrast]] = {}
    for found in result.contrasts:
        pairs.setdefault((found.first, found.second), []).append(found)
    furthest = max(max(abs(c.interval.low), abs(c.interval.high)) for c in result.contrasts)
    bound = next(limit for limit in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0) if furthest <= limit + 1e-9)
    ticks = [-bound, -bound / 2, 0, bound / 2, bound]
    plot = interval_plot(
        [
            (_pair(family[0]), [_bar(one) for one in family], f"{_signed(family[0].difference)}")
            for family in pairs.values()
        ],
        low=-bound,
        high=bound,
        ticks=[(tick, _signed(tick)) for tick in ticks],
        description="Differences in percentage points with their 95 % intervals.",
    )
    return element(
        "section",
        element("h2", "What makes the difference"),
        element("p", "The same questions, pair by pair, in percentage points."),
        plot,
        _key(),
        *(
            _contrast_table(text, [one for one in result.contrasts if one.measure == measure])
            for measure, text in _MEASURES.items()
        ),
        element("p", _method(result), class_="note"),
    )


def _contrast_table(measure: str, family: list[Contrast]) -> Markup:
    headings = ["difference", "only the first right", "only the second right", "p (Holm)"]
    rows = [
        element(
            "tr",
            element("th", _pair(found), scope="row"),
            _cell(
                f"{_signed(found.difference)} ({_signed(found.interval.low)} to "
                f"{_signed(found.interval.high)})",
                headings[0],
            ),
            *(
                element("td", text, data_label=heading)
                for heading, text in zip(
                    headings[1:],
                    (str(found.only_first), str(found.only_second), probability(found.p_adjusted)),
                    strict=True,
                )
            ),
        )
        for found in family
    ]
    return join(element("h3", measure[0].upper() + measure[1:]), _table(["", *headings], rows))


def _method(result: ComparisonResult) -> str:
    clusters = result.clusters
    drawn = f"{clusters.level}s" if clusters.count != 1 else clusters.level
    return (
        f"95 % intervals from 10,000 bootstrap draws of whole {drawn} ({clusters.count} of them, "
        f"seed {result.seed}), or Newcombe's score interval where no draw differs from another; "
        "p from McNemar's exact test, corrected by Holm over the comparisons of each measure."
    )


def _bar(found: Contrast) -> IntervalBar:
    return IntervalBar(
        value=found.difference,
        low=found.interval.low,
        high=found.interval.high,
        kind=_KINDS[found.measure],
        title=f"{_pair(found)}, {_MEASURES[found.measure]}: {found}",
    )


def _pair(found: Contrast) -> str:
    return f"{label(found.first)} vs {label(found.second)}"


def _signed(difference: float) -> str:
    return points(difference, sign=True).replace("-", "−")


def _figures(figures: Mapping[str, str]) -> Markup:
    shown = []
    for caption, uri in figures.items():
        if not _DATA_URI.fullmatch(uri):
            raise ValueError(
                f"The figure '{caption}' begins with {uri[:40]!r}; a report carries its pictures "
                "in itself. Give what image_data_uri(path) returns."
            )
        picture = element("img", src=uri, alt=caption)
        shown.append(element("figure", picture, element("figcaption", caption)))
    if not shown:
        return join()
    return element("section", element("h2", "Figures"), *shown)


def _settings(result: ComparisonResult, settings: Mapping[str, str]) -> Markup:
    known = {
        **result.settings,
        "questions": str(len(result.questions)),
        "seed": str(result.seed),
        "margin": f"{points(result.margin)} points",
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": _versions(),
        **settings,
    }
    entries = [
        join(element("dt", name), element("dd", value, dir="auto")) for name, value in known.items()
    ]
    return element("section", element("h2", "Settings"), element("dl", *entries, class_="settings"))


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in ("phi3-industry", "llama-index-core", "numpy"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:  # run from a source tree
            continue
    return ", ".join(found)
