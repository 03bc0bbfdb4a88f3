"""Tables in text files: the delimiter is found, the rows are read.

Source: RFC 4180 for quoting; the delimiter is chosen by ourselves because the standard library's
sniffer fails on short tables and on commas inside texts.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import BinaryIO, TextIO

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.grid import build_tables
from phi3_industry.ingestion.header import take_header
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.pieces import row_pieces
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import Table
from phi3_industry.ingestion.text_encoding import find_encoding

__all__ = ["find_delimiter", "read_delimited", "stream_delimited"]

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 60
_HEADER_ROWS = 200
"""Rows from which the header of a long table is told."""

_LINE_CHARS = 1 << 20
"""A line of a long table is shorter than this, or it is none."""

_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], " ")


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
    tables = build_tables(rows)
    sole = tables[0].name if len(tables) == 1 else ""
    return SourceDocument(title=sole or title, blocks=tuple(tables))


def stream_delimited(
    stream: BinaryIO, *, source: str, title: str, limits: ReadLimits, delimiter: str | None = None
) -> SourceDocument:
    """Read a table that is too long for memory.

    It is one plain table: captions and a header may stand above its rows, and that is all that
    is made of its layout.

    Args:
        stream: The file, to be read while the document's blocks are gone through.
        source: The file, for messages.
        title: The document's title.
        limits: The most columns.
        delimiter: The character between cells; ``None`` to find it.

    Raises:
        IngestionError: It is no text, or, while the blocks are gone through, a row cannot be
            read.
        MissingDependencyError: The text is not Unicode and charset-normalizer is not installed.
    """
    encoding = find_encoding(stream, source=source)
    text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    sample = list(islice(_lines(text, source), _HEADER_ROWS))
    chosen = delimiter or find_delimiter("".join(sample))
    text.seek(0)
    rows = _rows(text, delimiter=chosen, source=source, limits=limits)
    head = [row for row in islice(rows, _HEADER_ROWS) if any(row)]
    width = max(map(len, head), default=0)
    padded = [[*row, *[""] * (width - len(row))] for row in head]
    name, columns, _ = take_header(padded, header=None, spans_are_filled=False)

    def pieces() -> Iterator[Table]:
        try:
            records = chain(padded, (row for row in rows if any(row)))
            yield from row_pieces(records, columns=columns)
        finally:
            text.detach()  # the stream is its owner's to close

    return SourceDocument(title=name or title, blocks=pieces())


def _rows(text: TextIO, *, delimiter: str, source: str, limits: ReadLimits) -> Iterator[list[str]]:
    reader = csv.reader(_lines(text, source), delimiter=delimiter)
    try:
        for row in reader:
            if len(row) > limits.columns:
                raise IngestionError(
                    source,
                    f"The table has more than {limits.columns} columns. Raise the limits.",
                    place=f"line {reader.line_num}",
                )
            yield [" ".join(cell.translate(_CONTROL).split()) for cell in row]
    except csv.Error as error:
        raise IngestionError(
            source,
            f"The row cannot be read: {error}. Check its quotation marks.",
            place=f"line {reader.line_num}",
        ) from error


def _lines(text: TextIO, source: str) -> Iterator[str]:
    for number in count(1):
        try:
            line = text.readline(_LINE_CHARS)
        except UnicodeDecodeError as error:
            raise IngestionError(
                source,
                f"It is no {text.encoding.upper()} here. Save it as UTF-8.",
                place=f"line {number}",
            ) from error
        if not line:
            return
        if len(line) == _LINE_CHARS:
            raise IngestionError(
                source,
                f"The line has more than {_LINE_CHARS} characters: this is no table.",
                place=f"line {number}",
            )
        yield line
