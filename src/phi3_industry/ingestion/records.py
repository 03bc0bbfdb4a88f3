"""What a knowledge base remembers of each document, kept as the store's content hash."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DocumentRecord"]

_PART = "part:"


@dataclass(frozen=True)
class DocumentRecord:
    """What a knowledge base remembers of a document.

    Attributes:
        content: SHA-256 of the document's content and of the settings that shape its nodes; of a
            further part of a long document the SHA-256 of its nodes.
        origin: The folder that it came from, as an absolute path; empty if it came from none.
        parts: SHA-256 of the further parts of a long document; empty if it has none.
        is_part: Whether this is a further part.
    """

    content: str
    origin: str
    parts: str = ""
    is_part: bool = False

    def __str__(self) -> str:
        kind = _PART if self.is_part else ""
        parts = f"/{self.parts}" if self.parts else ""
        return f"{kind}{self.content}{parts} {self.origin}"

    @classmethod
    def parse(cls, text: str) -> DocumentRecord:
        """Read what `str` wrote."""
        content, _, origin = text.partition(" ")
        is_part = content.startswith(_PART)
        content, _, parts = content.removeprefix(_PART).partition("/")
        return cls(content, origin, parts, is_part)

    def part_of(self, name: str) -> str:
        """Give the id of the document that a part of this name belongs to; its own if it is one."""
        return name.rpartition("#part-")[0] if self.is_part else name
