from __future__ import annotations

from email.message import EmailMessage

import pytest

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion import ReadLimits, TextBlock, parse_document
from phi3_industry.ingestion.source import SourceDocument


def mail(subject: str = "Pump P-1", text: str | None = "It leaks.\n") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Åsa <asa@example.org>"
    message["To"] = "plant@example.org"
    message["Date"] = "Wed, 01 May 2024 08:30:00 +0200"
    if text is not None:
        message.set_content(text)
    return message


def read(message: EmailMessage, **limits: int) -> SourceDocument:
    return parse_document(message.as_bytes(), name="a.eml", limits=ReadLimits(**limits))


def test_head_and_text_come_first_and_the_subject_is_the_title() -> None:
    document = read(mail())
    assert (document.title, document.date) == ("Pump P-1", "2024-05-01")
    [block] = document.blocks
    assert isinstance(block, TextBlock)
    assert block.text == (
        "From: Åsa <asa@example.org>\nTo: plant@example.org\nDate: 2024-05-01 08:30+02:00\n\n"
        "It leaks."
    )


def test_plain_text_is_preferred_to_the_page_of_the_same_mail() -> None:
    message = mail()
    message.add_alternative("<p>The page.</p>", subtype="html")
    assert "The page." not in str(read(message).blocks)
    only_page = mail(text=None)
    only_page.set_content("<h1>Leak</h1><p>The page.</p><script>x</script>", subtype="html")
    [block] = read(only_page).blocks
    assert isinstance(block, TextBlock)
    assert block.text.endswith("The page.")


def test_text_in_an_old_encoding_is_read() -> None:
    message = mail(text=None)
    message.set_content("Stück geprüft", charset="iso-8859-1")
    assert "Stück geprüft" in str(read(message).blocks)


def test_attachments_are_sections_named_after_their_files() -> None:
    message = mail()
    message.add_attachment(b"Tag,Load\nP-1,3\n", "text", "csv", filename="pumps.csv")
    message.add_attachment(mail("Inner", "Deep."))
    document = read(message)
    assert [block.section for block in document.blocks] == [(), ("pumps.csv",), ("2.eml",)]
    assert "Deep." in str(document.blocks)


def test_attachment_that_cannot_be_read_is_remarked_on_and_the_mail_is_read() -> None:
    message = mail()
    message.add_attachment(b"\x89PNG", "image", "png", filename="../../etc/photo.png")
    message.add_attachment(b"no pdf", "application", "pdf", filename="a.pdf")
    document = read(message)
    assert len(document.blocks) == 1
    assert [remark.split("'")[1] for remark in document.remarks] == ["photo.png", "a.pdf"]


def test_mails_in_mails_are_read_to_a_depth() -> None:
    message = mail("Level 0", "Text 0")
    for level in range(1, 8):
        outer = mail(f"Level {level}", f"Text {level}")
        outer.add_attachment(message)
        message = outer
    document = read(message)
    assert [f"Text {n}" in str(document.blocks) for n in (7, 4, 3, 0)] == [True, True, False, False]
    assert "lies deeper than 4 mails" in str(document.remarks)


def test_attachments_are_capped_in_number_and_size() -> None:
    message = mail()
    for number in range(5):
        message.add_attachment("x" * 600, filename=f"{number}.txt")
    assert len(read(message, attachments=2).blocks) == 3
    document = read(message, file_bytes=1500)
    assert len(document.blocks) == 3
    assert "larger than 1500 bytes" in str(document.remarks)


def test_what_is_no_mail_is_refused() -> None:
    with pytest.raises(IngestionError, match=r"'a\.eml': This is no mail"):
        parse_document(b"Just some text.", name="a.eml")
