"""Take documents in: read what is new or changed, embed it, store each document as one piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, TextNode

from phi3_industry.errors import IngestionError, MissingDependencyError
from phi3_industry.ingestion.candidates import Candidate, DocumentRecord
from phi3_industry.ingestion.report import IngestReport

__all__ = ["DocumentStore", "Intake"]

_EMBEDDED_TOGETHER = 256
"""Nodes of small documents that are embedded in one go; a kill loses at most their embedding."""


class DocumentStore(Protocol):
    """What the intake needs of a store."""

    def document_hashes(self) -> dict[str, str]:
        """Return the content hash of each document."""

    def replace_document(
        self, ref_doc_id: str, content_hash: str, nodes: Sequence[BaseNode]
    ) -> list[str]:
        """Put a document's nodes in the place of those that it had, in one transaction."""

    def delete(self, ref_doc_id: str) -> None:
        """Delete a document."""


class Intake:
    """Brings documents into a store.

    Args:
        store: The store.
        embed_model: The embedding that it is built with.
    """

    def __init__(self, store: DocumentStore, embed_model: BaseEmbedding) -> None:
        self._store = store
        self._embed_model = embed_model

    def records(self) -> dict[str, DocumentRecord]:
        """Say what is known of each document in the store."""
        hashes = self._store.document_hashes()
        return {name: DocumentRecord.parse(text) for name, text in hashes.items()}

    def take(
        self,
        candidates: Sequence[Candidate],
        report: IngestReport,
        *,
        show_progress: bool,
        strict: bool = False,
    ) -> None:
        """Read, embed and store the candidates that are new or changed.

        Args:
            candidates: The documents, each with an id of its own.
            report: Is told what became of each.
            show_progress: Whether to show a progress bar.
            strict: Whether a candidate that cannot be read raises its error; it is skipped else.

        Raises:
            ValueError: Two candidates have the same id.
            IngestionError: With ``strict``: a candidate cannot be read.
            MissingDependencyError: With ``strict``: the package that reads it is not installed.
        """
        repeated = [i for i, n in Counter(c.document_id for c in candidates).items() if n > 1]
        if repeated:
            raise ValueError(
                f"Several documents have the id '{repeated[0]}'. Give each one an id of its own."
            )
        records = self.records()
        waiting: list[_Waiting] = []
        for candidate in _progress(candidates, show_progress):
            try:
                entry = self._read(candidate, records.get(candidate.document_id), report)
            except (IngestionError, MissingDependencyError) as error:
                if strict:
                    raise
                report.skipped.append(_skipped(candidate.document_id, error, records))
                continue
            if entry is not None:
                waiting.append(entry)
            if sum(len(nodes) for _, _, nodes in waiting) >= _EMBEDDED_TOGETHER:
                self._store_all(waiting, report, known=records)
                waiting = []
        self._store_all(waiting, report, known=records)

    def _read(
        self, candidate: Candidate, known: DocumentRecord | None, report: IngestReport
    ) -> _Waiting | None:
        """Make the nodes of a candidate; ``None`` if there is nothing to store."""
        reading = candidate.open()
        name = candidate.document_id
        if known is not None and known.origin != candidate.origin:
            elsewhere = Path(known.origin) / name
            if known.content == reading.content and (not known.origin or elsewhere.exists()):
                report.unchanged.append(name)
                return None
            if known.origin and elsewhere.exists():
                raise IngestionError(
                    name,
                    f"Another document of this name is there already, '{elsewhere}'. Add the "
                    "folder above both, or rename one of them.",
                )
        elif known is not None and known.content == reading.content:
            report.unchanged.append(name)
            return None
        nodes, remarks = reading.parse()
        report.skipped += [(name, remark) for remark in remarks]
        if not nodes:
            report.skipped.append((name, "It is empty: it holds neither text nor rows."))
            if known is not None:
                self._store.delete(name)
                report.deleted.append(name)
            return None
        return candidate, DocumentRecord(reading.content, candidate.origin), nodes

    def _store_all(
        self, waiting: Sequence[_Waiting], report: IngestReport, *, known: dict[str, DocumentRecord]
    ) -> None:
        """Embed the nodes of several documents together and store each document by itself."""
        nodes = [node for _, _, own in waiting for node in own]
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        vectors = self._embed_model.get_text_embedding_batch(texts) if texts else []
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector
        for candidate, record, own in waiting:
            name = candidate.document_id
            self._store.replace_document(name, str(record), own)
            (report.updated if name in known else report.added).append(name)
            report.nodes += len(own)


_Waiting = tuple[Candidate, DocumentRecord, list[TextNode]]


def _skipped(
    name: str,
    error: IngestionError | MissingDependencyError,
    records: Mapping[str, DocumentRecord],
) -> tuple[str, str]:
    """Word why a document is skipped, and that what was known of it before is kept."""
    reason = error.problem if isinstance(error, IngestionError) else str(error)
    place = getattr(error, "place", "")
    kept = " What was indexed of it before is kept." if name in records else ""
    return f"{name}, {place}" if place else name, reason + kept


def _progress(candidates: Sequence[Candidate], show: bool) -> Iterable[Candidate]:
    if not show:
        return candidates
    from tqdm.auto import tqdm

    bar: Callable[..., Any] = tqdm
    return cast("Iterable[Candidate]", bar(candidates, desc="Indexing", unit="document"))
