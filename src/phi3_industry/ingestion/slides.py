"""PowerPoint files: each visible slide is a section."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.layout import build_table, property_lines
from phi3_industry.ingestion.limits import ReadLimits, check_archive
from phi3_industry.ingestion.source import SectionBuilder, SourceDocument, one_line

__all__ = ["read_pptx"]

_GROUP_DEPTH = 20
"""Shapes may be grouped in groups; nobody draws deeper ones by hand."""


def read_pptx(data: bytes, *, source: str, title: str, limits: ReadLimits) -> SourceDocument:
    """Read a PowerPoint file.

    A slide gives its title as a heading (``Slide 3`` if it has none), its texts and tables in the
    order of the file, and its speaker's notes. Pictures, charts and comments are not read; hidden
    slides are left out and remarked on.

    Args:
        data: The file's bytes.
        source: The file, for messages.
        title: The document's title if the file names none.
        limits: What is read at most.

    Raises:
        IngestionError: The file is damaged or too large.
        MissingDependencyError: python-pptx is not installed.
    """
    pptx = import_optional(
        "pptx", purpose=f"read '{source}'", package="python-pptx", extra="readers"
    )
    check_archive(data, source=source, limits=limits)
    remarks: list[str] = []
    try:
        presentation = pptx.Presentation(io.BytesIO(data))
        builder = SectionBuilder(presentation.core_properties.title or title)
        for number, slide in enumerate(presentation.slides, start=1):
            if slide._element.get("show") in ("0", "false"):
                remarks.append(f"Slide {number} is hidden and was left out.")
            else:
                _add_slide(builder, slide, number)
    except Exception as error:  # python-pptx raises whatever its parsers do
        raise IngestionError(
            source,
            f"The PowerPoint file is damaged ({error}). Open and save it anew with PowerPoint.",
        ) from error
    return builder.finish(remarks=tuple(remarks))


def _add_slide(builder: SectionBuilder, slide: Any, number: int) -> None:
    heading = slide.shapes.title
    text = one_line(heading.text) if heading is not None else ""
    builder.heading(1, text or f"Slide {number}")
    for shape in _flat(slide.shapes):
        if heading is not None and shape.shape_id == heading.shape_id:
            continue
        if getattr(shape, "has_table", False):
            _add_table(builder, shape.table)
        elif getattr(shape, "has_text_frame", False):
            builder.paragraph("\n".join(_lines(shape.text_frame.paragraphs)))
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        builder.paragraph(slide.notes_slide.notes_text_frame.text)


def _flat(shapes: Iterable[Any], depth: int = 0) -> Iterator[Any]:
    for shape in shapes:
        inner = getattr(shape, "shapes", None)
        if inner is None:
            yield shape
        elif depth < _GROUP_DEPTH:
            yield from _flat(inner, depth + 1)


def _lines(paragraphs: Iterable[Any]) -> Iterator[str]:
    """Write the paragraphs of a text frame; several ones are a list, deeper ones indented."""
    filled = [p for p in paragraphs if p.text.strip()]
    for paragraph in filled:
        text = one_line(paragraph.text)
        yield f"{'  ' * paragraph.level}- {text}" if len(filled) > 1 else text


def _add_table(builder: SectionBuilder, table: Any) -> None:
    # a merged cell's text stands in its first place, and the others are empty
    rows = [[one_line(cell.text) for cell in row.cells] for row in table.rows]
    header = True if table.first_row and len(rows) > 1 else None
    lines = property_lines(rows) if header is None else None
    if lines is not None:
        builder.paragraph("\n".join(f"- {line}" for line in lines))
    else:
        builder.table(build_table(rows, section=builder.section, header=header))
