"""Passages: a context header, a text, and the facts it holds."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Fact

__all__ = ["Family", "Passage"]


@dataclass(frozen=True)
class Passage:
    """A passage as ingestion makes it.

    Attributes:
        header: ``Title > Section``, or the title alone; empty for text without a header.
        text: The passage itself.
        facts: What it holds.
    """

    header: str
    text: str
    facts: tuple[Fact, ...]

    @property
    def content(self) -> str:
        """Header and text, as a prompt shows them."""
        return f"{self.header}\n{self.text}" if self.header else self.text


@dataclass(frozen=True)
class Family:
    """Passages that belong together, such as the rows of one table.

    Attributes:
        shape: Name that scores are reported by.
        passages: The passages.
        absent: Facts that a reader may expect here and that no passage of the family holds.
    """

    shape: str
    passages: tuple[Passage, ...]
    absent: tuple[Fact, ...]
