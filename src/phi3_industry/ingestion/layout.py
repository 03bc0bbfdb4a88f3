"""How a grid of cells is laid out: captions, lines of the header, groups of rows, footnotes.

Everything beyond one header line has to be plain from the cells. A table that leaves it open is
read as rows below one header, since a misread plain table is worse than an unread fine point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from phi3_industry.ingestion.cells import is_quantity
from phi3_industry.ingestion.header import column_kind, has_header, take_header
from phi3_industry.ingestion.tables import Table, key_column_of, unique_columns

__all__ = ["build_table", "property_lines", "tidy_rows"]

_NOTE = re.compile(
    r"(\(\d{1,2}\)|\[\d{1,2}\]|\([a-z]\)|\*{1,4}|[†‡§¶]{1,2}|[¹²³⁴-⁹]{1,2})\s*[:.]?\s*(\S.*)"
)
"""A footnote: its mark and its text."""

_COLONS = (":", "：")
_RULE = re.compile(r"[-–—_=─]{2,}")

Row = list[str]


def build_table(
    rows: Sequence[Sequence[Any]],
    *,
    section: tuple[str, ...] = (),
    name: str = "",
    header: bool | None = None,
    spans_are_filled: bool = False,
) -> Table | None:
    """Make a table of raw rows.

    Rows without any cell are left out; rows with a single cell above a wider header are its
    caption. Further header lines, rows that group those
    below them, and footnotes are read as such where they are plain to see.

    Args:
        rows: Cells, which are turned into text; rows may differ in length, and one of a single
            cell in a wider table is a line across the table.
        section: The headings above the table.
        name: The table's name; the caption is added to it.
        header: Whether the first row names the columns; ``None`` to see from its cells. Without
            a header, columns are named by their places.
        spans_are_filled: Whether a cell that spans several columns stands in each of them.

    Returns:
        The table, or ``None`` if there is no row of data.
    """
    cleaned = tidy_rows(rows)
    width = max((len(row) for row in cleaned), default=0)
    across = {id(row) for row in cleaned if len(row) == 1 < width}
    for row in cleaned:
        row += [""] * (width - len(row))
    remark, names, lines = take_header(cleaned, header=header, spans_are_filled=spans_are_filled)
    notes = _take_notes(cleaned, names)
    groups = _take_groups(cleaned, names, across) if lines else []
    filled = [i for i in range(width) if names[i] or any(row[i] for row in cleaned)]
    data = tuple(tuple(row[i] for i in filled) for row in cleaned)
    if not data:
        return None
    items = lines > 1 or bool(groups)
    named = 2 * sum(bool(row[0]) for row in data) >= len(data)
    return Table(
        section=section,
        name=": ".join(filter(None, (" ".join(name.split()), remark))),
        columns=unique_columns([names[i] for i in filled]),
        rows=data,
        key_column=0 if items and named else key_column_of(data, len(filled)),
        groups=tuple(groups),
        notes=tuple(notes),
    )


def tidy_rows(rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Turn cells into text with single spaces and leave rows without any cell out."""
    cleaned = [[" ".join(str(c).split()) if c is not None else "" for c in row] for row in rows]
    return [row for row in cleaned if any(row)]


def property_lines(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """Write a table of two columns without a header as lines, ``Oil temperature: 65 °C``.

    Returns:
        The lines, or ``None`` if the rows are no such table.
    """
    cleaned = tidy_rows(rows)
    if not cleaned or any(len(row) != 2 or not row[0] for row in cleaned) or has_header(cleaned):
        return None
    return [f"{name}: {value}" if value else name for name, value in cleaned]


def _take_notes(rows: list[Row], names: Row) -> list[tuple[str, str]]:
    """Remove the footnotes at the end that something in the table refers to, and give them."""
    notes: list[tuple[str, str]] = []
    while len(rows) > 1 and not any(rows[-1][1:]):
        match = _NOTE.fullmatch(rows[-1][0])
        if match is None:
            break
        mark, text = match.groups()
        cells = [cell for row in rows[:-1] for cell in row] + list(names)
        if not any(cell.endswith(mark) and cell != mark for cell in cells):
            break
        notes.insert(0, (mark, text))
        del rows[-1]
    return notes


def _take_groups(rows: list[Row], names: Row, across: set[int]) -> list[tuple[str, ...]]:
    """Remove the rows that group those below them, and give the groups of those that stay.

    Such a row has a single cell, and one of: it ends with a colon; it is a line across the table
    and no code; a rule follows; or the first column has no name, or only a remark for one, as in
    tables of line items, and the other columns are of quantities.
    """
    items = not names[0] or names[0].startswith(("(", "（"))
    items = items and all(
        column_kind(row[i] for row in rows) != "text" for i in range(1, len(names))
    )
    kept: list[Row] = []
    groups: list[tuple[str, ...]] = []
    current: tuple[str, ...] = ()
    fresh = False  # whether the row before was a group's
    for index, row in enumerate(rows):
        cells = [cell for cell in row if cell]
        text = cells[0]
        alone = len(cells) == 1 < len(row)
        if alone and id(row) in across and _RULE.fullmatch(text):
            continue
        grouped = text.endswith(_COLONS) or items or (id(row) in across and not _is_code(text))
        grouped = grouped or any(_RULE.fullmatch(below[0]) for below in rows[index + 1 : index + 2])
        more = any(any(below[1:]) for below in rows[index + 1 :])
        if alone and grouped and more and not is_quantity(text):
            name = text.rstrip(" :：")
            current = (*current[-1:], name) if fresh else (name,)
            fresh = True
            continue
        kept.append(row)
        groups.append(current)
        fresh = False
    if not any(groups):
        groups = []
    rows[:] = kept
    return groups


def _is_code(text: str) -> bool:
    return " " not in text and any(c.isdigit() for c in text)
