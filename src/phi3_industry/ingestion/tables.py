"""Rows of a table become sentences that carry the row's key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phi3_industry.ingestion.cells import column_format, is_number_like
from phi3_industry.ingestion.chunking import split_text

__all__ = [
    "Table",
    "key_column_of",
    "row_text",
    "row_texts",
    "unique_columns",
]

_KEY_CHARS = 80
"""A key column's cells are shorter than this on average: longer ones are descriptions."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with named columns.

    Attributes:
        section: The headings above it, outermost first, without the document's title.
        name: Its name: a caption, a sheet, or a file; may be empty.
        columns: Names of the columns, unique and never empty.
        rows: The cells as text, one for each column; empty where there is nothing.
        key_column: Index of the column that names a row.
        groups: For each row the lines that group it and its neighbours, outermost first; empty
            if the table has none.
        notes: (mark, text) of the footnotes that cells or columns refer to.
        text_columns: Indexes of the columns that the source declares to be text, so that
            nothing in them is a number, whatever it looks like.
        formats: How each column writes amounts or dates, as `column_format` says it; to be seen
            from the rows if empty.
        first_row: Number of the first row; above 1 in the further pieces of a long table.
    """

    section: tuple[str, ...]
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    key_column: int
    groups: tuple[tuple[str, ...], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    text_columns: frozenset[int] = frozenset()
    formats: tuple[str, ...] = ()
    first_row: int = 1

    def column_formats(self) -> tuple[str, ...]:
        """Say how each column writes amounts or dates."""
        return self.formats or tuple(column_format(cells) for cells in zip(*self.rows, strict=True))

    def group_of(self, index: int) -> tuple[str, ...]:
        """Say what groups a row, by the row's index."""
        return self.groups[index] if self.groups else ()

    def notes_of(self, index: int) -> tuple[tuple[str, str], ...]:
        """Give the footnotes that a row's cells or the columns refer to, by the row's index."""
        cells = (*self.rows[index], *self.columns, *self.group_of(index))
        return tuple(
            (mark, text)
            for mark, text in self.notes
            if any(cell.endswith(mark) and cell != mark for cell in cells)
        )


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


def _mostly_numbers(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return 2 * sum(map(is_number_like, filled)) > len(filled)
