"""What a reader hands over: a document as sections of text and tables, in its own order."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from phi3_industry.ingestion.tables import Table

__all__ = ["Block", "SectionBuilder", "SourceDocument", "TextBlock", "iso_day", "one_line"]


_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d(?!\d)")


@dataclass(frozen=True, kw_only=True)
class TextBlock:
    """Text below one heading.

    Attributes:
        section: The headings above it, outermost first, without the document's title.
        text: The text, paragraphs parted by an empty line.
        whole: (start, end) of the parts of the text that should not be cut, such as code.
    """

    section: tuple[str, ...]
    text: str
    whole: tuple[tuple[int, int], ...] = ()


Block = TextBlock | Table
"""A piece of a document: text or a table."""


@dataclass(frozen=True, kw_only=True)
class SourceDocument:
    """A document as its reader understood it.

    Attributes:
        title: Its title, never empty.
        blocks: Its text and tables in their order: a tuple, or an iterator that can be gone
            through once where the document is too long to be held in memory.
        remarks: What was left out and why, one sentence each.
        date: The day that the document itself says it is of, in ISO form; may be empty.
        version_of: What its versions have in common by its own words, such as the number of a
            manual; may be empty.
    """

    title: str
    blocks: Iterable[Block]
    remarks: tuple[str, ...] = ()
    date: str = ""
    version_of: str = ""


def iso_day(text: str) -> str:
    """Take the day from a date in ISO form, ``2024-05-01T08:00Z``; nothing from another one."""
    match = _ISO_DAY.match(text.strip())
    try:
        return datetime.date.fromisoformat(match.group()).isoformat() if match else ""
    except ValueError:
        return ""


def one_line(text: str) -> str:
    """Join a text into one line with single spaces."""
    return " ".join(text.split())


@dataclass
class SectionBuilder:
    """Collects headings, paragraphs and tables as a reader meets them.

    The first heading is the document's title if nothing stands before it and no other heading
    is on its level or above; it is then no part of the sections' paths.

    Attributes:
        fallback_title: The title of a document that has no such heading.
    """

    fallback_title: str
    _path: list[tuple[int, str]] = field(default_factory=list)
    _paragraphs: list[tuple[str, bool]] = field(default_factory=list)
    _blocks: list[Block] = field(default_factory=list)
    _levels: list[int] = field(default_factory=list)
    _heading_is_bare: bool = False
    _text_came_first: bool = False

    def heading(self, level: int, text: str) -> None:
        """Begin a section; an empty heading ends the one before it and names nothing."""
        self._close(before_level=level)
        text = one_line(text)
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        if text:
            if not self._levels:
                self._text_came_first = bool(self._blocks)
            self._levels.append(level)
            self._path.append((level, text))
            self._heading_is_bare = True

    def paragraph(self, text: str, *, whole: bool = False) -> None:
        """Add a paragraph to the section; a ``whole`` one is not to be cut, such as code."""
        bare = text.strip("\n").rstrip() if whole else text.strip()
        if bare.strip():
            self._paragraphs.append((bare, whole))

    def table(self, table: Table | None) -> None:
        """Add a table to the section; ``None``, a table without rows, is passed over."""
        if table is not None:
            self._flush()
            self._blocks.append(table)

    @property
    def section(self) -> tuple[str, ...]:
        """The headings above the present place."""
        return tuple(text for _, text in self._path)

    def finish(
        self, *, remarks: tuple[str, ...] = (), date: str = "", version_of: str = ""
    ) -> SourceDocument:
        """Hand over the document; ``date`` and ``version_of`` are as in `SourceDocument`."""
        self._close(before_level=0)
        blocks = tuple(self._blocks)
        title = one_line(self.fallback_title)
        first = next((block.section[0] for block in blocks if block.section), None)
        sole = self._levels and all(level > self._levels[0] for level in self._levels[1:])
        if first is not None and sole and not self._text_came_first:
            title = first
            blocks = tuple(_without_first_heading(block) for block in blocks)
        return SourceDocument(
            title=title,
            blocks=blocks,
            remarks=remarks,
            date=iso_day(date),
            version_of=one_line(version_of),
        )

    def _close(self, *, before_level: int) -> None:
        """End the section; a heading with nothing below it is text of its own."""
        bare = self._heading_is_bare and not self._paragraphs
        if bare and before_level <= self._levels[-1]:
            self._paragraphs.append((self._path[-1][1], False))
        self._flush()

    def _flush(self) -> None:
        if self._paragraphs:
            text, whole = "", []
            for paragraph, is_whole in self._paragraphs:
                text += "\n\n" if text else ""
                if is_whole:
                    whole.append((len(text), len(text) + len(paragraph)))
                text += paragraph
            self._blocks.append(TextBlock(section=self.section, text=text, whole=tuple(whole)))
            self._paragraphs = []
        self._heading_is_bare = False


def _without_first_heading(block: Block) -> Block:
    return replace(block, section=block.section[1:])
