"""Write plain Word, Excel and PDF files whose bytes depend on nothing but their content.

Office libraries stamp files with the time and with their own version. The example documents are
to be reproducible byte for byte, so these writers put down the few parts that a reader needs:
no compression, fixed timestamps, one font.

Source: ECMA-376 (Office Open XML), parts 1 and 2; ISO 32000-1 (PDF 1.7), sections 7 to 9.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Paragraph", "Table", "docx_bytes", "pdf_bytes", "xlsx_bytes"]

_TIMESTAMP = (2020, 1, 1, 0, 0, 0)
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_MIME = "application/vnd.openxmlformats-officedocument"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of a Word file.

    Attributes:
        text: Its text.
        heading: Heading level from 1; 0 for body text.
        bullet: Whether it is an item of a list.
    """

    text: str
    heading: int = 0
    bullet: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a Word file: rows of cells, the first row being the header."""

    rows: Sequence[Sequence[str]]


def docx_bytes(blocks: Sequence[Paragraph | Table]) -> bytes:
    """Write a Word file."""
    body = "".join(_word_block(block) for block in blocks)
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{level}"><w:name w:val="heading {level}"/>'
        f'<w:pPr><w:outlineLvl w:val="{level - 1}"/></w:pPr></w:style>'
        for level in (1, 2, 3)
    )
    styles += (
        '<w:style w:type="paragraph" w:styleId="ListBullet"><w:name w:val="List Bullet"/></w:style>'
    )
    return _package(
        {
            "word/document.xml": (
                f"{_MIME}.wordprocessingml.document.main+xml",
                f'<w:document xmlns:w="{_WORD}"><w:body>{body}<w:sectPr/></w:body></w:document>',
            ),
            "word/styles.xml": (
                f"{_MIME}.wordprocessingml.styles+xml",
                f'<w:styles xmlns:w="{_WORD}">{styles}</w:styles>',
            ),
        },
        main="word/document.xml",
        relations={"word/document.xml": [("styles", "styles.xml")]},
    )


def _word_block(block: Paragraph | Table) -> str:
    if isinstance(block, Table):
        rows = "".join(
            "<w:tr>"
            + "".join(f"<w:tc>{_word_block(Paragraph(cell))}</w:tc>" for cell in row)
            + "</w:tr>"
            for row in block.rows
        )
        return f"<w:tbl><w:tblPr/><w:tblGrid/>{rows}</w:tbl>"
    name = f"Heading{block.heading}" if block.heading else "ListBullet" if block.bullet else ""
    style = f'<w:pPr><w:pStyle w:val="{name}"/></w:pPr>' if name else ""
    text = f'<w:r><w:t xml:space="preserve">{escape(block.text)}</w:t></w:r>'
    return f"<w:p>{style}{text}</w:p>"


def xlsx_bytes(sheets: dict[str, Sequence[Sequence[str]]]) -> bytes:
    """Write an Excel file of text cells: sheet name to rows."""
    parts: dict[str, tuple[str, str]] = {}
    entries = ""
    relations = []
    for number, (name, rows) in enumerate(sheets.items(), start=1):
        cells = "".join(
            f'<row r="{r}">'
            + "".join(
                f'<c r="{chr(64 + c)}{r}" t="inlineStr"><is><t>{escape(cell)}</t></is></c>'
                for c, cell in enumerate(row, start=1)
                if cell
            )
            + "</row>"
            for r, row in enumerate(rows, start=1)
        )
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f"{_MIME}.spreadsheetml.worksheet+xml",
            f'<worksheet xmlns="{_SHEET}"><sheetData>{cells}</sheetData></worksheet>',
        )
        entries += f'<sheet name="{escape(name)}" sheetId="{number}" r:id="rId{number}"/>'
        relations.append(("worksheet", f"worksheets/sheet{number}.xml"))
    workbook = (
        f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}/relationships">'
        f"<sheets>{entries}</sheets></workbook>"
    )
    main_type = f"{_MIME}.spreadsheetml.sheet.main+xml"
    return _package(
        {"xl/workbook.xml": (main_type, workbook), **parts},
        main="xl/workbook.xml",
        relations={"xl/workbook.xml": relations},
    )


def _package(
    parts: dict[str, tuple[str, str]],
    *,
    main: str,
    relations: dict[str, list[tuple[str, str]]],
) -> bytes:
    types = "".join(
        f'<Override PartName="/{name}" ContentType="{mime}"/>' for name, (mime, _) in parts.items()
    )
    files = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{types}</Types>',
        "_rels/.rels": _relationships([("officeDocument", main)]),
    }
    for source, targets in relations.items():
        folder, name = source.rsplit("/", 1)
        files[f"{folder}/_rels/{name}.rels"] = _relationships(targets)
    files |= {name: content for name, (_, content) in parts.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=_TIMESTAMP)
            entry.create_system = 3  # the same on every platform
            archive.writestr(entry, _XML + content)
    return buffer.getvalue()


def _relationships(targets: Sequence[tuple[str, str]]) -> str:
    entries = "".join(
        f'<Relationship Id="rId{number}" Type="{_OFFICE}/relationships/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, start=1)
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{entries}</Relationships>'


def pdf_bytes(pages: Sequence[Sequence[str]], *, title: str) -> bytes:
    """Write a PDF file with a text layer: one list of lines a page, in WinAnsi characters."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, lines in enumerate(pages):
        shown = b"".join(_pdf_string(line) + b" Tj T*\n" for line in lines)
        stream = b"BT /F1 11 Tf 60 780 Td 16 TL\n" + shown + b"ET"
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            b"/Resources << /Font << /F1 3 0 R >> >> "
            + f"/Contents {5 + 2 * number} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream")
    objects.append(b"<< /Title " + _pdf_string(title) + b" >>")
    output = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(output))
        output += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    start = len(output)
    output += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    output += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    output += b"trailer << /Size %d /Root 1 0 R /Info %d 0 R >>\n" % (
        len(objects) + 1,
        len(objects),
    )
    output += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(output)


def _pdf_string(text: str) -> bytes:
    encoded = text.encode("cp1252")
    for character in (b"\\", b"(", b")"):
        encoded = encoded.replace(character, b"\\" + character)
    return b"(" + encoded + b")"
