from __future__ import annotations

import sys

import pytest

from phi3_industry.errors import IngestionError, MissingDependencyError
from phi3_industry.ingestion.text_encoding import decode_text

TEXT = "Öltemperatur: 65 °C\nНасос, 泵\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_unicode_encodings_are_found(encoding: str) -> None:
    text = TEXT if encoding not in ("utf-16-le", "utf-16-be") else "Oil temperature: 65 °C, Öl\n"
    assert decode_text(text.encode(encoding), source="a.txt") == text


def test_old_encodings_are_guessed() -> None:
    german = "Die Öltemperatur der Pumpe darf 65 °C nicht überschreiten. Prüfen Sie täglich.\n" * 5
    assert decode_text(german.encode("cp1252"), source="a.txt") == german
    russian = "Давление насоса не должно превышать норму. Проверяйте уровень масла.\n" * 5
    assert decode_text(russian.encode("cp1251"), source="a.txt") == russian


def test_declared_encoding_is_believed_before_a_guess() -> None:
    assert decode_text("Öl".encode("cp1252"), source="a.html", declared="cp1252") == "Öl"


def test_line_ends_become_one_kind_and_stray_controls_become_spaces() -> None:
    text = "a\r\nb\rc\x0cd" + "e" * 200 + "\x07f"
    assert decode_text(text.encode(), source="a.txt") == "a\nb\nc\nd" + "e" * 200 + " f"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04rest", "ZIP or Office"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"SQLite format 3\x00", "SQLite"),
    ],
)
def test_file_of_another_kind_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(IngestionError, match=f"this is a {kind} file and no text"):
        decode_text(data, source="a.txt")


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 4,
        b"text\x00\x00\x00\x01\x02 more",
        b"\x01\x02\x03\x04\x05",
        b"\xff\xfea",
        b"\x00" * 100,
    ],
)
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(IngestionError, match=r"'a\.txt': This is no text: .* Save it as UTF-8"):
        decode_text(data, source="a.txt")


def test_missing_package_is_asked_for_only_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    assert decode_text(TEXT.encode(), source="a.txt") == TEXT
    with pytest.raises(MissingDependencyError, match=r"pip install 'phi3-industry\[readers\]'"):
        decode_text("Öl".encode("cp1252"), source="a.txt")
