"""Rows of a table become sentences that carry the row's key, and typed cells for filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from phi3_industry.ingestion.chunking import split_text

__all__ = [
    "Table",
    "build_table",
    "cell_value",
    "key_column_of",
    "property_lines",
    "row_text",
    "row_texts",
    "unique_columns",
]

_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
_NUMBER_LIKE = re.compile(r"[-+−]?[$€£¥]?\s?\d[\d.,'’\s]*%?")
_QUANTITY = re.compile(r"[-+−±<>≤≥]?\s?\d")
_DATE = re.compile(
    r"(?:19|20)\d\d|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}\.? [^\W\d]+\.? (?:19|20)\d\d"
)
"""A year, ``30/9/2019``, ``2019-09-30`` or ``30 September 2019``."""
_KEY_CHARS = 80
"""A key column's cells are shorter than this on average: longer ones are descriptions."""

_CAPTION_ROWS = 10
"""Rows with a single cell that may stand above the header."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with named columns.

    Attributes:
        section: The headings above it, outermost first, without the document's title.
        name: Its name: a caption, a sheet, or a file; may be empty.
        columns: Names of the columns, unique and never empty.
        rows: The cells as text, one for each column; empty where there is nothing.
        key_column: Index of the column that names a row.
    """

    section: tuple[str, ...]
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    key_column: int


def row_text(columns: Sequence[str], cells: Sequence[str], key_column: int) -> str:
    """Write a row as one line of text, its key first.

    Empty cells are left out. Nothing is translated or rounded::

        >>> row_text(["Kind", "Tag", "Oil"], ["pump", "P-4471", "65 °C"], 1)
        'Tag: P-4471; Kind: pump; Oil: 65 °C'

    Args:
        columns: Names of the columns.
        cells: The row's cells, one for each column.
        key_column: Index of the column that names the row.
    """
    order = [key_column, *(i for i in range(len(columns)) if i != key_column)]
    return "; ".join(f"{columns[i]}: {cells[i]}" for i in order if cells[i])


def row_texts(
    columns: Sequence[str],
    cells: Sequence[str],
    key_column: int,
    *,
    max_tokens: int,
    count_tokens: Callable[[str], int],
) -> list[str]:
    """Write a row as texts of at most ``max_tokens``, each beginning with the row's key.

    Cells stay whole unless one alone is too long; it is then split like other text. A key that
    takes more than half of the tokens is repeated cut.
    """
    whole = row_text(columns, cells, key_column)
    if len(whole) <= 16 * max_tokens and count_tokens(whole) <= max_tokens:
        return [whole]
    key = f"{columns[key_column]}: {cells[key_column]}" if cells[key_column] else ""
    if key:
        key = split_text(key, max_tokens=max(1, max_tokens // 2), count_tokens=count_tokens)[0]
    room = max(1, max_tokens - count_tokens(f"{key}; "))
    parts: list[str] = []
    for index, cell in enumerate(cells):
        if not cell or index == key_column:
            continue
        text = f"{columns[index]}: {cell}"
        pieces = split_text(text, max_tokens=room, count_tokens=count_tokens)
        joined = f"{parts[-1]}; {text}" if parts else text
        if parts and len(pieces) == 1 and count_tokens(joined) <= room:
            parts[-1] = joined
        else:
            parts += pieces
    return [f"{key}; {part}" if key else part for part in parts] or [key]


def cell_value(cell: str) -> int | float | str:
    """Read a cell as a number where it plainly is one, for filters.

    ``"1,000"`` stays text, since the comma parts thousands in some countries and decimals in
    others, and so does ``"007"``, which is a code.
    """
    if not _PLAIN_NUMBER.fullmatch(cell):
        return cell
    return float(cell) if "." in cell else int(cell)


def unique_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Name every column, and each one differently.

    An empty name becomes ``Column 3`` by its place; a repeated one gets a number, ``Load (2)``.
    """
    chosen: dict[str, None] = {}
    repeats: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        base = candidate = " ".join(name.split()) or f"Column {place}"
        while candidate in chosen:
            repeats[base] = repeats.get(base, 1) + 1
            candidate = f"{base} ({repeats[base]})"
        chosen[candidate] = None
    return tuple(chosen)


def key_column_of(rows: Sequence[Sequence[str]], width: int) -> int:
    """Choose the column that names the rows.

    It is the first one whose cells are all filled and all different, short enough for a name
    and not mostly numbers; failing that the first filled and different one; failing that 0.
    """
    fallback = 0
    for index in reversed(range(width)):
        cells = [row[index] for row in rows]
        if all(cells) and len(set(cells)) == len(cells):
            fallback = index
    for index in range(width):
        cells = [row[index] for row in rows]
        distinct = all(cells) and len(set(cells)) == len(cells)
        short = sum(map(len, cells)) <= _KEY_CHARS * len(cells)
        if distinct and short and not _mostly_numbers(cells):
            return index
    return fallback


def build_table(
    rows: Sequence[Sequence[Any]],
    *,
    section: tuple[str, ...] = (),
    name: str = "",
    header: bool | None = None,
) -> Table | None:
    """Make a table of raw rows.

    Rows without any cell are left out; rows with a single cell above a wider header are its
    caption and become the name if there is none.

    Args:
        rows: Cells, which are turned into text; rows may differ in length.
        section: The headings above the table.
        name: The table's name.
        header: Whether the first row names the columns; ``None`` to see from its cells. Without
            a header, columns are named by their places.

    Returns:
        The table, or ``None`` if there is no row of data.
    """
    cleaned = [[" ".join(str(c).split()) if c is not None else "" for c in row] for row in rows]
    cleaned = [row for row in cleaned if any(row)]
    width = max((len(row) for row in cleaned), default=0)
    cleaned = [row + [""] * (width - len(row)) for row in cleaned]
    if header is None:
        captions = _take_captions(cleaned)
        name = name or " ".join(captions)
        header = _has_header(cleaned)
    names = cleaned.pop(0) if header and cleaned else [""] * width
    filled = [i for i in range(width) if names[i] or any(row[i] for row in cleaned)]
    data = tuple(tuple(row[i] for i in filled) for row in cleaned)
    if not data:
        return None
    return Table(
        section=section,
        name=" ".join(name.split()),
        columns=unique_columns([names[i] for i in filled]),
        rows=data,
        key_column=key_column_of(data, len(filled)),
    )


def _take_captions(rows: list[list[str]]) -> list[str]:
    """Remove the rows above a header that hold one cell, the first, and give these cells."""
    captions: list[str] = []
    while len(rows) > 2 and len(captions) < _CAPTION_ROWS:
        first, rest = rows[0][0], rows[0][1:]
        if not first or not rest or any(rest):
            break
        captions.append(first)
        del rows[0]
    return captions


def property_lines(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """Write a table of two columns without a header as lines, ``Oil temperature: 65 °C``.

    Returns:
        The lines, or ``None`` if the rows are no such table.
    """
    cleaned = [[" ".join(cell.split()) for cell in row] for row in rows]
    cleaned = [row for row in cleaned if any(row)]
    if not cleaned or any(len(row) != 2 or not row[0] for row in cleaned) or _has_header(cleaned):
        return None
    return [f"{name}: {value}" if value else name for name, value in cleaned]


def _mostly_numbers(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    numbers = sum(bool(_NUMBER_LIKE.fullmatch(cell)) for cell in filled)
    return 2 * numbers > len(filled)


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: less than half of its cells begin as a quantity does.

    Years and dates do not count as quantities, since they often name columns.
    """
    if len(rows) < 2:
        return False
    first = [cell for cell in rows[0] if cell]
    quantities = [c for c in first if _QUANTITY.match(c) and not _DATE.fullmatch(c)]
    return 2 * len(quantities) < len(first)
