"""Documents that may enter a knowledge base, each with an id, its origin and its content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import Document, MetadataMode, TextNode

from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.node_parser import SectionNodeParser
from phi3_industry.ingestion.readers import parse_document, read_bytes
from phi3_industry.ingestion.source import SourceDocument

__all__ = [
    "Candidate",
    "DocumentRecord",
    "Reading",
    "from_document",
    "from_file",
    "known_origin",
]


@dataclass(frozen=True)
class DocumentRecord:
    """What a knowledge base remembers of a document, kept as the store's content hash.

    Attributes:
        content: SHA-256 of the document's content and of the settings that shape its nodes.
        origin: The folder that it came from, as an absolute path; empty if it came from none.
    """

    content: str
    origin: str

    def __str__(self) -> str:
        return f"{self.content} {self.origin}"

    @classmethod
    def parse(cls, text: str) -> DocumentRecord:
        """Read what `str` wrote."""
        content, _, origin = text.partition(" ")
        return cls(content, origin)


@dataclass(frozen=True)
class Reading:
    """A candidate that was opened: its content hash, and how to make its nodes.

    Attributes:
        content: SHA-256 of the content and of the settings that shape the nodes.
        parse: Makes the nodes, and remarks on what was left out.
    """

    content: str
    parse: Callable[[], tuple[list[TextNode], tuple[str, ...]]]


@dataclass(frozen=True)
class Candidate:
    """A document that may enter.

    Attributes:
        document_id: Its id.
        origin: The folder that it comes from; empty if it comes from none.
        open: Reads its content, which may fail, and hashes it.
    """

    document_id: str
    origin: str
    open: Callable[[], Reading]


def from_file(
    file: Path, *, document_id: str, origin: Path, parser: SectionNodeParser, limits: ReadLimits
) -> Candidate:
    """Take a file; its id is its path relative to its origin."""

    def open_file() -> Reading:
        data = read_bytes(file, limits=limits)

        def parse() -> tuple[list[TextNode], tuple[str, ...]]:
            document = parse_document(data, name=document_id, limits=limits)
            return _nodes(document, document_id, parser), document.remarks

        return Reading(_hash(data, parser), parse)

    return Candidate(document_id, str(origin), open_file)


def from_document(document: Document, *, parser: SectionNodeParser) -> Candidate:
    """Take a LlamaIndex document; its id is its own."""

    def open_document() -> Reading:
        text = document.get_content(metadata_mode=MetadataMode.NONE)
        content = json.dumps([text, document.metadata], sort_keys=True, default=str)

        def parse() -> tuple[list[TextNode], tuple[str, ...]]:
            nodes = parser.get_nodes_from_documents([document])
            return [node for node in nodes if isinstance(node, TextNode)], ()

        return Reading(_hash(content.encode("utf-8", "surrogatepass"), parser), parse)

    return Candidate(document.id_, "", open_document)


def _nodes(document: SourceDocument, document_id: str, parser: SectionNodeParser) -> list[TextNode]:
    return parser.nodes_of(document, document_id=document_id)


def _hash(data: bytes, parser: SectionNodeParser) -> str:
    digest = hashlib.sha256(parser.fingerprint.encode())
    digest.update(b"\n")
    digest.update(data)
    return digest.hexdigest()


def known_origin(file: Path, records: Sequence[DocumentRecord]) -> Path:
    """Find the folder that a single file belongs to: the nearest one known, or its own."""
    known = {record.origin for record in records if record.origin}
    return next((parent for parent in file.parents if str(parent) in known), file.parent)
