"""HTML pages: headings, paragraphs, lists and tables; scripts and navigation are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from phi3_industry._optional import import_optional
from phi3_industry.ingestion.layout import build_table, property_lines
from phi3_industry.ingestion.source import SectionBuilder, SourceDocument, iso_day, one_line

__all__ = ["declared_encoding", "read_html"]

_CHARSET = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE
)
_SKIPPED = {"head", "nav", "noscript", "script", "style", "svg", "template"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "li", "main",
    "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr",
    "ul",
}  # fmt: skip
_DATES = {
    "article:modified_time", "article:published_time", "date", "dc.date", "dcterms.date",
    "dcterms.issued", "dcterms.modified", "last-modified",
}  # fmt: skip
_MOST_SPAN = 100


def declared_encoding(data: bytes) -> str | None:
    """Find the encoding that a page names in its first bytes."""
    match = _CHARSET.search(data[:4096])
    return match.group(1).decode("ascii") if match else None


def read_html(text: str, *, source: str, fallback_title: str) -> SourceDocument:
    """Read a page.

    Args:
        text: The page.
        source: The file, for messages.
        fallback_title: The title if neither a heading nor ``<title>`` is one.

    Raises:
        MissingDependencyError: beautifulsoup4 is not installed.
    """
    bs4 = import_optional(
        "bs4", purpose=f"read '{source}'", package="beautifulsoup4", extra="readers"
    )
    page = bs4.BeautifulSoup(text, "html.parser")
    named = one_line(page.title.get_text()) if page.title else ""
    reader = _Reader(SectionBuilder(named or fallback_title))
    for entering, node in _walk(page):
        reader.take(entering, node)
    reader.end_paragraph()
    return reader.builder.finish(date=_date(page))


def _date(page: Any) -> str:
    """Find the day that a page names in its head; the later of publication and change."""
    found = [
        iso_day(str(tag.get("content", "")))
        for tag in page.find_all("meta")
        if str(tag.get("property") or tag.get("name") or "").lower() in _DATES
    ]
    return max(found, default="")


def _walk(page: Any) -> Iterator[tuple[bool, Any]]:
    """Yield (True, node) before and (False, tag) after its children, without recursion."""
    stack: list[tuple[bool, Any]] = [(True, page)]
    while stack:
        entering, node = stack.pop()
        yield entering, node
        if entering and _name(node) and not _taken_whole(node):
            stack.append((False, node))
            stack.extend((True, child) for child in reversed(node.contents))


def _name(node: Any) -> str:
    return str(getattr(node, "name", None) or "")


def _taken_whole(tag: Any) -> bool:
    """Whether a tag's inside is read in one go, or not at all."""
    name = _name(tag)
    return (
        name in _SKIPPED
        or name == "pre"
        or _is_heading(name)
        or (name == "table" and _is_data(tag))
    )


def _is_heading(name: str) -> bool:
    return len(name) == 2 and name[0] == "h" and name[1] in "123456"


def _is_data(table: Any) -> bool:
    """Whether a table holds data; one with tables or headings inside only shapes the page."""
    return table.find(["table", "h1", "h2", "h3", "h4", "h5", "h6"]) is None


@dataclass
class _Reader:
    builder: SectionBuilder
    _words: list[str] = field(default_factory=list)
    _items: list[str] = field(default_factory=list)
    _in_item: bool = False
    _item_begins: bool = False

    def take(self, entering: bool, node: Any) -> None:
        """Take one step of the walk."""
        name = _name(node)
        if not name:
            # comments and declarations are strings of subclasses
            if type(node).__name__ in ("NavigableString", "CData"):
                self._words.append(str(node))
        elif name in _SKIPPED:
            return
        elif _is_heading(name):
            self.end_paragraph()
            self.builder.heading(int(name[1]), node.get_text(" "))
        elif name == "pre":
            self.end_paragraph()
            self.builder.paragraph(
                "\n".join(map(str.rstrip, node.get_text().split("\n"))), whole=True
            )
        elif name == "table" and _taken_whole(node):
            self.end_paragraph()
            self._take_table(node)
        elif name in _BLOCKS:
            self._end_line(name, entering)

    def _end_line(self, name: str, entering: bool) -> None:
        text = one_line("".join(self._words))
        self._words = []
        if text and self._in_item:
            self._items.append(f"- {text}" if self._item_begins else f"  {text}")
            self._item_begins = False
        elif text:
            self.end_paragraph()
            self.builder.paragraph(text)
        if name == "li":
            self._in_item = self._item_begins = entering
        elif name in ("ul", "ol") and not entering:
            self._in_item = False

    def end_paragraph(self) -> None:
        """Hand over the list and the text collected so far."""
        text = one_line("".join(self._words))
        self._words = []
        if self._items:
            self.builder.paragraph("\n".join(self._items))
            self._items = []
        self.builder.paragraph(text)

    def _take_table(self, tag: Any) -> None:
        rows = _grid(tag)
        first = tag.find("tr")
        heads = [_name(cell) == "th" for cell in first.find_all(["td", "th"])] if first else []
        header = True if heads and all(heads) and len(rows) > 1 else None
        lines = property_lines(rows) if header is None else None
        caption = tag.find("caption")
        if lines is not None:
            self.builder.paragraph("\n".join(f"- {line}" for line in lines))
            return
        self.builder.table(
            build_table(
                rows,
                section=self.builder.section,
                name=one_line(caption.get_text(" ")) if caption else "",
                header=header,
                spans_are_filled=True,
            )
        )


def _grid(tag: Any) -> list[list[str]]:
    """Lay a table's cells out; a cell that spans several places stands in each of them."""
    grid: list[list[str]] = []
    hanging: dict[int, tuple[int, str]] = {}  # column to (rows left, text)
    for row in tag.find_all("tr"):
        cells: list[str] = []
        waiting = list(row.find_all(["td", "th"]))
        if len(waiting) == 1 and _span(waiting[0], "colspan") > 1 and not hanging:
            grid.append([one_line(waiting[0].get_text(" "))])  # a line across the table
            continue
        while waiting or len(cells) in hanging:
            column = len(cells)
            if column in hanging:
                left, text = hanging.pop(column)
                if left > 1:
                    hanging[column] = (left - 1, text)
                cells.append(text)
                continue
            cell = waiting.pop(0)
            text = one_line(cell.get_text(" "))
            down = _span(cell, "rowspan")
            for _ in range(_span(cell, "colspan")):
                if down > 1:
                    hanging[len(cells)] = (down - 1, text)
                cells.append(text)
        grid.append(cells)
    return grid


def _span(cell: Any, name: str) -> int:
    value = str(cell.get(name, "1")).strip()
    return (
        min(int(value), _MOST_SPAN) if value.isascii() and value.isdigit() and value != "0" else 1
    )
