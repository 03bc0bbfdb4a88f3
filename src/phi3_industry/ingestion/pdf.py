"""PDF files with a text layer: each page is a section."""

from __future__ import annotations

import io
import re

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.source import SourceDocument, TextBlock, one_line

__all__ = ["read_pdf"]

_NO_TITLE = re.compile(r"untitled|microsoft word\b.*|.*\.(?:docx?|pdf|indd|qxd|tmp)", re.IGNORECASE)


def read_pdf(data: bytes, *, source: str, title: str, limits: ReadLimits) -> SourceDocument:
    """Read the text layer of a PDF file.

    Args:
        data: The file's bytes.
        source: The file, for messages.
        title: The document's title if the file names none.
        limits: What is read at most.

    Returns:
        The document, with a section ``Page 3`` for each page that has text and a remark on those
        that have none.

    Raises:
        IngestionError: The file is damaged, encrypted or too large, or is nothing but pictures.
        MissingDependencyError: pypdf is not installed.
    """
    pypdf = import_optional("pypdf", purpose=f"read '{source}'", extra="readers")
    blocks: list[TextBlock] = []
    blank: list[int] = []
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise IngestionError(source, "It is encrypted. Save it without a password.")
        if len(reader.pages) > limits.pages:
            raise IngestionError(
                source,
                f"It has {len(reader.pages)} pages; at most {limits.pages} are read. Split the "
                "file, or raise the limits.",
            )
        named = one_line(str((reader.metadata or {}).get("/Title") or ""))
        for number, page in enumerate(reader.pages, start=1):
            text = _tidy(page.extract_text())
            if text:
                blocks.append(TextBlock(section=(f"Page {number}",), text=text))
            else:
                blank.append(number)
    except IngestionError:
        raise
    except Exception as error:  # pypdf raises whatever a damaged file leads it to
        raise IngestionError(
            source, f"The PDF file is damaged ({type(error).__name__}: {error}). Print it anew."
        ) from error
    if blank and not blocks:
        raise IngestionError(
            source,
            f"None of its {len(blank)} pages has a text layer: they are pictures. Run a text "
            "recognition (OCR) over the file first.",
        )
    remarks = [f"Pages without a text layer were left out: {_listed(blank)}."] if blank else []
    chosen = named if named and not _NO_TITLE.fullmatch(named) else title
    return SourceDocument(title=chosen, blocks=tuple(blocks), remarks=tuple(remarks))


def _tidy(text: str) -> str:
    # surrogates come from broken character maps and cannot be stored as UTF-8
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    return shown if len(numbers) <= 20 else f"{shown} and {len(numbers) - 20} more"
