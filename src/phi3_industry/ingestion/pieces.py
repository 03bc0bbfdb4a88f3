"""Long tables as pieces of some rows, so that no more than one is held in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from phi3_industry.ingestion.cells import column_format, value_text
from phi3_industry.ingestion.tables import Table, key_column_of, unique_columns

__all__ = ["PIECE_ROWS", "record_pieces", "row_pieces"]

PIECE_ROWS = 1000
"""Rows of a piece. The first piece also tells the key, the kinds and the formats of all rows."""


def row_pieces(
    rows: Iterable[Sequence[str]],
    *,
    columns: Sequence[str],
    name: str = "",
    text_columns: frozenset[int] = frozenset(),
) -> Iterator[Table]:
    """Part a table's rows into pieces that agree on key, formats and numbering.

    Args:
        rows: The cells of each row. A row may have fewer cells than there are columns, or more:
            the further columns are named by their places.
        columns: Names of the columns; an empty one is named by its place.
        name: The table's name.
        text_columns: Indexes of the columns that the source declares to be text.
    """
    left = iter(rows)
    sample = list(islice(left, PIECE_ROWS))
    if not sample:
        return
    width = max(len(columns), *map(len, sample))
    cells = [_padded(row, width) for row in sample]
    key = key_column_of(cells, width)
    formats = [column_format(column) for column in zip(*cells, strict=True)]
    left = chain(sample, left)
    first_row = 1
    while piece := list(islice(left, PIECE_ROWS)):
        width = max(width, *map(len, piece))
        yield Table(
            section=(),
            name=name,
            columns=unique_columns([*columns, *[""] * (width - len(columns))]),
            rows=tuple(_padded(row, width) for row in piece),
            key_column=key,
            text_columns=text_columns,
            formats=(*formats, *[""] * (width - len(formats))),
            first_row=first_row,
        )
        first_row += len(piece)


def record_pieces(
    records: Iterable[Sequence[Any]], *, columns: Sequence[str], name: str = ""
) -> Iterator[Table]:
    """Part typed records into pieces; columns that hold strings are text whatever they look like.

    Args:
        records: The values of each record: Python's own types, dates, decimals, lists, dicts.
        columns: Names of the columns.
        name: The table's name.
    """
    left = iter(records)
    sample = list(islice(left, PIECE_ROWS))
    texts = {i for record in sample for i, value in enumerate(record) if isinstance(value, str)}
    rows = ([_cell(value) for value in record] for record in chain(sample, left))
    filled = (row for row in rows if any(row))
    yield from row_pieces(filled, columns=columns, name=name, text_columns=frozenset(texts))


def _cell(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return ""  # no text, and nobody asks for it
    if isinstance(value, list | tuple | dict | set):
        return json.dumps(value, ensure_ascii=False, default=value_text)
    text = value_text(value).encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.replace("\x00", " ").split())


def _padded(row: Sequence[str], width: int) -> tuple[str, ...]:
    return (*row, *[""] * (width - len(row)))
