"""Excel files: each visible sheet holds tables."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.cells import value_text
from phi3_industry.ingestion.grid import build_tables
from phi3_industry.ingestion.limits import ReadLimits, check_archive
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import Table

__all__ = ["read_xlsx"]


def read_xlsx(data: bytes, *, source: str, title: str, limits: ReadLimits) -> SourceDocument:
    """Read an Excel file.

    Formulas count with the value that was last computed for them; one that was never computed
    is an empty cell. Hidden sheets are left out and remarked on.

    Args:
        data: The file's bytes.
        source: The file, for messages.
        title: The document's title.
        limits: What is read at most.

    Raises:
        IngestionError: The file is damaged or too large.
        MissingDependencyError: openpyxl is not installed.
    """
    openpyxl = import_optional("openpyxl", purpose=f"read '{source}'", extra="readers")
    check_archive(data, source=source, limits=limits)
    try:
        workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever its parsers do
        raise _damaged(source, error) from error
    blocks: list[Table] = []
    remarks: list[str] = []
    try:
        for sheet in workbook.worksheets:
            if sheet.sheet_state != "visible":
                remarks.append(f"The sheet '{sheet.title}' is hidden and was left out.")
                continue
            rows = _rows(sheet, source=source, limits=limits)
            _lay_out_merged(rows, _merged_ranges(sheet, source=source))
            grid = [row for number, row in rows.items() if row or number - 1 in rows]
            blocks += build_tables(grid, name=str(sheet.title), side_by_side=True)
    finally:
        workbook.close()
    return SourceDocument(title=title, blocks=tuple(blocks), remarks=tuple(remarks))


def _rows(sheet: Any, *, source: str, limits: ReadLimits) -> dict[int, list[str]]:
    """Read the rows by their numbers; of the empty ones those that follow a filled one."""
    rows: dict[int, list[str]] = {}
    filled = 0
    sheet.reset_dimensions()  # the declared size may be wrong or absurd
    try:
        for number, cells in enumerate(sheet.iter_rows(), start=1):
            row = [_text(cell) for cell in cells[: limits.columns + 1]]
            while row and not row[-1]:
                row.pop()
            filled += bool(row)
            if filled > limits.rows or len(row) > limits.columns:
                raise IngestionError(
                    source,
                    f"The sheet has more than {limits.rows} rows or {limits.columns} columns. "
                    "Split it, or raise the limits.",
                    place=f"sheet '{sheet.title}'",
                )
            if row or rows.get(number - 1):
                rows[number] = row
    except IngestionError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers do
        raise _damaged(source, error) from error
    return rows


_MOST_FILLED = 2**21
"""Rows that merged cells may reach over in all; ranges that overlap, which Excel never writes,
could demand any number."""

_MERGED = re.compile(rb'mergeCell [^>]{0,99}?ref="([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})"')

Range = tuple[int, int, int, int]
"""First row and column, last row and column, all inside the range and counted from 1."""


def _merged_ranges(sheet: Any, *, source: str) -> list[Range]:
    """Find the merged cells, which openpyxl does not tell when it reads row by row."""
    found: list[Range] = []
    try:
        with sheet._get_source() as part:
            rest = b""
            while chunk := part.read(1 << 20):
                text = rest + chunk
                end = 0
                for match in _MERGED.finditer(text):
                    left, top, right, bottom = match.groups()
                    found.append((int(top), _column(left), int(bottom), _column(right)))
                    end = match.end()
                rest = text[max(end, len(text) - 200) :]
    except Exception as error:  # zipfile raises whatever a damaged archive leads it to
        raise _damaged(source, error) from error
    return found


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number


def _lay_out_merged(rows: dict[int, list[str]], ranges: Sequence[Range]) -> None:
    """Bring the rows to one width and write merged cells into each of their rows.

    A cell that is alone in its row and spans columns becomes a row of one cell: a line across.
    """
    width = max((len(row) for row in rows.values()), default=0)
    for row in rows.values():
        row += [""] * (width - len(row) if row else 0)
    left_to_fill = _MOST_FILLED
    for top, left, bottom, right in ranges:
        left_to_fill -= bottom - top
        if left_to_fill < 0:
            break
        text = rows[top][left - 1] if left <= width and rows.get(top) else ""
        if not text:
            continue
        for number in range(top + 1, min(bottom, max(rows)) + 1):
            if rows.get(number):
                rows[number][left - 1] = text
        if left == 1 < right and bottom == top and not any(rows[top][1:]):
            rows[top] = [text]


def _text(cell: Any) -> str:
    """Write a cell as Excel shows it, as far as that can be told from value and format."""
    value = cell.value
    if isinstance(value, float | int) and not isinstance(value, bool):
        percent = "%" in str(cell.number_format or "")
        number = f"{value * 100 if percent else value:.15g}"
        return f"{number}%" if percent else number
    return value_text(value)


def _damaged(source: str, error: Exception) -> IngestionError:
    return IngestionError(
        source, f"The Excel file is damaged ({error}). Open and save it anew with Excel."
    )
