"""Mail: who wrote what to whom and when, and what is attached.

Source: RFC 5322 for the fields of the head, RFC 2046 for the parts; the standard library reads
both.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.message import EmailMessage, MIMEPart
from typing import cast

from phi3_industry.errors import IngestionError, MissingDependencyError
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.source import Block, SourceDocument, TextBlock, one_line
from phi3_industry.ingestion.text_encoding import decode_text
from phi3_industry.ingestion.web import declared_encoding, read_html

__all__ = ["ReadAttachment", "read_mail"]

ReadAttachment = Callable[[bytes, str, ReadLimits, int], SourceDocument]
"""Reads an attachment: its bytes, its name, the limits, and how deep it lies in other mails."""

_PEOPLE = ("From", "To", "Cc")
_MOST_DEPTH = 4
"""A mail in a mail in a mail in a mail is read; what lies deeper is not."""


def read_mail(
    data: bytes,
    *,
    source: str,
    title: str,
    limits: ReadLimits,
    read_attachment: ReadAttachment,
    depth: int = 0,
) -> SourceDocument:
    """Read a mail.

    The subject is the title; the head's people and date come first, then the text (its plain
    form where there are several), then each attachment as a section named after its file. What
    is attached and cannot be read is left out and remarked on.

    Args:
        data: The mail's bytes.
        source: The file, for messages.
        title: The document's title if the mail has no subject.
        limits: What is read at most; ``attachments`` and ``file_bytes`` hold for all of the
            attachments together.
        read_attachment: Reads a document of another kind.
        depth: How many mails this one lies in.

    Raises:
        IngestionError: It is no mail.
    """
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        if not any(name in message for name in ("From", "To", "Subject", "Date", "Received")):
            raise IngestionError(
                source, "This is no mail: none of the fields of a mail's head is there."
            )
        return _Reader(message, source, limits, read_attachment, depth).read(title)
    except (IngestionError, MissingDependencyError):
        raise
    except Exception as error:  # the standard library raises whatever damaged fields lead it to
        raise IngestionError(
            source, f"The mail is damaged ({type(error).__name__}: {error}). Export it anew."
        ) from error


@dataclass
class _Reader:
    message: EmailMessage
    source: str
    limits: ReadLimits
    read_attachment: ReadAttachment
    depth: int
    blocks: list[Block] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    bytes_left: int = field(init=False)

    def read(self, title: str) -> SourceDocument:
        self.bytes_left = self.limits.file_bytes
        date = self._date()
        head = [f"{name}: {_value(self.message, name)}" for name in _PEOPLE]
        head = [line for line in head if not line.endswith(": ")]
        text = self._body()
        lines = "\n".join([*head, *([f"Date: {date}"] if date else [])])
        first = "\n\n".join(part for part in (lines, *text[:1]) if part)
        if first:
            self.blocks.append(TextBlock(section=(), text=first))
        for number, part in enumerate(self.message.iter_attachments(), start=1):
            if number > self.limits.attachments:
                self.remarks.append(
                    f"Only the first {self.limits.attachments} attachments were read."
                )
                break
            self._attach(part, number)
        return SourceDocument(
            title=_value(self.message, "Subject") or title,
            blocks=tuple(self.blocks),
            remarks=tuple(self.remarks),
            date=date[:10],
        )

    def _date(self) -> str:
        moment = getattr(self.message["Date"], "datetime", None)
        return "" if moment is None else str(moment.isoformat(sep=" ", timespec="minutes"))

    def _body(self) -> list[str]:
        part = self.message.get_body(preferencelist=("plain", "html"))
        if part is None:
            return []
        data = _bytes_of(part)
        declared = part.get_content_charset()
        if part.get_content_type() == "text/html":
            page = decode_text(
                data, source=self.source, declared=declared_encoding(data) or declared
            )
            document = read_html(page, source=self.source, fallback_title="mail")
            self.blocks += [b for b in document.blocks if not isinstance(b, TextBlock)]
            texts = [b for b in document.blocks if isinstance(b, TextBlock)]
            return ["\n\n".join("\n".join([*b.section[-1:], b.text]) for b in texts)]
        text = decode_text(data, source=self.source, declared=declared)
        return ["\n".join(line.rstrip() for line in text.split("\n")).strip()]

    def _attach(self, part: MIMEPart, number: int) -> None:
        """Read an attachment as a section, or remark on why not."""
        is_mail = part.get_content_type() == "message/rfc822"
        name = one_line(part.get_filename() or (f"{number}.eml" if is_mail else str(number)))
        name = name.replace("\\", "/").rpartition("/")[2] or str(number)
        try:
            if self.depth + 1 >= _MOST_DEPTH:
                raise IngestionError(name, f"It lies deeper than {_MOST_DEPTH} mails.")
            data = _bytes_of(part)
            self.bytes_left -= len(data)
            if self.bytes_left < 0:
                raise IngestionError(
                    name, f"The attachments are larger than {self.limits.file_bytes} bytes."
                )
            document = self.read_attachment(data, name, self.limits, self.depth + 1)
            blocks = [replace(b, section=(name, *b.section)) for b in document.blocks]
        except (IngestionError, MissingDependencyError) as error:
            reason = error.problem if isinstance(error, IngestionError) else str(error)
            self.remarks.append(f"The attachment '{name}' was left out. {reason}")
            return
        self.blocks += blocks
        self.remarks += [f"Attachment '{name}': {remark}" for remark in document.remarks]


def _value(message: EmailMessage, name: str) -> str:
    value = str(message[name] or "")
    return one_line(value.encode("utf-8", "replace").decode("utf-8"))  # raw bytes in a head


def _bytes_of(part: MIMEPart) -> bytes:
    if part.get_content_type() == "message/rfc822":
        return cast("EmailMessage", part.get_content()).as_bytes()
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
