"""Tables and keys of the report; on a phone each row of a table becomes a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phi3_industry.evaluation.markup import Markup, element, join

__all__ = ["MEASURE_KINDS", "MEASURE_NAMES", "cell", "colour_key", "table", "table_row"]

MEASURE_NAMES: Mapping[str, str] = {
    "right": "rightly treated",
    "value_match": "right value",
}
MEASURE_KINDS: Mapping[str, str] = {"right": "house", "value_match": "value"}
"""CSS class of the colour of each measure."""


def table(headings: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """Make a table; the first heading is that of the rows' names."""
    top = element("tr", *(element("th", heading, scope="col") for heading in headings))
    return element("table", element("thead", top), element("tbody", *rows), class_="stacked")


def table_row(
    name: str, texts: Sequence[str], headings: Sequence[str], *, advised: bool = False
) -> Markup:
    """Make a row: its name and its cells, whose headings a phone shows beside them."""
    return element(
        "tr",
        element("th", name, scope="row"),
        *(cell(text, heading) for text, heading in zip(texts, headings, strict=True)),
        class_="advised" if advised else False,
    )


def cell(text: str, heading: str) -> Markup:
    """Make a cell; what stands in brackets is printed small."""
    value, bracket, rest = text.partition(" (")
    small = element("small", f"{bracket}{rest}") if bracket else ""
    return element("td", element("span", value, small), data_label=heading)


def colour_key(measures: Sequence[str]) -> Markup:
    """Say which colour is which measure."""
    entries = [
        join(element("span", class_=f"key {MEASURE_KINDS[measure]}"), MEASURE_NAMES[measure])
        for measure in measures
    ]
    return element("p", *entries, class_="note")
