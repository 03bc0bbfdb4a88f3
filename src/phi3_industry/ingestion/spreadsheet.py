"""Excel files: each visible sheet is a table."""

from __future__ import annotations

import datetime
import io
from typing import Any

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.limits import ReadLimits, check_archive
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import Table, build_table

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
            table = build_table(rows, name=str(sheet.title))
            if table is not None:
                blocks.append(table)
    finally:
        workbook.close()
    return SourceDocument(title=title, blocks=tuple(blocks), remarks=tuple(remarks))


def _rows(sheet: Any, *, source: str, limits: ReadLimits) -> list[list[str]]:
    rows: list[list[str]] = []
    filled = 0
    sheet.reset_dimensions()  # the declared size may be wrong or absurd
    try:
        for cells in sheet.iter_rows():
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
            if row:
                rows.append(row)
    except IngestionError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers do
        raise _damaged(source, error) from error
    return rows


def _text(cell: Any) -> str:
    """Write a cell as Excel shows it, as far as that can be told from value and format."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float | int):
        percent = "%" in str(cell.number_format or "")
        number = f"{value * 100 if percent else value:.15g}"
        return f"{number}%" if percent else number
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _damaged(source: str, error: Exception) -> IngestionError:
    return IngestionError(
        source, f"The Excel file is damaged ({error}). Open and save it anew with Excel."
    )
