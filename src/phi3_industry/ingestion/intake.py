"""Take documents in: read what is new or changed, embed it, store each document as one piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from phi3_industry.errors import ConfigurationError, IngestionError, MissingDependencyError
from phi3_industry.ingestion.candidates import Candidate, Reading
from phi3_industry.ingestion.node_parser import SectionNodeParser
from phi3_industry.ingestion.parts import (
    as_part,
    digest_of_parts,
    part_id,
    parts_of,
    split_parts,
)
from phi3_industry.ingestion.pipelines import NodesOfDocument, Pipeline, run_pipeline
from phi3_industry.ingestion.records import DocumentRecord
from phi3_industry.ingestion.report import IngestReport
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.summaries import (
    Summaries,
    attach_summary,
    open_document,
    summary_key,
)

__all__ = ["DocumentStore", "Intake"]

_EMBEDDED_TOGETHER = 256
"""Nodes of small documents that are embedded in one go; a kill loses at most their embedding."""

_SENT_TOGETHER = 256
"""Documents that a pipeline computes in one run; a kill loses at most their computation."""


class DocumentStore(Protocol):
    """What the intake needs of a store."""

    def document_hashes(self) -> dict[str, str]:
        """Return the content hash of each document."""

    def unfinished_documents(self) -> set[str]:
        """Return the documents among these whose replacement or deletion was interrupted."""

    def replace_document(
        self, ref_doc_id: str, content_hash: str, nodes: Sequence[BaseNode]
    ) -> list[str]:
        """Put a document's nodes in the place of those that it had, in one transaction."""

    def delete(self, ref_doc_id: str) -> None:
        """Delete a document."""

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes that have one of the ids and pass the filters."""


class Intake:
    """Brings documents into a store.

    Args:
        store: The store.
        embed_model: The embedding that it is built with.
        parser: Makes nodes of documents.
        summaries: Writes a summary of each document; ``None`` for none.
    """

    def __init__(
        self,
        store: DocumentStore,
        embed_model: BaseEmbedding,
        parser: SectionNodeParser,
        summaries: Summaries | None = None,
    ) -> None:
        self._store = store
        self._embed_model = embed_model
        self._parser = parser
        self._summaries = summaries

    @property
    def fingerprint(self) -> str:
        """What of the settings shapes the nodes, as text for content hashes."""
        summaries = f"\n{self._summaries.fingerprint}" if self._summaries else ""
        return self._parser.fingerprint + summaries

    def records(self) -> dict[str, DocumentRecord]:
        """Say what is known of each document, and of each further part of a long one.

        The content of one that was interrupted is given as empty, so that it is stored anew.
        """
        hashes = self._store.document_hashes()
        records = {name: DocumentRecord.parse(text) for name, text in hashes.items()}
        for name in self._store.unfinished_documents():
            records[name] = replace(records[name], content="")
        return records

    def delete(self, document_id: str) -> None:
        """Delete a document with all its parts."""
        for name in (document_id, *parts_of(document_id, self.records())):
            self._store.delete(name)

    def take(
        self,
        candidates: Sequence[Candidate],
        report: IngestReport,
        *,
        show_progress: bool,
        strict: bool = False,
        pipeline: Pipeline | None = None,
    ) -> None:
        """Read, embed and store the candidates that are new or changed.

        Args:
            candidates: The documents, each with an id of its own.
            report: Is told what became of each.
            show_progress: Whether to show a progress bar.
            strict: Whether a candidate that cannot be read raises its error; it is skipped else.
            pipeline: Makes and embeds the nodes in place of this process.

        Raises:
            ValueError: Two candidates have the same id.
            ConfigurationError: The pipeline does other work than this process would.
            IngestionError: With ``strict``: a candidate cannot be read.
            MissingDependencyError: With ``strict``: the package that reads it is not installed.
        """
        repeated = [i for i, n in Counter(c.document_id for c in candidates).items() if n > 1]
        if repeated:
            raise ValueError(
                f"Several documents have the id '{repeated[0]}'. Give each one an id of its own."
            )
        known = self.records()
        waiting: list[_Waiting] = []
        coming = _progress(candidates, show_progress, "Indexing", "document")
        for candidate, made in self._opened(coming, known, report, pipeline):
            try:
                if isinstance(made, Exception):
                    raise made
                entry = self._read(candidate, made, known, report, show_progress=show_progress)
            except (IngestionError, MissingDependencyError) as error:
                if strict:
                    raise
                report.skipped.append(_skipped(candidate.document_id, error, known))
                continue
            if entry is not None:
                waiting.append(entry)
            # a summary is worth more than a batch: what has one is stored at once
            if self._summaries or sum(len(n) for _, n in waiting) >= _EMBEDDED_TOGETHER:
                self._store_all(waiting, known, report)
                waiting = []
        self._store_all(waiting, known, report)

    def _opened(
        self,
        candidates: Iterable[Candidate],
        known: Mapping[str, DocumentRecord],
        report: IngestReport,
        pipeline: Pipeline | None,
    ) -> Iterator[tuple[Candidate, _Made | Exception]]:
        """Open candidates, and let a pipeline compute those that changed, many at a time."""
        together = 1 if pipeline is None else _SENT_TOGETHER
        for batch in iter(partial(_taken, iter(candidates), together), []):
            changed: dict[str, tuple[Candidate, Reading]] = {}
            for candidate in batch:
                try:
                    reading = candidate.open()
                    as_before = _is_as_before(candidate, reading.content, known)
                except (IngestionError, MissingDependencyError) as error:
                    yield candidate, error
                    continue
                if as_before:
                    report.unchanged.append(candidate.document_id)
                else:
                    changed[candidate.document_id] = candidate, reading
            if pipeline is None:
                for candidate, reading in changed.values():
                    yield candidate, _Made(reading)
                continue
            for name, made in self._computed(pipeline, changed).items():
                candidate, reading = changed[name]
                yield candidate, made.error or _Made(reading, made)

    def _computed(
        self, pipeline: Pipeline, changed: Mapping[str, tuple[Candidate, Reading]]
    ) -> dict[str, NodesOfDocument]:
        if self._summaries is not None:
            raise ConfigurationError(
                "This knowledge base writes summaries, which no pipeline does. Open it without "
                "summaries, or add documents without a pipeline."
            )
        sent = [c.to_send for c, _ in changed.values() if c.to_send is not None]
        if len(sent) < len(changed):
            raise ConfigurationError("Rows of a database cannot be sent to a pipeline.")
        embed = self._embed_model.get_text_embedding
        return run_pipeline(pipeline, sent, parser=self._parser, embed=embed)

    def _read(
        self,
        candidate: Candidate,
        made: _Made,
        known: Mapping[str, DocumentRecord],
        report: IngestReport,
        *,
        show_progress: bool,
    ) -> _Waiting | None:
        """Make the nodes of a candidate; ``None`` if there is nothing left to store."""
        name, reading = candidate.document_id, made.reading
        remarks: Sequence[str]
        if made.elsewhere is None:
            document = reading.parse()
            nodes, remarks = self._nodes(document, name, reading.metadata, known), document.remarks
        else:
            nodes, remarks = iter(made.elsewhere.nodes), tuple(made.elsewhere.remarks)
        parts = split_parts(nodes)
        first, second = next(parts, []), next(parts, [])
        report.skipped += [(name, remark) for remark in remarks]
        record = DocumentRecord(reading.content, candidate.origin)
        if not first:
            report.skipped.append((name, "It is empty: it holds neither text nor rows."))
            if name in known:
                self.delete(name)
                report.deleted.append(name)
            return None
        if not second:
            return _Entry(name, record), first
        further = _progress(chain([second], parts), show_progress, name, "part")
        self._store_parts(_Entry(name, record), first, further, known, report)
        return None

    def _nodes(
        self,
        document: SourceDocument,
        name: str,
        metadata: dict[str, Any],
        known: Mapping[str, DocumentRecord],
    ) -> Iterator[TextNode]:
        """Make the nodes, with a summary if there shall be one and as it was if it can be."""
        if self._summaries is None:
            return self._parser.stream(document, document_id=name, metadata=metadata)
        writer = self._summaries
        opening, blocks, document = open_document(document)
        key = summary_key(opening, writer)

        def summary() -> str:
            before = self._summary_before(name, key) if name in known else ""
            text = before or writer.summarise(opening, blocks)
            if not text:
                raise IngestionError(name, "Its summary is empty. Choose another LLM, or none.")
            return text

        nodes = self._parser.stream(document, document_id=name, metadata=metadata)
        return attach_summary(nodes, key=key, summary=summary)

    def _summary_before(self, name: str, key: str) -> str:
        """Find the summary that a document's nodes hold already."""
        its_own = MetadataFilters(
            filters=[
                MetadataFilter(key="file_path", value=name),
                MetadataFilter(key="summary_key", value=key),
            ]
        )
        for node in self._store.get_nodes(filters=its_own):
            return str(node.metadata["summary"])
        return ""

    def _store_parts(
        self,
        document: _Entry,
        first: list[TextNode],
        further: Iterable[list[TextNode]],
        known: Mapping[str, DocumentRecord],
        report: IngestReport,
    ) -> None:
        """Store a long document: the parts that changed, and then the first, which vouches."""
        old = parts_of(document.name, known)
        new: dict[str, DocumentRecord] = {}
        for number, nodes in enumerate(further, start=2):
            name = part_id(document.name, number)
            own, content = as_part(nodes, name)
            record = DocumentRecord(content, document.record.origin, is_part=True)
            new[name] = record
            if old.get(name) != record:
                self._store_nodes(_Entry(name, record), own, report)
        for name in old.keys() - new.keys():
            self._store.delete(name)
        whole = replace(document.record, parts=digest_of_parts(new))
        self._store_nodes(_Entry(document.name, whole), first, report)
        _note(document.name, known, report)

    def _store_all(
        self,
        waiting: Sequence[_Waiting],
        known: Mapping[str, DocumentRecord],
        report: IngestReport,
    ) -> None:
        """Embed the nodes of several documents together and store each document by itself."""
        self._embed([node for _, nodes in waiting for node in nodes if node.embedding is None])
        for document, nodes in waiting:
            for name in parts_of(document.name, known):
                self._store.delete(name)
            self._store_nodes(document, nodes, report)
            _note(document.name, known, report)

    def _store_nodes(
        self, document: _Entry, nodes: Sequence[TextNode], report: IngestReport
    ) -> None:
        self._embed([node for node in nodes if node.embedding is None])
        self._store.replace_document(document.name, str(document.record), nodes)
        report.nodes += len(nodes)

    def _embed(self, nodes: Sequence[TextNode]) -> None:
        texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        vectors = self._embed_model.get_text_embedding_batch(texts) if texts else []
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector


@dataclass(frozen=True)
class _Entry:
    """A document, or a part of one, on its way into the store.

    Attributes:
        name: Its id.
        record: What shall be remembered of it.
    """

    name: str
    record: DocumentRecord


_Waiting = tuple[_Entry, list[TextNode]]


@dataclass(frozen=True)
class _Made:
    """A candidate that is new or changed.

    Attributes:
        reading: What its content is.
        elsewhere: What a pipeline made of it; ``None`` if its nodes are made here.
    """

    reading: Reading
    elsewhere: NodesOfDocument | None = None


def _taken(candidates: Iterator[Candidate], count: int) -> list[Candidate]:
    return list(islice(candidates, count))


def _is_as_before(candidate: Candidate, content: str, known: Mapping[str, DocumentRecord]) -> bool:
    """Whether a candidate is in the store as it is now, with all its parts.

    Raises:
        IngestionError: A document of another folder has its name.
    """
    name = candidate.document_id
    record = known.get(name)
    if record is None:
        return False
    same = record.content == content and record.parts == digest_of_parts(parts_of(name, known))
    if record.origin == candidate.origin:
        return same
    elsewhere = Path(record.origin) / name
    if same and (not record.origin or elsewhere.exists()):
        return True
    if record.origin and elsewhere.exists():
        raise IngestionError(
            name,
            f"Another document of this name is there already, '{elsewhere}'. Add the folder above "
            "both, or rename one of them.",
        )
    return False


def _note(name: str, known: Mapping[str, DocumentRecord], report: IngestReport) -> None:
    (report.updated if name in known else report.added).append(name)


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


_Item = TypeVar("_Item")


def _progress(items: Iterable[_Item], show: bool, what: str, unit: str) -> Iterable[_Item]:
    if not show:
        return items
    from tqdm.auto import tqdm

    bar: Callable[..., Any] = tqdm
    return cast("Iterable[_Item]", bar(items, desc=what, unit=unit, leave=unit == "document"))
