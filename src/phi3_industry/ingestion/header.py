"""The header of a table: captions above it, its lines, and the names of the columns.

A second line of a header has to be plain from the cells, since a misread plain table is worse
than an unread fine point.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from phi3_industry.ingestion.cells import is_date, is_quantity

__all__ = ["column_kind", "has_header", "header_lines", "take_header"]

_CAPTION_ROWS = 10
"""Rows with a single cell that may stand above the header."""

_HEADER_LINES = 4
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")

Row = list[str]


def take_header(
    rows: list[Row], *, header: bool | None, spans_are_filled: bool
) -> tuple[str, Row, int]:
    """Remove the captions and the header from rows of one width.

    Args:
        rows: Rows of cells without line ends; what is read of them is removed.
        header: Whether the first row names the columns; ``None`` to see from its cells and to
            look for captions above it.
        spans_are_filled: Whether a cell that spans several columns stands in each of them.

    Returns:
        What is said of the table as a whole, the names of the columns (empty where there are
        none), and the number of lines of the header.
    """
    width = max(map(len, rows), default=0)
    captions: list[str] = []
    if header is None:
        captions = _take_captions(rows)
        header = has_header(rows)
    lines = _take_lines(rows) if header and rows else []
    remark, names = _column_names(lines, width, spread=not spans_are_filled)
    return " ".join([*captions, remark]).strip(), names, len(lines)


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: less than half of its cells begin as a quantity does.

    Years and dates do not count as quantities, since they often name columns.
    """
    if len(rows) < 2:
        return False
    first = [cell for cell in rows[0] if cell]
    return 2 * sum(map(is_quantity, first)) < len(first)


def header_lines(rows: Sequence[Sequence[str]]) -> int:
    """Count the rows above the first record: captions and lines of the header."""
    left = [list(row) for row in rows]
    width = max(map(len, left), default=0)
    for row in left:
        row += [""] * (width - len(row))
    _take_captions(left)
    if not has_header(left):
        return 0
    _take_lines(left)
    return len(rows) - len(left)


def _take_lines(rows: list[Row]) -> list[Row]:
    lines = [rows.pop(0)]
    while len(lines) < _HEADER_LINES and _is_header_line(lines, rows):
        lines.append(rows.pop(0))
    return lines


def _take_captions(rows: list[Row]) -> list[str]:
    """Remove the rows above a header that hold one cell, the first, and give these cells."""
    captions: list[str] = []
    while len(rows) > 2 and len(captions) < _CAPTION_ROWS:
        first, rest = rows[0][0], rows[0][1:]
        if not first or not rest or any(rest):
            break
        captions.append(first)
        del rows[0]
    return captions


def _is_header_line(above: Sequence[Row], rows: Sequence[Row]) -> bool:
    """Whether the first row goes on with the header.

    It does where nothing in it is a quantity, most of it stands over columns of quantities, and
    the first column shows that no record begins here: either its cell is empty, or the lines
    above left the naming of the first column to this one, whose cells are then all filled.
    """
    if len(rows) < 2:
        return False
    first, *rest = rows[0]
    filled = [i for i, cell in enumerate(rest, start=1) if cell]
    if not filled or any(is_quantity(cell, or_blank=True) for cell in rest if cell):
        return False
    if len(filled) == 1 and rows[0][filled[0]].endswith((":", "：")):
        return False  # the name of a group
    named = [line[0] for line in above if line[0]]
    if first and named != [first] * len(named):
        return False
    if first and not named and len(filled) < len(rest):
        return False
    kinds = {i: column_kind(row[i] for row in rows[1:]) for i in filled}
    if any(kinds[i] == "date" and is_date(rows[0][i]) for i in filled):
        return False
    return 2 * sum(kind in ("quantity", "nothing") for kind in kinds.values()) > len(filled) and (
        "quantity" in kinds.values()
    )


def column_kind(cells: Iterable[str]) -> str:
    """Say what most of a column's filled cells are: quantity, date, text, or nothing."""
    filled = [cell for cell in cells if cell]
    if not filled:
        return "nothing"
    quantities = sum(is_quantity(cell, or_blank=True) for cell in filled)
    dates = sum(map(is_date, filled))
    if 2 * quantities > len(filled):
        return "quantity"
    return "date" if 2 * dates > len(filled) else "text"


def _column_names(lines: Sequence[Row], width: int, *, spread: bool) -> tuple[str, Row]:
    """Join the lines of a header for each column.

    Returns:
        A remark for the whole table, such as ``(in millions)``, and the names.
    """
    remarks: list[str] = []
    parts: list[list[str]] = [[] for _ in range(width)]
    for number, line in enumerate(lines):
        below = lines[number + 1 :]
        filled = [i for i in range(1, width) if line[i]]
        if spread and len(lines) > 1 and len(filled) == 1 and not line[0] and width > 2:
            line = _lone(line[filled[0]], filled[0], below, width)
            if not any(line):
                remarks.append(lines[number][filled[0]])
        elif spread and below:
            line = _spread(line, below)
        for i in range(width):
            if line[i] and parts[i][-1:] != [line[i]]:
                parts[i].append(line[i])
    return " ".join(remarks), [" ".join(part) for part in parts]


def _lone(text: str, place: int, below: Sequence[Row], width: int) -> Row:
    """Lay out the one cell of a header line, which is often centred over the columns it names.

    These are the years beside each other that it stands over, or all columns to its right if it
    stands at the left edge. Where neither is so, the row is empty: the cell is a remark on the
    whole table.
    """
    years = _years(below, width)
    if years[place]:
        first = last = place
        while first > 1 and years[first - 1]:
            first -= 1
        while last + 1 < width and years[last + 1]:
            last += 1
        return [text if first <= i <= last else "" for i in range(width)]
    reaches = place == 1 and below and not any(years)
    return [text if i and reaches else "" for i in range(width)]


def _spread(line: Row, below: Sequence[Row]) -> Row:
    """Let the cells of an upper header line reach over the empty ones to their right.

    One that stands over a year reaches over no more than years.
    """
    years = _years(below, len(line))
    spread = list(line)
    for i in range(2, len(line)):
        if not line[i] and years[i - 1] <= years[i]:
            spread[i] = spread[i - 1]
    return spread


def _years(lines: Sequence[Row], width: int) -> list[bool]:
    """Say for each column whether lines of the header name a year for it."""
    return [i > 0 and any(_YEAR.search(line[i]) for line in lines) for i in range(width)]
