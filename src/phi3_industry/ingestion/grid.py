"""One grid of cells may hold several tables: a sheet with two lists, a report with its years."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phi3_industry.ingestion.cells import is_date, is_quantity
from phi3_industry.ingestion.header import has_header, header_lines
from phi3_industry.ingestion.layout import build_table
from phi3_industry.ingestion.tables import Table

__all__ = ["build_tables"]

_COMPARED_ROWS = 50

Row = list[str]


def build_tables(
    rows: Sequence[Sequence[Any]],
    *,
    section: tuple[str, ...] = (),
    name: str = "",
    side_by_side: bool = False,
) -> list[Table]:
    """Make the tables of a grid.

    A grid is parted at an empty row only where a header plainly begins below it, and where the
    header of its first table comes back below another caption. A header that comes back as it
    was, as on printed pages, is left out.

    Args:
        rows: Cells; empty rows are kept in them.
        section: The headings above the tables.
        name: The name of the grid; each table's caption is added to it.
        side_by_side: Whether tables may stand beside each other, as on a sheet.
    """
    grid = [[" ".join(str(c).split()) if c is not None else "" for c in row] for row in rows]
    tables: list[Table] = []
    for part in _stacked(grid):
        for block in _beside(part) if side_by_side else [part]:
            for piece in _at_repeated_headers(block):
                table = build_table(piece, section=section, name=name)
                if table is not None:
                    tables.append(table)
    return tables


def _stacked(rows: list[Row]) -> list[list[Row]]:
    """Part a grid at empty rows below which another table begins."""
    parts: list[list[Row]] = [[]]
    for index, row in enumerate(rows):
        gap = index > 0 and not any(rows[index - 1])
        if gap and any(row) and parts[-1] and _begins_table(rows[index:], before=parts[-1]):
            parts.append([])
        if any(row):
            parts[-1].append(row)
    return parts


def _begins_table(rows: Sequence[Row], *, before: Sequence[Row]) -> bool:
    """Whether a header with rows stands here, perhaps below a caption, and no further record.

    It has to stand in other columns than the table before, or over a column of quantities or
    dates without being one.
    """
    block: list[Row] = []
    for row in rows[:_COMPARED_ROWS]:
        if not any(row):
            break
        block.append(row)
    while len(block) > 2 and _filled(block[0]) == 1:
        block = block[1:]
    if (
        len(block) < 2
        or _filled(block[0]) < 2
        or not has_header([[c for c in r if c] for r in block[:2]])
    ):
        return False
    if max(map(_filled, before)) < 2:
        return False  # what stands above is no table
    if _extent(block) != _extent(before):
        return _filled(block[0]) >= _filled(block[1])
    names = block[0]
    return any(
        names[i] and not _measured(names[i]) and all(_measured(c) for c in _column(block[1:], i))
        for i in range(len(names))
        if _column(block[1:], i)
    )


def _measured(cell: str) -> bool:
    return is_quantity(cell, or_blank=True) or is_date(cell)


def _column(rows: Sequence[Row], index: int) -> list[str]:
    return [row[index] for row in rows if index < len(row) and row[index]]


def _filled(row: Row) -> int:
    return sum(map(bool, row))


def _extent(rows: Sequence[Row]) -> tuple[int, int]:
    """First and last column that is used."""
    used = [i for row in rows for i, cell in enumerate(row) if cell]
    return min(used), max(used)


def _beside(rows: list[Row]) -> list[list[Row]]:
    """Part rows at empty columns if both sides are tables that begin or end in other rows."""
    width = max(map(len, rows), default=0)
    empty = [i for i in range(width) if not _column(rows, i)]
    for gap in empty:
        left = [row[:gap] for row in rows]
        right = [row[gap + 1 :] for row in rows]
        spans = [[i for i, row in enumerate(side) if any(row)] for side in (left, right)]
        if not all(spans) or (spans[0][0], spans[0][-1]) == (spans[1][0], spans[1][-1]):
            continue
        sides = [[row for row in side if any(row)] for side in (left, right)]
        if all(_stands_alone(side) for side in sides):
            return [sides[0], *_beside(sides[1])]
    return [rows]


def _stands_alone(rows: list[Row]) -> bool:
    while len(rows) > 2 and _filled(rows[0]) == 1:
        rows = rows[1:]
    return len(rows) > 1 and _filled(rows[0]) > 1 and has_header(rows)


def _at_repeated_headers(rows: list[Row]) -> list[list[Row]]:
    """Part rows where the last line of their header comes back below other lines of a header."""
    lines = header_lines(rows)
    if not lines or not _is_names(rows[lines - 1]):
        return [rows]
    parts: list[list[Row]] = [[]]
    for index, row in enumerate(rows):
        above = rows[index - lines + 1 : index]
        if index < lines:
            parts[-1].append(row)
        elif row != rows[lines - 1]:
            if row[0] and any(not line[0] and line[1:] == row[1:] for line in rows[:lines]):
                parts.append([])  # the same columns below a name of their own
            parts[-1].append(row)
        elif above == rows[: lines - 1]:
            del parts[-1][len(parts[-1]) - len(above) :]
        elif index >= 2 * lines and not any(is_quantity(cell) for line in above for cell in line):
            del parts[-1][len(parts[-1]) - len(above) :]
            parts.append([*above, row])
        else:
            parts[-1].append(row)
    return [part for part in parts if part]


def _is_names(row: Row) -> bool:
    return _filled(row) > 1 and not any(is_quantity(c, or_blank=True) for c in row if c)
