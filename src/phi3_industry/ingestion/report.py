"""What became of the documents that were given to a knowledge base."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["IngestReport"]

_SHOWN = 20


@dataclass(kw_only=True)
class IngestReport:
    """What an ingestion did; ``print(report)`` says it in words.

    Attributes:
        added: Ids of documents that were not there before.
        updated: Ids of documents that had changed.
        unchanged: Ids of documents that were as before; nothing was computed for them.
        deleted: Ids of documents that are gone.
        skipped: (document or part of one, reason) of what could not be read.
        nodes: Number of nodes that were written.
    """

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    nodes: int = 0

    @property
    def counts(self) -> str:
        """How many documents became what, in words."""
        return (
            f"{len(self.added)} added, {len(self.updated)} updated, "
            f"{len(self.unchanged)} unchanged, {len(self.deleted)} deleted, "
            f"{len(self.skipped)} skipped; {self.nodes} nodes written"
        )

    def __str__(self) -> str:
        lines = [f"Documents: {self.counts}."]
        lines += [f"  skipped {source}: {reason}" for source, reason in self.skipped[:_SHOWN]]
        if len(self.skipped) > _SHOWN:
            lines.append(f"  ... and {len(self.skipped) - _SHOWN} more skipped")
        return "\n".join(lines)
