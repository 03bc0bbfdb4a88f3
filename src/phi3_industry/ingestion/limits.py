"""How much a single document may demand of memory and time."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields

from phi3_industry.errors import IngestionError

__all__ = ["DEFAULT_LIMITS", "ReadLimits", "check_archive"]


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """What is read of one file before it is refused.

    Attributes:
        file_bytes: Size of the file, if it has to be held in memory.
        streamed_bytes: Size of a table file, which is read piece by piece; of a Parquet file
            unpacked.
        unpacked_bytes: Size of everything inside an Office file, which is a ZIP archive.
        archive_parts: Number of files inside such a file.
        pages: Pages of a PDF file.
        rows: Rows of a table that is held in memory.
        columns: Columns of a table.
        attachments: Attachments of a mail.
    """

    file_bytes: int = 64 * 2**20
    streamed_bytes: int = 64 * 2**30
    unpacked_bytes: int = 256 * 2**20
    archive_parts: int = 10_000
    pages: int = 10_000
    rows: int = 500_000
    columns: int = 2_000
    attachments: int = 100

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) < 1:
                raise ValueError(
                    f"{entry.name} is {getattr(self, entry.name)}; it must be at least 1."
                )


DEFAULT_LIMITS = ReadLimits()

_ENCRYPTED = 0x1
"""The bit of a part's flags that says so (APPNOTE.TXT of the ZIP format, 4.4.4)."""


def check_archive(data: bytes, *, source: str, limits: ReadLimits) -> None:
    """Refuse an Office file that would unpack to something absurd or that declares entities.

    Python's ``zipfile`` reads no more of a part than its declared size, so the sum of the
    declared sizes is a bound. Office files have no document type declaration (ECMA-376 part 2,
    8.1.4); one is how XML bombs are written.

    Raises:
        IngestionError: The file is no archive, or a dangerous one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            unpacked = sum(part.file_size for part in parts)
            if len(parts) > limits.archive_parts or unpacked > limits.unpacked_bytes:
                raise IngestionError(
                    source,
                    f"It would unpack to {unpacked} bytes in {len(parts)} parts; at most "
                    f"{limits.unpacked_bytes} bytes in {limits.archive_parts} parts are read. "
                    "Split the file, or raise the limits.",
                )
            for part in parts:
                if part.flag_bits & _ENCRYPTED:
                    raise IngestionError(source, "It is encrypted. Save it without a password.")
                if part.filename.lower().endswith((".xml", ".rels")):
                    content = archive.read(part).replace(b"\x00", b"")
                    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
                        raise IngestionError(
                            source,
                            "It declares XML entities, which no Office program does. "
                            "Do not trust it; save it anew with an Office program.",
                            place=part.filename,
                        )
    except IngestionError:
        raise
    except Exception as error:  # zipfile raises whatever a damaged archive leads it to
        raise IngestionError(
            source,
            f"It is damaged or no Office file ({error}). Open and save it anew with an Office "
            "program.",
        ) from error
