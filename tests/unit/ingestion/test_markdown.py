from __future__ import annotations

import pytest

from phi3_industry.ingestion.markdown import plain_inline, read_markdown
from phi3_industry.ingestion.source import SourceDocument, TextBlock
from phi3_industry.ingestion.tables import Table


def read(text: str) -> SourceDocument:
    return read_markdown(text, fallback_title="file")


def sections(document: SourceDocument) -> list[tuple[tuple[str, ...], str]]:
    return [(b.section, b.text) for b in document.blocks if isinstance(b, TextBlock)]


def test_only_heading_of_the_first_level_is_the_title() -> None:
    document = read(
        "# Manual\n\nIntro.\n\n## Pump\n\nText.\n\n### Oil\n\nMore.\n\n## Valve\n\nEnd."
    )
    assert document.title == "Manual"
    assert sections(document) == [
        ((), "Intro."),
        (("Pump",), "Text."),
        (("Pump", "Oil"), "More."),
        (("Valve",), "End."),
    ]


def test_several_headings_of_the_first_level_are_sections() -> None:
    document = read("# A\n\none\n\n# B\n\ntwo")
    assert document.title == "file"
    assert sections(document) == [(("A",), "one"), (("B",), "two")]


def test_text_before_the_first_heading_makes_it_a_section() -> None:
    document = read("first\n\n# A\n\none")
    assert document.title == "file"
    assert sections(document) == [((), "first"), (("A",), "one")]


def test_underlined_headings_are_headings() -> None:
    document = read("Manual\n======\n\nPump\n----\nText.")
    assert document.title == "Manual"
    assert sections(document) == [(("Pump",), "Text.")]


def test_rule_below_an_empty_line_and_list_items_make_no_heading() -> None:
    document = read("one\n\n---\n\n- item\n---\ntwo")
    assert [path for path, _ in sections(document)] == [()]


def test_headings_inside_code_are_code() -> None:
    document = read("# A\n\n```sh\n# no heading\n```\n\n~~~\n## nor this\n```\n~~~\nend")
    assert sections(document) == [((), "# no heading\n\n## nor this\n```\n\nend")]


def test_unclosed_code_runs_to_the_end() -> None:
    assert sections(read("a\n\n```\n# b")) == [((), "a\n\n# b")]


def test_closing_marks_of_a_heading_are_cut() -> None:
    assert read("# Grade C# ##\n\ntext").title == "Grade C#"


def test_heading_with_nothing_below_is_text() -> None:
    document = read("# A\n\n## Closed on Sundays\n\n## B\n\ntext")
    assert sections(document) == [
        (("Closed on Sundays",), "Closed on Sundays"),
        (("B",), "text"),
    ]


def test_lines_of_a_paragraph_are_joined_and_list_items_are_not() -> None:
    text = "one\ntwo\n\n- a\n  more\n- b\n1. c\n\nbefore  \nafter\\\nlast"
    assert sections(read(text)) == [((), "one two\n\n- a more\n- b\n1. c\n\nbefore\nafter\nlast")]


def test_table_becomes_rows_below_its_heading_with_its_caption() -> None:
    rows = "| Tag | Load |\n|:---|---:|\n| P\\|1 | 2 t |\n| P2 |"
    text = f"# T\n\n## S\n\n**Limits of `x`**\n\n{rows}\n\nend"
    table = read(text).blocks[1]
    assert isinstance(table, Table)
    assert (table.section, table.name) == (("S",), "Limits of x")
    assert table.columns == ("Tag", "Load")
    assert table.rows == (("P|1", "2 t"), ("P2", ""))
    assert sections(read(text))[-1] == (("S",), "end")


def test_line_with_bars_alone_is_no_table() -> None:
    assert sections(read("a | b\nc | d")) == [((), "a | b c | d")]


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    document = read('---\ntitle: "Pumps"\ndate: 2024-01-01\n---\nText.')
    assert document.title == "Pumps"
    assert sections(document) == [((), "Text.")]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("[text](page.md)", "text"),
        ("![scheme](a.png) of it", "scheme of it"),
        ("[[See more]](http://x/y_(z))", "[See more]"),
        ("see <https://example.org/a>", "see https://example.org/a"),
        ('Quotas<a name="q"></a>', "Quotas"),
        ("**bold** and *slanted*", "bold and slanted"),
        ("2 * 3 * 4 < 5 > 1", "2 * 3 * 4 < 5 > 1"),
        ("Region\\-specific\\.", "Region-specific."),
        ("\\*kept\\*", "*kept*"),
        ("`a * b\\.` and ``c`d``", "a * b\\. and c`d"),
        ("snake_case_name", "snake_case_name"),
    ],
)
def test_inline_marks_are_removed_and_content_is_kept(marked: str, plain: str) -> None:
    assert plain_inline(marked) == plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[" * 30_000, "[" * 30_000),
        ("[a](" * 8_000, "[a](" * 8_000),
        ("**a" * 10_000, "a" * 10_000),
        ("`" * 30_000, ""),
        ("<a " * 10_000, ("<a " * 10_000).strip()),
        ("# a" + " " * 60_000 + "b", "a b"),
    ],
)
def test_marks_in_thousands_are_read_like_few(text: str, shown: str) -> None:
    assert "".join(part for _, part in sections(read(text))) == shown


def test_date_of_the_front_matter_is_the_documents() -> None:
    text = "---\ntitle: Pump\ndate: 2024-05-01T08:00\n---\n\nText."
    document = read_markdown(text, fallback_title="x")
    assert (document.title, document.date) == ("Pump", "2024-05-01")
    assert read_markdown(text.replace("2024-05-01", "May"), fallback_title="x").date == ""


def test_code_is_marked_as_whole() -> None:
    document = read_markdown("Text.\n\n```\n  a\n\n  b\n```\n", fallback_title="x")
    [block] = document.blocks
    assert isinstance(block, TextBlock)
    [(start, end)] = block.whole
    assert block.text[start:end] == "  a\n\n  b"
