"""Word files: headings, paragraphs, lists and tables in the order of the body."""

from __future__ import annotations

import io
import re
from typing import Any

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.layout import build_table, property_lines
from phi3_industry.ingestion.limits import ReadLimits, check_archive
from phi3_industry.ingestion.source import SectionBuilder, SourceDocument

__all__ = ["read_docx"]

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING_STYLE = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(data: bytes, *, source: str, title: str, limits: ReadLimits) -> SourceDocument:
    """Read a Word file.

    Headings are paragraphs with a heading style or an outline level. Headers, footers, notes,
    comments and text boxes are not read.

    Args:
        data: The file's bytes.
        source: The file, for messages.
        title: The document's title if no heading is one.
        limits: What is read at most.

    Raises:
        IngestionError: The file is damaged or too large.
        MissingDependencyError: python-docx is not installed.
    """
    docx = import_optional(
        "docx", purpose=f"read '{source}'", package="python-docx", extra="readers"
    )
    check_archive(data, source=source, limits=limits)
    try:
        document = docx.Document(io.BytesIO(data))
        builder = SectionBuilder(document.core_properties.title or title)
        items: list[str] = []
        for block in document.iter_inner_content():
            if hasattr(block, "rows"):
                _end_list(builder, items)
                _add_table(builder, block)
            else:
                _add_paragraph(builder, items, block)
        _end_list(builder, items)
    except Exception as error:  # python-docx raises whatever its parsers do
        raise IngestionError(
            source, f"The Word file is damaged ({error}). Open and save it anew with Word."
        ) from error
    return builder.finish()


def _add_paragraph(builder: SectionBuilder, items: list[str], paragraph: Any) -> None:
    text = paragraph.text.strip()
    if not text:
        return
    level = _heading_level(paragraph)
    style = str(getattr(paragraph.style, "name", "") or "")
    if level is None and style.startswith("List"):
        items.append(f"- {text}")
        return
    _end_list(builder, items)
    if level is None:
        builder.paragraph(text)
    else:
        builder.heading(level, text)


def _end_list(builder: SectionBuilder, items: list[str]) -> None:
    builder.paragraph("\n".join(items))
    items.clear()


def _heading_level(paragraph: Any) -> int | None:
    """Heading level from 0 (a title) on, by the style's name or, in any language, its outline."""
    style = paragraph.style
    name = str(getattr(style, "name", "") or "")
    if name == "Title":
        return 0
    if match := _HEADING_STYLE.fullmatch(name):
        return int(match.group(1))
    holders = [paragraph._p.pPr]
    while style is not None and len(holders) < 12:  # styles inherit; a loop would be a fault
        holders.append(style.element.pPr)
        style = style.base_style
    for holder in holders:
        outline = None if holder is None else holder.find(f"{_WORD}outlineLvl")
        if outline is not None:
            level = int(outline.get(f"{_WORD}val", "9"))
            return level + 1 if level < 9 else None
    return None


def _add_table(builder: SectionBuilder, table: Any) -> None:
    rows: list[list[str]] = []
    for row in table.rows:
        cells: list[str] = []
        before = None
        for cell in row.cells:  # a merged cell is given once for each column that it spans
            cells.append("" if cell._tc is before else cell.text)
            before = cell._tc
        across = len(cells) > 1 and len({id(cell._tc) for cell in row.cells}) == 1
        rows.append(cells[:1] if across else cells)
    lines = property_lines(rows)
    if lines is not None:
        builder.paragraph("\n".join(f"- {line}" for line in lines))
    else:
        builder.table(build_table(rows, section=builder.section))
