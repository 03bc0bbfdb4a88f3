"""Tables in text files: the delimiter is found, the rows are read.

Source: RFC 4180 for quoting; the delimiter is chosen by ourselves because the standard library's
sniffer fails on short tables and on commas inside texts.
"""

from __future__ import annotations

import csv
import io
from collections import Counter

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import build_table

__all__ = ["find_delimiter", "read_delimited"]

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 60


def find_delimiter(text: str) -> str:
    """Find the character that parts the cells of a table.

    It is the one by which the most of the first rows have the same number of cells, and more
    than one; among equals the one that gives more cells. A table of one column has none, and
    the comma is given.
    """
    best, best_score = ",", (0.0, 0)
    lines = text.split("\n", 4 * _SAMPLE_ROWS)[: 4 * _SAMPLE_ROWS]
    for delimiter in _DELIMITERS:
        widths: list[int] = []
        try:
            for row in csv.reader(lines, delimiter=delimiter):
                if any(cell.strip() for cell in row):
                    widths.append(len(row))
                if len(widths) == _SAMPLE_ROWS:
                    break
        except csv.Error:
            continue
        if not widths:
            continue
        width, rows = Counter(widths).most_common(1)[0]
        score = (rows / len(widths), width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def read_delimited(
    text: str, *, source: str, title: str, limits: ReadLimits, delimiter: str | None = None
) -> SourceDocument:
    """Read a table in a text file.

    Args:
        text: The file's text.
        source: The file, for messages.
        title: The title of the document and name of the table.
        limits: The most rows and columns.
        delimiter: The character between cells; ``None`` to find it.

    Raises:
        IngestionError: The rows cannot be read, or are too many.
    """
    chosen = delimiter or find_delimiter(text)
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=chosen)
    try:
        for row in reader:
            if len(rows) == limits.rows or len(row) > limits.columns:
                raise IngestionError(
                    source,
                    f"The table has more than {limits.rows} rows or {limits.columns} columns. "
                    "Split it, or raise the limits.",
                    place=f"line {reader.line_num}",
                )
            rows.append(row)
    except csv.Error as error:
        raise IngestionError(
            source,
            f"The row cannot be read: {error}. Check its quotation marks.",
            place=f"line {reader.line_num}",
        ) from error
    table = build_table(rows)
    return SourceDocument(
        title=table.name if table and table.name else title, blocks=(table,) if table else ()
    )
