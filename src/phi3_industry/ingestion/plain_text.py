"""Plain text: no marks, at most a title line."""

from __future__ import annotations

from phi3_industry.ingestion.source import SectionBuilder, SourceDocument

__all__ = ["read_plain_text"]

_TITLE_CHARS = 120


def read_plain_text(text: str, *, fallback_title: str) -> SourceDocument:
    """Read a text without marks.

    Args:
        text: The text.
        fallback_title: Its title if its first line is none, such as the file's name. A first
            line is a title if it is short and an empty line follows it before more text.
    """
    body = text.strip()
    first, _, rest = body.partition("\n")
    if rest and not rest.split("\n", 1)[0].strip() and len(first.strip()) <= _TITLE_CHARS:
        fallback_title, body = first, rest
    builder = SectionBuilder(fallback_title)
    builder.paragraph("\n".join(line.rstrip() for line in body.split("\n")))
    return builder.finish()
