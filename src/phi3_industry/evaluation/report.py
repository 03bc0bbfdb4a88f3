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

from phi3_industry.evaluation.arms_html import arms_section, costs_section
from phi3_industry.evaluation.contrasts_html import contrasts_section
from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.notes import notes
from phi3_industry.evaluation.questions_html import questions_section, strata_filters
from phi3_industry.evaluation.strata_html import strata_section
from phi3_industry.evaluation.wording import points

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
        element("style", Markup(style + strata_filters(result))),
    )
    body = element(
        "body",
        _opening(result, title, date),
        arms_section(result),
        strata_section(result),
        costs_section(result),
        contrasts_section(result),
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
        element(
            "div",
            element("p", str(result.recommendation)),
            element("p", result.recommendation.rule, class_="rule")
            if result.recommendation.rule
            else "",
            class_="verdict",
        ),
        *(element("p", note, class_="note") for note in notes(result)),
    )


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
