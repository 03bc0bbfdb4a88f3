"""Documents that may enter a knowledge base, each with an id, its origin and its content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import Document, MetadataMode, TextNode

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.database import SqlQuery
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.node_parser import SectionNodeParser
from phi3_industry.ingestion.readers import is_long, parse_document, read_bytes, stream_document
from phi3_industry.ingestion.records import DocumentRecord

__all__ = [
    "Candidate",
    "Reading",
    "from_document",
    "from_file",
    "from_query",
    "known_origin",
]

_HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Reading:
    """A candidate that was opened: its content hash, and how to make its nodes.

    Attributes:
        content: SHA-256 of the content and of the settings that shape the nodes.
        parse: Gives the nodes, one after the other, and remarks on what was left out.
    """

    content: str
    parse: Callable[[], tuple[Iterator[TextNode], tuple[str, ...]]]


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
        if _is_long(file):
            return _open_long(file, document_id=document_id, parser=parser, limits=limits)
        data = read_bytes(file, limits=limits)

        def parse() -> tuple[Iterator[TextNode], tuple[str, ...]]:
            document = parse_document(data, name=document_id, limits=limits)
            return parser.stream(document, document_id=document_id), document.remarks

        return Reading(_hash([data], parser), parse)

    return Candidate(document_id, str(origin), open_file)


def _is_long(file: Path) -> bool:
    try:
        return is_long(file)
    except OSError:
        return False  # `read_bytes` says what is wrong with it


def _open_long(
    file: Path, *, document_id: str, parser: SectionNodeParser, limits: ReadLimits
) -> Reading:
    """Open a table that is read piece by piece, twice: for its hash and for its nodes."""
    size = file.stat().st_size
    if size > limits.streamed_bytes:
        raise IngestionError(
            document_id,
            f"It has {size} bytes; at most {limits.streamed_bytes} are read. Split it, or raise "
            "the limits.",
        )

    def nodes() -> Iterator[TextNode]:
        with file.open("rb") as stream:
            document = stream_document(stream, name=document_id, limits=limits)
            yield from parser.stream(document, document_id=document_id)

    try:
        with file.open("rb") as stream:
            content = _hash(iter(lambda: stream.read(_HASHED_BYTES), b""), parser)
    except OSError as error:
        raise IngestionError(
            document_id, f"It cannot be read: {error.strerror or error}."
        ) from error
    return Reading(content, lambda: (nodes(), ()))


def from_query(query: SqlQuery, *, parser: SectionNodeParser) -> Candidate:
    """Take what a database answers; its id is its title."""

    def open_query() -> Reading:
        def parse() -> tuple[Iterator[TextNode], tuple[str, ...]]:
            return parser.stream(query.read(), document_id=query.title), ()

        return Reading(_hash([query.digest().encode()], parser), parse)

    return Candidate(query.title, "", open_query)


def from_document(document: Document, *, parser: SectionNodeParser) -> Candidate:
    """Take a LlamaIndex document; its id is its own."""

    def open_document() -> Reading:
        text = document.get_content(metadata_mode=MetadataMode.NONE)
        content = json.dumps([text, document.metadata], sort_keys=True, default=str)

        def parse() -> tuple[Iterator[TextNode], tuple[str, ...]]:
            nodes = parser.get_nodes_from_documents([document])
            return (node for node in nodes if isinstance(node, TextNode)), ()

        return Reading(_hash([content.encode("utf-8", "surrogatepass")], parser), parse)

    return Candidate(document.id_, "", open_document)


def _hash(pieces: Iterable[bytes], parser: SectionNodeParser) -> str:
    digest = hashlib.sha256(parser.fingerprint.encode())
    digest.update(b"\n")
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def known_origin(file: Path, records: Sequence[DocumentRecord]) -> Path:
    """Find the folder that a single file belongs to: the nearest one known, or its own."""
    known = {record.origin for record in records if record.origin}
    return next((parent for parent in file.parents if str(parent) in known), file.parent)
