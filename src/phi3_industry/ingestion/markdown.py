"""Markdown: headings, paragraphs and tables, without the marks that only shape the page.

Source: CommonMark 0.31.2 (headings, fences, escapes) and the GitHub Flavored Markdown
specification, section 4.10 (tables).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from phi3_industry.ingestion.layout import build_table
from phi3_industry.ingestion.source import SectionBuilder, SourceDocument

__all__ = ["plain_inline", "read_markdown"]

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")
_QUOTE = re.compile(r" {0,3}> ?")
_DELIMITER_CELL = re.compile(r"[ \t]*:?-+:?[ \t]*")
_CAPTION = re.compile(r"\*\*([^*\n]{1,300})\*\*")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)

_CODE_SPAN = re.compile(r"(`+)(?!`)(.{1,2000}?)(?<!`)\1(?!`)", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\[\]\n]{0,1000})\]\([^()\n]{0,2000}\)")
_LINK = re.compile(
    r"\[((?:[^\[\]\n]|\[[^\[\]\n]{0,500}\]){0,1000})\]\((?:[^()\n]|\([^()\n]{0,500}\)){0,2000}\)"
)
_REFERENCE = re.compile(r"\[([^\[\]\n]{1,1000})\]\[[^\[\]\n]{0,200}\]")
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^<>\s]{1,2000})>")
_TAG = re.compile(
    r"</?(?:a|abbr|b|br|code|div|em|font|i|img|kbd|p|small|span|strong|sub|sup|u)\b[^<>\n]{0,500}>",
    re.IGNORECASE,
)
_STRONG = re.compile(r"(\*\*|__)(?=\S)([^\n]{1,1000}?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,500}?)(?<=[^\s*])\*(?![\w*])")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def plain_inline(text: str) -> str:
    """Remove Markdown's inline marks: links keep their text, images their description.

    Code spans keep their content as it is. ``<`` and ``>`` that belong to no HTML tag stay.
    """
    parts: list[str] = []
    last = 0
    for match in _CODE_SPAN.finditer(text):
        parts += [_plain(text[last : match.start()]), match.group(2).strip()]
        last = match.end()
    return "".join([*parts, _plain(text[last:])])


def _plain(text: str) -> str:
    # an escaped mark is no mark: it is kept aside in the private use area
    text = _ESCAPE.sub(lambda match: chr(0xE000 + ord(match.group(1))), text)
    text = _IMAGE.sub(r"\1", text)
    text = _LINK.sub(r"\1", text)
    text = _REFERENCE.sub(r"\1", text)
    text = _AUTOLINK.sub(r"\1", text)
    text = _TAG.sub("", text)
    text = _STRONG.sub(r"\2", text)
    text = _EMPHASIS.sub(r"\1", text)
    return re.sub("[\ue021-\ue07e]", lambda match: chr(ord(match.group()) - 0xE000), text)


def read_markdown(text: str, *, fallback_title: str) -> SourceDocument:
    """Read a Markdown text.

    Args:
        text: The text.
        fallback_title: Its title if no heading is one, such as the file's name.

    Returns:
        The document. Headings inside code fences are code. Lines of a paragraph are joined;
        list items and code keep their lines.
    """
    text, front = _without_front_matter(text)
    reader = _Reader(SectionBuilder(front.get("title") or fallback_title))
    lines = _COMMENT.sub("", text).split("\n")
    place = 0
    while place < len(lines):
        place = reader.take(lines, place)
    reader.end_paragraph()
    return reader.builder.finish(date=front.get("date", ""), version_of=front.get("version_of", ""))


def _without_front_matter(text: str) -> tuple[str, dict[str, str]]:
    """Cut off a YAML block at the start and give what counts of it, without reading it as YAML."""
    if not text.startswith("---\n"):
        return text, {}
    end = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE).search(text, 4)
    if end is None:
        return text, {}
    values = {}
    for name in ("title", "date", "version_of"):
        found = re.search(rf"^{name}:[ \t]*(.{{1,300}})$", text[: end.start()], re.MULTILINE)
        values[name] = found.group(1).strip().strip("\"'") if found else ""
    return text[end.end() :], values


@dataclass
class _Reader:
    builder: SectionBuilder
    _lines: list[str] = field(default_factory=list)
    _caption: str = ""

    def take(self, lines: list[str], place: int) -> int:
        """Take the piece that begins at a line and give the place after it."""
        line = lines[place]
        if fence := _FENCE.fullmatch(line):
            return self._take_fence(lines, place, fence.group(1))
        if not line.strip():
            self.end_paragraph()
        elif atx := _ATX.fullmatch(line):
            self.end_paragraph()
            self._heading(len(atx.group(1)), _without_closing_marks(atx.group(2) or ""))
        elif self._is_setext(line):
            level = 1 if line.lstrip().startswith("=") else 2
            title = " ".join(self._lines)
            self._lines = []
            self._heading(level, title)
        elif _RULE.fullmatch(line):
            self.end_paragraph()
        elif place + 1 < len(lines) and _is_delimiter(line, lines[place + 1]):
            return self._take_table(lines, place)
        else:
            self._lines.append(_QUOTE.sub("", line))
        return place + 1

    def _is_setext(self, line: str) -> bool:
        if not self._lines or not _SETEXT.fullmatch(line):
            return False
        return not any(_LIST_ITEM.match(above) for above in self._lines)

    def _heading(self, level: int, text: str) -> None:
        self.builder.heading(level, plain_inline(text))
        self._caption = ""

    def end_paragraph(self) -> None:
        """Hand the lines collected so far over as a paragraph."""
        if not self._lines:
            return
        bold = _CAPTION.fullmatch(" ".join(self._lines).strip())
        self._caption = plain_inline(bold.group(1)) if bold else ""
        joined: list[str] = []
        broken = True  # whether the line before ends in a hard break
        for line in self._lines:
            bare = line.rstrip()
            if broken or _LIST_ITEM.match(line):
                joined.append(bare.removesuffix("\\"))
            else:
                joined[-1] += f" {bare.strip()}".removesuffix("\\")
            broken = line.endswith("  ") or bare.endswith("\\")
        self._lines = []
        self.builder.paragraph("\n".join(plain_inline(line) for line in joined))

    def _take_fence(self, lines: list[str], place: int, mark: str) -> int:
        self.end_paragraph()
        closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*")
        end = place + 1
        while end < len(lines) and not closing.fullmatch(lines[end]):
            end += 1
        code = "\n".join(line.rstrip() for line in lines[place + 1 : end])
        self.builder.paragraph(code, whole=True)
        return end + 1

    def _take_table(self, lines: list[str], place: int) -> int:
        self.end_paragraph()
        end = place + 2
        while end < len(lines) and lines[end].strip() and "|" in lines[end]:
            end += 1
        rows = [_cells(line) for line in (lines[place], *lines[place + 2 : end])]
        table = build_table(rows, section=self.builder.section, name=self._caption, header=True)
        self.builder.table(table)
        self._caption = ""
        return end


def _without_closing_marks(heading: str) -> str:
    """Cut the number signs off that may close a heading, ``# Title #``."""
    heading = heading.strip()
    bare = heading.rstrip("#")
    return bare.rstrip() if not bare or bare.endswith((" ", "\t")) else heading


def _cells(line: str) -> list[str]:
    line = line.strip().removeprefix("|")
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    cells = re.split(r"(?<!\\)\|", line)
    return [plain_inline(cell.replace("\\|", "|").strip()) for cell in cells]


def _is_delimiter(header: str, line: str) -> bool:
    """Whether the second of two lines parts the header of a table from its rows."""
    if "|" not in header or "-" not in line:
        return False
    cells = line.strip().removeprefix("|").removesuffix("|").split("|")
    return all(_DELIMITER_CELL.fullmatch(cell) for cell in cells) and len(cells) == len(
        re.split(r"(?<!\\)\|", header.strip().removeprefix("|").removesuffix("|"))
    )
