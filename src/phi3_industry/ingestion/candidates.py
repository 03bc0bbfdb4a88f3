"""Documents that may enter a knowledge base, each with an id, its origin and its content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_index.core.schema import Document, MetadataMode

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.database import SqlQuery
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.node_parser import SectionNodeParser
from phi3_industry.ingestion.readers import is_long, parse_document, read_bytes, stream_document
from phi3_industry.ingestion.records import DocumentRecord
from phi3_industry.ingestion.source import Block, SourceDocument

__all__ = [
    "FOLDER_TO_READ",
    "Candidate",
    "Reading",
    "from_document",
    "from_file",
    "from_query",
    "known_origin",
]

FOLDER_TO_READ = "folder_to_read"
"""Metadata of a document that stands for a file: the folder in which its id is its path."""

_HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Reading:
    """A candidate that was opened: its content hash, and how to make its nodes.

    Attributes:
        content: SHA-256 of the content and of the settings that shape the nodes.
        parse: Reads it.
        metadata: What else its nodes shall hold.
    """

    content: str
    parse: Callable[[], SourceDocument]
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A document that may enter.

    Attributes:
        document_id: Its id.
        origin: The folder that it comes from; empty if it comes from none.
        open: Reads its content, which may fail, and hashes it.
        to_send: What a pipeline is sent to read it elsewhere; ``None`` if it cannot be.
    """

    document_id: str
    origin: str
    open: Callable[[], Reading]
    to_send: Document | None = None


def from_file(
    file: Path, *, document_id: str, origin: Path, fingerprint: str, limits: ReadLimits
) -> Candidate:
    """Take a file; its id is its path relative to its origin.

    Args:
        file: The file.
        document_id: Its id.
        origin: The folder that it comes from.
        fingerprint: What shapes its nodes, as a part of its content hash.
        limits: What is read at most.
    """

    def open_file() -> Reading:
        if _is_long(file):
            return _open_long(file, document_id, fingerprint, limits)
        data = read_bytes(file, limits=limits)
        return Reading(
            _hash([data], fingerprint),
            lambda: parse_document(data, name=document_id, limits=limits),
        )

    to_send = Document(id_=document_id, text="", metadata={FOLDER_TO_READ: str(origin)})
    return Candidate(document_id, str(origin), open_file, to_send)


def _is_long(file: Path) -> bool:
    try:
        return is_long(file)
    except OSError:
        return False  # `read_bytes` says what is wrong with it


def _open_long(file: Path, document_id: str, fingerprint: str, limits: ReadLimits) -> Reading:
    """Open a table that is read piece by piece, twice: for its hash and for its rows."""
    size = file.stat().st_size
    if size > limits.streamed_bytes:
        raise IngestionError(
            document_id,
            f"It has {size} bytes; at most {limits.streamed_bytes} are read. Split it, or raise "
            "the limits.",
        )

    def parse() -> SourceDocument:
        with _reading(document_id), ExitStack() as opened:
            stream = opened.enter_context(file.open("rb"))
            document = stream_document(stream, name=document_id, limits=limits)
            blocks = _closing(document.blocks, opened.pop_all(), document_id)
        return replace(document, blocks=blocks)

    with _reading(document_id), file.open("rb") as stream:
        content = _hash(iter(lambda: stream.read(_HASHED_BYTES), b""), fingerprint)
    return Reading(content, parse)


def _closing(blocks: Iterable[Block], opened: ExitStack, document_id: str) -> Iterator[Block]:
    with opened, _reading(document_id):
        yield from blocks


@contextmanager
def _reading(document_id: str) -> Iterator[None]:
    """Turn what the disk complains about into an error of ours."""
    try:
        yield
    except OSError as error:
        problem = f"It cannot be read: {error.strerror or error}."
        raise IngestionError(document_id, problem) from error


def from_query(query: SqlQuery, *, fingerprint: str) -> Candidate:
    """Take what a database answers; its id is its title."""

    def open_query() -> Reading:
        return Reading(_hash([query.digest().encode()], fingerprint), query.read)

    return Candidate(query.title, "", open_query)


def from_document(document: Document, *, parser: SectionNodeParser, fingerprint: str) -> Candidate:
    """Take a LlamaIndex document; its id is its own."""

    def open_document() -> Reading:
        text = document.get_content(metadata_mode=MetadataMode.NONE)
        content = json.dumps([text, document.metadata], sort_keys=True, default=str)
        return Reading(
            _hash([content.encode("utf-8", "surrogatepass")], fingerprint),
            lambda: parser.read(document),
            document.metadata,
        )

    return Candidate(document.id_, "", open_document, document)


def _hash(pieces: Iterable[bytes], fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    digest.update(b"\n")
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def known_origin(file: Path, records: Sequence[DocumentRecord]) -> Path:
    """Find the folder that a single file belongs to: the nearest one known, or its own."""
    known = {record.origin for record in records if record.origin}
    return next((parent for parent in file.parents if str(parent) in known), file.parent)
