from __future__ import annotations

import datetime
import io
import sys
import zipfile
from pathlib import Path

import docx
import openpyxl
import pypdf
import pytest

from phi3_industry.errors import IngestionError, MissingDependencyError
from phi3_industry.ingestion import (
    KNOWN_ENDINGS,
    ReadLimits,
    TextBlock,
    parse_document,
    read_document,
)
from phi3_industry.ingestion.delimited import find_delimiter
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import Table

SHEETS = Path(__file__).parents[3] / "examples" / "plant" / "documents"


def sections(document: SourceDocument) -> list[tuple[tuple[str, ...], str]]:
    return [(b.section, b.text) for b in document.blocks if isinstance(b, TextBlock)]


def tables(document: SourceDocument) -> list[Table]:
    return [block for block in document.blocks if isinstance(block, Table)]


def word_file(build: object) -> bytes:
    document = docx.Document()
    build(document)  # type: ignore[operator]
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def excel_file(build: object) -> bytes:
    workbook = openpyxl.Workbook()
    build(workbook)  # type: ignore[operator]
    buffer = io.BytesIO()
    workbook.save(buffer)
    return buffer.getvalue()


# text


def test_short_first_line_is_the_title_of_a_text() -> None:
    document = parse_document(b"Pump manual\n\nFirst.\nSecond.\n", name="a_b-c.txt")
    assert document.title == "Pump manual"
    assert sections(document) == [((), "First.\nSecond.")]


def test_text_without_title_is_named_after_its_file() -> None:
    document = parse_document(b"First line\nsecond line", name="x/a_b-c.txt")
    assert (document.title, len(document.blocks)) == ("a b c", 1)


@pytest.mark.parametrize("name", [f"a{ending}" for ending in KNOWN_ENDINGS])
def test_empty_file_has_no_blocks(name: str) -> None:
    assert parse_document(b" \n", name=name).blocks == ()


# tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(delimiter: str) -> None:
    rows = [["Tag", "Note", "Load"], ["P-1", "x", "2"], ["P-2", "y", "3"]]
    assert find_delimiter("\n".join(delimiter.join(row) for row in rows)) == delimiter


def test_commas_inside_texts_are_no_delimiters() -> None:
    text = "Tag;Note\nP-1;one, two, three\nP-2;four, five, six\n"
    assert find_delimiter(text) == ";"


def test_quoted_cells_may_hold_delimiters_and_line_ends() -> None:
    document = parse_document(b'Tag,Note\nP-1,"a, b\nc"\nP-2,d\n', name="pumps.csv")
    assert tables(document)[0].rows == (("P-1", "a, b c"), ("P-2", "d"))
    assert document.title == "pumps"


def test_table_with_too_many_rows_is_refused_with_its_place() -> None:
    data = b"Tag,Load\n" + b"P,1\n" * 20
    with pytest.raises(IngestionError, match=r"'a\.csv', line 11: The table has more than 10 rows"):
        parse_document(data, name="a.csv", limits=ReadLimits(rows=10))


def test_cell_of_absurd_length_is_refused_with_its_place() -> None:
    data = b'Tag,Load\nP,"' + b"x" * 200_000 + b'"\n'
    with pytest.raises(IngestionError, match="line 2: The row cannot be read: field larger"):
        parse_document(data, name="a.csv")


# Excel


def fill_workbook(workbook: openpyxl.Workbook) -> None:
    first = workbook.active
    first.title = "Pumps"
    first.append(["Tag", "Load", "Share", "Checked", "Since", "On"])
    first.append(["P-1", 38.2, 0.125, datetime.datetime(2024, 5, 1), None, True])
    first.append(["P-2", 40, 1, datetime.datetime(2024, 5, 2, 8, 30), datetime.time(9), False])
    first["C2"].number_format = "0.0%"
    second = workbook.create_sheet("Old")
    second.sheet_state = "hidden"
    second.append(["x", "y"])
    workbook.create_sheet("Empty")


def test_cells_are_read_as_excel_shows_them() -> None:
    document = parse_document(excel_file(fill_workbook), name="a.xlsx")
    table = tables(document)[0]
    assert len(tables(document)) == 1
    assert (table.name, table.columns[0]) == ("Pumps", "Tag")
    assert table.rows == (
        ("P-1", "38.2", "12.5%", "2024-05-01", "", "TRUE"),
        ("P-2", "40", "1", "2024-05-02 08:30:00", "09:00:00", "FALSE"),
    )


def test_hidden_sheet_is_remarked_on() -> None:
    document = parse_document(excel_file(fill_workbook), name="a.xlsx")
    assert document.remarks == ("The sheet 'Old' is hidden and was left out.",)


def test_sheet_with_too_many_rows_is_refused() -> None:
    data = excel_file(lambda book: [book.active.append([i, i]) for i in range(20)])
    with pytest.raises(IngestionError, match="sheet 'Sheet': The sheet has more than 10 rows"):
        parse_document(data, name="a.xlsx", limits=ReadLimits(rows=10))


def fill_merged(workbook: openpyxl.Workbook) -> None:
    sheet = workbook.active
    sheet.title = "Pumps"
    for row in (
        ["Tag", "Size", None, "Site"],
        [None, "L", "W", None],
        ["P-1", 3, 4, "North"],
        ["P-2", 5, 6, None],
        ["Spare parts"],
        ["P-3", 7, 8, "South"],
    ):
        sheet.append(row)
    for cells in ("A1:A2", "B1:C1", "D1:D2", "D3:D4", "A5:D5"):
        sheet.merge_cells(cells)


def test_merged_cells_name_columns_rows_and_groups() -> None:
    [table] = tables(parse_document(excel_file(fill_merged), name="a.xlsx"))
    assert table.columns == ("Tag", "Size L", "Size W", "Site")
    assert table.rows == (
        ("P-1", "3", "4", "North"), ("P-2", "5", "6", "North"), ("P-3", "7", "8", "South"),
    )  # fmt: skip
    assert table.groups == ((), (), ("Spare parts",))


def test_sheet_may_hold_several_tables() -> None:
    def fill(workbook: openpyxl.Workbook) -> None:
        sheet = workbook.active
        sheet.title = "Plant"
        for row in (
            ["Tag", "Load"], ["P-1", 2], ["P-2", 3], [], [],
            ["Valve list"], ["Valve", "Size", "Site"], ["V-1", "DN 50", "North"],
        ):  # fmt: skip
            sheet.append(row)

    found = tables(parse_document(excel_file(fill), name="a.xlsx"))
    assert [(table.name, table.columns) for table in found] == [
        ("Plant", ("Tag", "Load")), ("Plant: Valve list", ("Valve", "Size", "Site")),
    ]  # fmt: skip


# Word


def fill_word(document: docx.document.Document) -> None:
    document.add_heading("Pump manual", level=0)
    document.add_paragraph("Intro.")
    document.add_heading("Operation", level=1)
    document.add_paragraph("Open the valve.", style="List Bullet")
    document.add_paragraph("Start the pump.", style="List Number")
    document.add_heading("Data", level=2)
    for rows in (
        (("Tag", "Load"), ("P-1", "2 t")),
        (("Oil temperature", "65 °C"), ("Load", "2 t")),
    ):
        table = document.add_table(rows=2, cols=2)
        for r, row in enumerate(rows):
            for c, text in enumerate(row):
                table.cell(r, c).text = text


def test_word_file_gives_headings_lists_and_tables_in_order() -> None:
    document = parse_document(word_file(fill_word), name="a.docx")
    assert document.title == "Pump manual"
    assert sections(document) == [
        ((), "Intro."),
        (("Operation",), "- Open the valve.\n- Start the pump."),
        (("Operation", "Data"), "- Oil temperature: 65 °C\n- Load: 2 t"),
    ]
    table = tables(document)[0]
    assert (table.section, table.rows) == (("Operation", "Data"), (("P-1", "2 t"),))


def test_headings_are_known_by_their_outline_in_any_language() -> None:
    def build(document: docx.document.Document) -> None:
        style = document.styles.add_style("Überschrift X", 1)
        outline = docx.oxml.OxmlElement("w:outlineLvl")
        outline.set(docx.oxml.ns.qn("w:val"), "0")
        style.element.get_or_add_pPr().append(outline)
        document.add_paragraph("Betrieb", style="Überschrift X")
        document.add_paragraph("Text.")
        document.add_paragraph("Wartung", style="Überschrift X")
        document.add_paragraph("Mehr.")

    document = parse_document(word_file(build), name="a.docx")
    assert sections(document) == [(("Betrieb",), "Text."), (("Wartung",), "Mehr.")]


def test_merged_cells_are_written_once() -> None:
    def build(document: docx.document.Document) -> None:
        table = document.add_table(rows=2, cols=3)
        for c, text in enumerate(("Tag", "Load", "Note")):
            table.cell(0, c).text = text
        table.cell(1, 0).text = "P-1"
        table.cell(1, 1).merge(table.cell(1, 2)).text = "2 t"

    document = parse_document(word_file(build), name="a.docx")
    assert tables(document)[0].rows == (("P-1", "2 t", ""),)


# HTML

PAGE = """<html><head><title>Site</title><style>p {}</style></head><body>
<nav><a href="/">Home</a></nav><h1>Pump <b>manual</b></h1><p>One <i>two</i>
three.</p><script>alert(1)</script><!-- no -->
<h2>Data</h2><ul><li>Oil: 65 °C<ul><li>cold: 20 °C</li></ul></li><li>Load: 2 t</li></ul>
<table><caption>Loads</caption><tr><th>Tag</th><th>Load</th></tr>
<tr><td rowspan="2">P-1</td><td>2 t</td></tr><tr><td>3 t</td></tr></table>
<table><tr><th>Oil temperature</th><td>65 °C</td></tr><tr><th>Load</th><td>2 t</td></tr></table>
<div>End<br>here</div></body></html>"""


def test_page_gives_headings_lists_and_tables_without_scripts() -> None:
    document = parse_document(PAGE.encode(), name="a.html")
    assert document.title == "Pump manual"
    assert sections(document) == [
        ((), "One two three."),
        (("Data",), "- Oil: 65 °C\n- cold: 20 °C\n- Load: 2 t"),
        (("Data",), "- Oil temperature: 65 °C\n- Load: 2 t\n\nEnd\n\nhere"),
    ]
    table = tables(document)[0]
    assert (table.section, table.name, table.columns) == (("Data",), "Loads", ("Tag", "Load"))
    assert table.rows == (("P-1", "2 t"), ("P-1", "3 t"))


def test_page_in_its_declared_encoding_is_read() -> None:
    page = '<meta charset="windows-1252"><p>Öl 65 °C</p>'
    assert sections(parse_document(page.encode("cp1252"), name="a.htm")) == [((), "Öl 65 °C")]


def test_tables_that_shape_the_page_are_text() -> None:
    page = "<table><tr><td><h2>A</h2><p>one</p></td><td><h2>B</h2><p>two</p></td></tr></table>"
    document = parse_document(page.encode(), name="a.html")
    assert [text for _, text in sections(document)] == ["one", "two"]


def test_deeply_nested_page_is_read() -> None:
    page = "<div>" * 20_000 + "text" + "</div>" * 20_000
    assert sections(parse_document(page.encode(), name="a.html")) == [((), "text")]


# PDF


def test_pages_of_a_pdf_are_sections() -> None:
    document = read_document(SHEETS / "data-sheets" / "inspection-sheets.pdf")
    assert document.title == "Inspection sheets"
    paths = [path for path, _ in sections(document)]
    assert paths == [(f"Page {n}",) for n in range(1, 7)]
    assert "°" in "".join(text for _, text in sections(document))


def blank_pdf(**encryption: str) -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    if encryption:
        writer.encrypt(encryption["password"], algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_pdf_of_pictures_is_refused_with_advice() -> None:
    with pytest.raises(IngestionError, match="None of its 1 pages has a text layer"):
        parse_document(blank_pdf(), name="scan.pdf")


def test_encrypted_pdf_is_refused() -> None:
    with pytest.raises(IngestionError, match="encrypted"):
        parse_document(blank_pdf(password="secret"), name="a.pdf")


def test_page_gives_its_date_its_code_and_the_groups_of_a_table() -> None:
    page = (
        b'<head><meta property="article:published_time" content="2024-05-01T08:00Z"></head>'
        b"<p>Run:</p><pre>a = 1\n\n  b</pre><table><tr><th>Tag<th>A<th>B</tr>"
        b"<tr><td colspan=3>Spare parts</tr><tr><td>P-1<td>2<td>3</tr></table>"
    )
    document = parse_document(page, name="a.html")
    assert document.date == "2024-05-01"
    assert sections(document) == [((), "Run:\n\na = 1\n\n  b")]
    assert tables(document)[0].groups == (("Spare parts",),)


# what is wrong


@pytest.mark.parametrize(
    ("name", "kind"), [("a.pdf", "PDF"), ("a.docx", "Office"), ("a.xlsx", "Office")]
)
def test_damaged_file_is_refused_by_name(name: str, kind: str) -> None:
    with pytest.raises(IngestionError, match=rf"'{name}': .*{kind}"):
        parse_document(b"this is nothing of the kind", name=name)


@pytest.mark.parametrize("name", ["rotating-machines.docx", "inspection-sheets.pdf"])
def test_truncated_file_gives_an_error_of_ours_or_what_can_be_read(name: str) -> None:
    data = (SHEETS / "data-sheets" / name).read_bytes()
    refused = 0
    for length in range(8, len(data), len(data) // 24):
        try:
            parse_document(data[:length], name=name)
        except IngestionError:
            refused += 1
    assert refused > 12


@pytest.mark.parametrize("name", ["a.docx", "a.xlsx"])
def test_archive_that_unpacks_to_something_absurd_is_refused(name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 3_000_000)
    with pytest.raises(IngestionError, match="It would unpack to 3000000 bytes"):
        parse_document(buffer.getvalue(), name=name, limits=ReadLimits(unpacked_bytes=1_000_000))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", ["a.docx", "a.xlsx"])
def test_declared_entities_are_refused(name: str, encoding: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        xml = '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
        archive.writestr("xl/workbook.xml", xml.encode(encoding))
    with pytest.raises(IngestionError, match=r"xl/workbook\.xml: It declares XML entities"):
        parse_document(buffer.getvalue(), name=name)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("a.docx", "docx"),
        ("a.xlsx", "openpyxl"),
        ("a.pptx", "pptx"),
        ("a.parquet", "pyarrow.parquet"),
        ("a.pdf", "pypdf"),
        ("a.html", "bs4"),
    ],
)
def test_missing_package_is_named_with_the_extra(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'phi3-industry\[readers\]'"):
        parse_document(b"x", name=name)
    assert parse_document(b"x", name="a.md").blocks


def test_unknown_kind_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(IngestionError, match=r"There is no reader for files '\.png'"):
        read_document(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_document(tmp_path / "b.txt")
    with pytest.raises(IngestionError, match="This is no plain file"):
        read_document(tmp_path)


def test_file_above_the_limit_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 101)
    with pytest.raises(IngestionError, match="It is larger than 100 bytes"):
        read_document(tmp_path / "a.txt", limits=ReadLimits(file_bytes=100))


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is 0; it must be at least 1"):
        ReadLimits(rows=0)
