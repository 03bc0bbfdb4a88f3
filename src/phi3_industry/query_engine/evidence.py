"""Which of the retrieved passages are shown to the model, in which order, and as what."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llama_index.core.schema import MetadataMode, NodeWithScore

from phi3_industry.grounding.matching import fold
from phi3_industry.grounding.prompt import GroundingPrompt
from phi3_industry.query_engine.versions import (
    Superseded,
    iso_date,
    newest_first,
    same_passage,
)

__all__ = [
    "EvidenceRules",
    "Selection",
    "as_data",
    "document_of",
    "document_order",
    "passage_text",
    "source_text",
]

_FAKE_NUMBER = re.compile(r"\s*\[\d{1,4}\]")
_SUMMARY = "summary"
"""Metadata key under which ingestion puts a summary of the document."""


@dataclass(frozen=True, kw_only=True)
class EvidenceRules:
    """What of the retrieved passages counts as evidence.

    Attributes:
        per_source_cap: The most passages of one document; ``None`` for any number. One or two
            keep a single poisoned document from filling the prompt; rows of a table are passages
            of one document, too.
        passage_order: ``"document"`` numbers the passages by document and place in it, so that
            questions about the same passages begin with the same text, which engines then read
            once; ``"relevance"`` numbers the best first. What is left out for want of room is
            the least relevant either way. Passages that look like dated versions of one another
            are numbered newest first in both.
        version_key: Metadata key whose value versions of one document have in common, such as
            the number of a manual.
        date_key: Metadata key of a version's date, as ISO 8601 (``2024-05-31``).
        trust_key: Metadata key of a number that says how far a document is trusted, 0 where it
            is missing; higher is more. Where the most trusted passages suffice by themselves,
            the others are not shown. Takes an LLM that scores answers.
    """

    per_source_cap: int | None = None
    passage_order: Literal["document", "relevance"] = "document"
    version_key: str = "version_of"
    date_key: str = "date"
    trust_key: str = "trust"

    def __post_init__(self) -> None:
        if self.per_source_cap is not None and self.per_source_cap < 1:
            raise ValueError(f"per_source_cap is {self.per_source_cap}; it must be at least 1.")
        if self.passage_order not in ("document", "relevance"):
            raise ValueError(
                f"passage_order is {self.passage_order!r}; it must be 'document' or 'relevance'."
            )

    def select(self, nodes: Sequence[NodeWithScore]) -> Selection:
        """Choose the evidence among retrieved nodes.

        Of versions of the same passage the newest is kept. Two nodes are versions of the same
        passage if their documents are versions of one another by their metadata, with different
        dates, and they have the same place in it (the end of ``source_id``) or, where that is
        not known, half of their words in common.

        Args:
            nodes: The nodes, best first; none is changed.
        """
        first: dict[str, NodeWithScore] = {}
        for node in nodes:
            first.setdefault(node.node.node_id, node)
        unique = list(first.values())
        superseded = []
        current = []
        for node in unique:
            newer = max(
                (other for other in unique if self._supersedes(other, node)),
                key=self._date,
                default=None,
            )
            if newer is None:
                current.append(node)
            else:
                superseded.append(
                    Superseded(
                        older=node,
                        newer_id=newer.node.node_id,
                        older_date=self._date(node),
                        newer_date=self._date(newer),
                    )
                )
        kept = self._capped(current)
        return Selection(
            passages=tuple(kept),
            superseded=tuple(superseded),
            capped=len(current) - len(kept),
        )

    def tiers(self, nodes: Sequence[NodeWithScore]) -> list[tuple[NodeWithScore, ...]]:
        """Give the passages of the most trusted documents, then with the next, and so on to all."""
        levels = sorted({self._trust(node) for node in nodes}, reverse=True)
        return [tuple(n for n in nodes if self._trust(n) >= level) for level in levels]

    def prefers(self, one: NodeWithScore, other: NodeWithScore) -> bool:
        """Whether one of two passages that contradict one another is to be preferred.

        It is if its document is trusted more, or is trusted as much and is newer. What has no
        date is neither newer nor older.
        """
        trust, dates = [self._trust(one), self._trust(other)], [self._date(one), self._date(other)]
        if trust[0] != trust[1]:
            return trust[0] > trust[1]
        return all(dates) and dates[0] > dates[1]

    def order(self, nodes: Sequence[NodeWithScore]) -> list[int]:
        """Give the indexes of nodes in the order in which they are to be numbered."""
        indexes = list(range(len(nodes)))
        if self.passage_order == "document":
            indexes.sort(key=lambda index: document_order(nodes[index]))
        return newest_first(indexes, nodes, date_key=self.date_key)[0]

    def dates_of_versions(self, nodes: Sequence[NodeWithScore]) -> list[tuple[str, ...]]:
        """Give the dates, newest first, of each group of nodes that look like versions."""
        return newest_first(range(len(nodes)), nodes, date_key=self.date_key)[1]

    def _capped(self, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        if self.per_source_cap is None:
            return list(nodes)
        count: Counter[str] = Counter()
        kept = []
        for node in nodes:
            count[document_of(node)] += 1
            if count[document_of(node)] <= self.per_source_cap:
                kept.append(node)
        return kept

    def _trust(self, node: NodeWithScore) -> float:
        value = node.node.metadata.get(self.trust_key, 0)
        return float(value) if isinstance(value, int | float) and value == value else 0.0

    def _date(self, node: NodeWithScore) -> str:
        return iso_date(node, self.date_key)

    def _supersedes(self, newer: NodeWithScore, older: NodeWithScore) -> bool:
        version = older.node.metadata.get(self.version_key)
        if version is None or newer.node.metadata.get(self.version_key) != version:
            return False
        if not self._date(older) or self._date(newer) <= self._date(older):
            return False
        return same_passage(newer, older)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The evidence of a question.

    Attributes:
        passages: What may be shown, best first.
        superseded: Older versions of these.
        capped: How many passages the cap of their document left out.
        untrusted: How many were set aside since more trusted ones suffice.
    """

    passages: tuple[NodeWithScore, ...]
    superseded: tuple[Superseded, ...] = ()
    capped: int = 0
    untrusted: int = 0


def passage_text(node: NodeWithScore) -> str:
    """Give the text of a node as LLMs are to read it."""
    return str(node.node.get_content(metadata_mode=MetadataMode.LLM))


def source_text(node: NodeWithScore) -> str:
    """Give what a node's document itself says: answers are checked against nothing else.

    A summary that ingestion put above a passage may be an LLM's words.
    """
    if _SUMMARY not in node.node.metadata:
        return passage_text(node)
    hidden = [*node.node.excluded_llm_metadata_keys, _SUMMARY]
    own = node.node.model_copy(update={"excluded_llm_metadata_keys": hidden})
    return str(own.get_content(metadata_mode=MetadataMode.LLM))


def as_data(passage: str, prompt: GroundingPrompt) -> str:
    """Quote the lines of a passage that would read as part of the prompt around it.

    A line that begins with a number in square brackets, or with the prompt's own label of
    context or question, begins with ``> `` afterwards: it is something that the document says,
    and no further passage or question. Nothing else is changed. Control tokens need no care
    here: the LLM encodes contents apart from the chat template.
    """
    labels = [fold(label) for label in (prompt.context_label, prompt.question_label)]
    lines = passage.splitlines(keepends=True)
    return "".join(f"> {line}" if _is_frame(line, labels) else line for line in lines)


def document_order(node: NodeWithScore) -> tuple[str, int, str, str]:
    """Key that sorts passages by document and place in it, the same for every question."""
    start = getattr(node.node, "start_char_idx", None)
    source_id = str(node.node.metadata.get("source_id", ""))
    return document_of(node), -1 if start is None else int(start), source_id, node.node.node_id


def _is_frame(line: str, labels: Sequence[str]) -> bool:
    plain = "".join(c for c in unicodedata.normalize("NFKC", line) if c.isprintable())
    if _FAKE_NUMBER.match(plain):
        return True
    return any(label and fold(plain).lstrip().startswith(label) for label in labels)


def document_of(node: NodeWithScore) -> str:
    """Give the id of a node's document, or its own if it has none."""
    return str(node.node.ref_doc_id or node.node.node_id)
