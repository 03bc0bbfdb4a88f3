from __future__ import annotations

import io

import pptx
from pptx.util import Inches

from phi3_industry.ingestion import TextBlock, parse_document
from phi3_industry.ingestion.tables import Table


def slides() -> bytes:
    deck = pptx.Presentation()
    deck.core_properties.title = "Pump training"
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Start-up"
    body = first.placeholders[1].text_frame
    body.text = "Open the valve."
    second = body.add_paragraph()
    second.text = "Slowly."
    second.level = 1
    first.notes_slide.notes_text_frame.text = "Show the valve."
    table_slide = deck.slides.add_slide(deck.slide_layouts[6])
    rows = (("Tag", "Load"), ("P-1", "2 t"))
    grid = table_slide.shapes.add_table(2, 2, *[Inches(1)] * 4).table
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            grid.cell(r, c).text = text
    group = table_slide.shapes.add_group_shape()
    group.shapes.add_textbox(*[Inches(1)] * 4).text_frame.text = "Inside a group."
    hidden = deck.slides.add_slide(deck.slide_layouts[6])
    hidden.shapes.add_textbox(*[Inches(1)] * 4).text_frame.text = "Secret."
    hidden._element.set("show", "0")
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


def test_slide_gives_title_list_notes_and_tables() -> None:
    document = parse_document(slides(), name="deck.pptx")
    assert document.title == "Pump training"
    texts = [(b.section, b.text) for b in document.blocks if isinstance(b, TextBlock)]
    assert texts == [
        (("Start-up",), "- Open the valve.\n  - Slowly.\n\nShow the valve."),
        (("Slide 2",), "Inside a group."),
    ]
    [table] = [b for b in document.blocks if isinstance(b, Table)]
    assert (table.section, table.columns, table.rows) == (
        ("Slide 2",), ("Tag", "Load"), (("P-1", "2 t"),),
    )  # fmt: skip


def test_hidden_slide_is_left_out_and_remarked_on() -> None:
    document = parse_document(slides(), name="deck.pptx")
    assert document.remarks == ("Slide 3 is hidden and was left out.",)
    assert "Secret." not in str(document.blocks)
