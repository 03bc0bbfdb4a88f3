"""Bytes become text: the encoding is found, and what is no text is refused."""

from __future__ import annotations

import codecs
import re
from typing import BinaryIO

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError

__all__ = ["decode_text", "find_encoding"]

# UTF-32 before UTF-16: its little-endian mark begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNATURES = (
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP or Office"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Office"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x1f\x8b", "gzip"),
    (b"\x7fELF", "program"),
    (b"SQLite format 3\x00", "SQLite"),
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")
_ALIKE = 0.8
_SAMPLE_BYTES = 256 * 1024
"""Bytes from which an encoding other than Unicode is guessed."""


def decode_text(data: bytes, *, source: str, declared: str | None = None) -> str:
    """Decode the bytes of a text file.

    Tried in this order: a byte order mark, UTF-8, the declared encoding, UTF-16 without a mark,
    and what charset-normalizer makes of the bytes.

    Args:
        data: The file's bytes.
        source: The file, for messages.
        declared: An encoding that the file itself names.

    Returns:
        The text, its lines ended by single line feeds.

    Raises:
        IngestionError: The bytes are no text, or their encoding cannot be found.
        MissingDependencyError: The text is not Unicode and charset-normalizer is not installed.
    """
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            raise _other_kind(source, kind)
    text = _decoded(data, source=source, declared=declared)
    controls = len(_CONTROL.findall(text))
    if "\x00" in text or controls * 100 > len(text):
        raise _no_text(source, f"{controls} of its {len(text)} characters are control characters")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return _CONTROL.sub(" ", text).removeprefix("\ufeff")


def find_encoding(stream: BinaryIO, *, source: str) -> str:
    """Find the encoding of a long text by reading all of it, a piece at a time.

    Args:
        stream: The file, at its beginning; it is brought back there.
        source: The file, for messages.

    Returns:
        The encoding that all of it can be decoded with.

    Raises:
        IngestionError: The bytes are no text, or their encoding cannot be found.
        MissingDependencyError: The text is not Unicode and charset-normalizer is not installed.
    """
    sample = stream.read(_SAMPLE_BYTES)
    stream.seek(0)
    for signature, kind in _SIGNATURES:
        if sample.startswith(signature):
            raise _other_kind(source, kind)
    encoding = next((name for mark, name in _MARKS if sample.startswith(mark)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while piece := stream.read(_SAMPLE_BYTES):
            if b"\x00" in piece and encoding == "utf-8":
                raise _no_text(source, "some of its bytes are zero")
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise _no_text(source, f"it begins like {encoding.upper()} but breaks off") from error
        stream.seek(0)
        encoding = _guessed_encoding(_telling_lines(stream), source=source)
    finally:
        stream.seek(0)
    return encoding


def _telling_lines(stream: BinaryIO) -> bytes:
    """Collect the lines that are not ASCII, which alone tell an encoding."""
    lines: list[bytes] = []
    size = 0
    while (line := stream.readline(_SAMPLE_BYTES)) and size < _SAMPLE_BYTES:
        if not line.isascii():
            lines.append(line)
            size += len(line)
    return b"".join(lines)


def _decoded(data: bytes, *, source: str, declared: str | None) -> str:
    encodings = [encoding for mark, encoding in _MARKS if data.startswith(mark)][:1]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise _no_text(
                source, f"it begins like {encoding.upper()} but breaks off at byte {error.start}"
            ) from error
    if b"\x00" in data:
        return _without_mark(data, source=source)
    for candidate in ("utf-8", declared):
        try:
            if candidate:
                return data.decode(candidate)
        except (UnicodeDecodeError, LookupError):
            continue
    return _guessed(data, source=source)


def _without_mark(data: bytes, *, source: str) -> str:
    """Decode UTF-16 without a mark: in most texts every other byte is often zero."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    many = len(data) // 8
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros > many and others * 20 < zeros:
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                break
    raise _no_text(source, f"{data.count(0)} of its {len(data)} bytes are zero")


def _guessed(data: bytes, *, source: str) -> str:
    encoding = _guessed_encoding(data[:_SAMPLE_BYTES], source=source)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _no_text(source, "its encoding cannot be found") from error


def _guessed_encoding(sample: bytes, *, source: str) -> str:
    normalizer = import_optional(
        "charset_normalizer",
        purpose=f"find the encoding of '{source}', which is not UTF-8",
        package="charset-normalizer",
        extra="readers",
    )
    found = list(normalizer.from_bytes(sample))
    if not found:
        raise _no_text(source, "its encoding cannot be found")
    # of readings that are about as good the one that most encodings share: in a short text of one
    # language a rare code page often scores best by chance
    alike = [
        match
        for match in found
        if match.chaos <= found[0].chaos and match.coherence >= _ALIKE * found[0].coherence
    ]
    return str(max(alike, key=lambda match: len(match.could_be_from_charset)).encoding)


def _other_kind(source: str, kind: str) -> IngestionError:
    return IngestionError(
        source,
        f"By its content this is a {kind} file and no text. Give it the file name ending of what "
        "it is, or convert it.",
    )


def _no_text(source: str, reason: str) -> IngestionError:
    return IngestionError(source, f"This is no text: {reason}. Save it as UTF-8 if it should be.")
