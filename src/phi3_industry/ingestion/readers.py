"""Read a file of any kind that there is a reader for."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path, PurePath
from typing import BinaryIO

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.delimited import read_delimited, stream_delimited
from phi3_industry.ingestion.limits import DEFAULT_LIMITS, ReadLimits
from phi3_industry.ingestion.mail import read_mail
from phi3_industry.ingestion.markdown import read_markdown
from phi3_industry.ingestion.parquet import read_parquet
from phi3_industry.ingestion.pdf import read_pdf
from phi3_industry.ingestion.plain_text import read_plain_text
from phi3_industry.ingestion.slides import read_pptx
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.spreadsheet import read_xlsx
from phi3_industry.ingestion.text_encoding import decode_text
from phi3_industry.ingestion.web import declared_encoding, read_html
from phi3_industry.ingestion.word import read_docx

__all__ = [
    "KNOWN_ENDINGS",
    "is_long",
    "parse_document",
    "read_bytes",
    "read_document",
    "stream_document",
]

KNOWN_ENDINGS = (
    ".csv",
    ".docx",
    ".eml",
    ".htm",
    ".html",
    ".markdown",
    ".md",
    ".parquet",
    ".pdf",
    ".pptx",
    ".tsv",
    ".txt",
    ".xlsx",
)
"""File name endings, in lower case, that there is a reader for."""


_STREAMED_ENDINGS = (".csv", ".parquet", ".tsv")
_STREAMED_FROM = 8 * 2**20
"""Bytes from which a table file is read piece by piece; as lists of cells it takes many times
its size."""


def is_long(path: str | PathLike[str]) -> bool:
    """Whether a file is a table so long that `stream_document` is the way to read it."""
    file = Path(path)
    return file.suffix.lower() in _STREAMED_ENDINGS and file.stat().st_size > _STREAMED_FROM


def stream_document(
    stream: BinaryIO, *, name: str, limits: ReadLimits = DEFAULT_LIMITS
) -> SourceDocument:
    """Read a table piece by piece.

    Args:
        stream: The file, open while the document's blocks are gone through.
        name: Its file name or path, as for `parse_document`.
        limits: What is read at most.

    Returns:
        The document, whose blocks can be gone through once and raise an `IngestionError` where
        the file turns out to be damaged.

    Raises:
        IngestionError: It cannot be read.
        MissingDependencyError: The package that reads this kind of file is not installed.
    """
    title, ending = _title(name), PurePath(name).suffix.lower()
    if ending == ".parquet":
        return read_parquet(stream, source=name, title=title, limits=limits)
    delimiter = "\t" if ending == ".tsv" else None
    return stream_delimited(stream, source=name, title=title, limits=limits, delimiter=delimiter)


def read_bytes(path: str | PathLike[str], *, limits: ReadLimits = DEFAULT_LIMITS) -> bytes:
    """Read a file's bytes if there is a reader for it and it is not too large.

    Raises:
        FileNotFoundError: There is no such file.
        IngestionError: It is no plain file, too large, of an unknown kind, or not readable.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"There is no file '{file}'.")
    if not file.is_file():
        raise IngestionError(file, "This is no plain file. Name a document or a folder.")
    if file.suffix.lower() not in KNOWN_ENDINGS:
        kinds = ", ".join(KNOWN_ENDINGS)
        ending = f"'{file.suffix}'" if file.suffix else "without an ending"
        raise IngestionError(file, f"There is no reader for files {ending}; there are for {kinds}.")
    try:
        with file.open("rb") as stream:
            data = stream.read(limits.file_bytes + 1)
    except OSError as error:
        raise IngestionError(file, f"It cannot be read: {error.strerror or error}.") from error
    if len(data) > limits.file_bytes:
        raise IngestionError(
            file,
            f"It is larger than {limits.file_bytes} bytes. Split it, or raise the limits.",
        )
    return data


def parse_document(
    data: bytes, *, name: str, limits: ReadLimits = DEFAULT_LIMITS
) -> SourceDocument:
    """Read a document from its bytes.

    Args:
        data: The document's bytes.
        name: Its file name or path: the ending says how to read it, the stem is its title if it
            names none itself, and messages use it.
        limits: What is read at most.

    Returns:
        The document. One without any text or row has no blocks.

    Raises:
        IngestionError: It cannot be read; says why and where.
        MissingDependencyError: The package that reads this kind of file is not installed.
    """
    return _parse(data, name, limits, 0)


def _parse(data: bytes, name: str, limits: ReadLimits, depth: int) -> SourceDocument:
    """Do `parse_document`; ``depth`` counts the mails that the document lies in."""
    ending = PurePath(name).suffix.lower()
    if ending not in KNOWN_ENDINGS:
        raise IngestionError(name, f"There is no reader for files '{PurePath(name).suffix}'.")
    title = _title(name)
    if not data.strip():
        return SourceDocument(title=title, blocks=())
    if ending == ".pdf":
        return read_pdf(data, source=name, title=title, limits=limits)
    if ending == ".docx":
        return read_docx(data, source=name, title=title, limits=limits)
    if ending == ".xlsx":
        return read_xlsx(data, source=name, title=title, limits=limits)
    if ending == ".pptx":
        return read_pptx(data, source=name, title=title, limits=limits)
    if ending == ".parquet":
        return read_parquet(io.BytesIO(data), source=name, title=title, limits=limits)
    if ending == ".eml":
        return read_mail(
            data, source=name, title=title, limits=limits, read_attachment=_parse, depth=depth
        )
    if ending in (".html", ".htm"):
        page = decode_text(data, source=name, declared=declared_encoding(data))
        return read_html(page, source=name, fallback_title=title)
    text = decode_text(data, source=name)
    if ending in (".csv", ".tsv"):
        delimiter = "\t" if ending == ".tsv" else None
        return read_delimited(text, source=name, title=title, limits=limits, delimiter=delimiter)
    if ending == ".txt":
        return read_plain_text(text, fallback_title=title)
    return read_markdown(text, fallback_title=title)


def _title(name: str) -> str:
    stem = PurePath(name).stem
    return " ".join(stem.replace("_", " ").replace("-", " ").split()) or stem


def read_document(
    path: str | PathLike[str], *, limits: ReadLimits = DEFAULT_LIMITS
) -> SourceDocument:
    """Read a file; see `read_bytes` and `parse_document` for what it raises."""
    return parse_document(read_bytes(path, limits=limits), name=str(path), limits=limits)
