"""Damaged files: whatever is wrong with one, it is read or refused, and never worse."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion import SectionNodeParser, parse_document

DOCUMENTS = Path(__file__).parents[3] / "examples" / "plant" / "documents"
NAMES = [
    "data-sheets/inspection-sheets.pdf",
    "data-sheets/rotating-machines.docx",
    "data-sheets/rotating-machines.html",
    "manuals/steam-house.md",
    "tables/rotating-machines.csv",
    "tables/vessels-and-lines.xlsx",
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change, cut out and put in bytes at random places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20, 100))):
        place = rng.randrange(len(changed))
        kind = rng.random()
        if kind < 0.6:
            changed[place] = rng.randrange(256)
        elif kind < 0.8:
            del changed[place : place + rng.randrange(1, 30)]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 30))
    return bytes(changed)


def with_damaged_part(data: bytes, rng: random.Random) -> bytes:
    """Damage one file inside an archive and pack it so that its checksum is right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                # stay within ASCII, so that the XML is often still well formed
                letters = bytearray(content)
                for _ in range(rng.choice((1, 3, 10))):
                    letters[rng.randrange(len(letters))] = rng.randrange(32, 127)
                content = bytes(letters)
            new.writestr(name, content)
    return buffer.getvalue()


def outcome(data: bytes, name: str) -> str:
    parser = SectionNodeParser(token_counter=lambda text: len(text) // 4 + 1)
    try:
        document = parse_document(data, name=name)
    except IngestionError as error:
        return "refused" if str(error).startswith(f"'{name}'") else "refused without a name"
    for node in parser.nodes_of(document, document_id=name):
        node.get_content().encode("utf-8")  # a lone surrogate could not be stored
    return "read"


@pytest.mark.parametrize("name", NAMES)
def test_file_with_damaged_bytes_is_read_or_refused(name: str) -> None:
    data = (DOCUMENTS / name).read_bytes()
    rng = random.Random(5)
    outcomes = [outcome(damaged(data, rng), name) for _ in range(60)]
    assert "refused" in outcomes
    assert set(outcomes) <= {"read", "refused"}


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("docx", "xlsx"))])
def test_office_file_with_a_damaged_part_is_read_or_refused(name: str) -> None:
    data = (DOCUMENTS / name).read_bytes()
    rng = random.Random(6)
    outcomes = [outcome(with_damaged_part(data, rng), name) for _ in range(120)]
    assert {"read", "refused"} == set(outcomes)
