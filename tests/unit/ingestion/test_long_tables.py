from __future__ import annotations

import datetime
import io
import json
import weakref
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion import ReadLimits, SectionNodeParser, parse_document
from phi3_industry.ingestion.pieces import PIECE_ROWS, row_pieces
from phi3_industry.ingestion.readers import is_long, stream_document
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import Table


def streamed(data: bytes, name: str = "a.csv", **limits: int) -> SourceDocument:
    return stream_document(io.BytesIO(data), name=name, limits=ReadLimits(**limits))


def rows_of(document: SourceDocument) -> list[tuple[str, ...]]:
    return [row for block in document.blocks if isinstance(block, Table) for row in block.rows]


def parquet_file(columns: dict[str, list[object]], **settings: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **settings)
    return buffer.getvalue()


# delimited


def test_streamed_table_gives_the_nodes_that_a_table_in_memory_gives() -> None:
    lines = ["Tag;Load;Checked"] + [f"P-{n};{n},5 t;{n % 28 + 1}.5.2024" for n in range(2500)]
    data = "\n".join(lines).encode()
    parser = SectionNodeParser(token_counter=lambda text: len(text.split()))
    whole = parser.nodes_of(parse_document(data, name="a.csv"), document_id="a.csv")
    pieces = parser.nodes_of(streamed(data), document_id="a.csv")
    assert [(n.node_id, n.text, n.metadata) for n in pieces] == [
        (n.node_id, n.text, n.metadata) for n in whole
    ]
    assert pieces[2000].metadata["number:Load"] == 2000.5
    assert pieces[2000].metadata["date:Checked"] == f"2024-05-{2000 % 28 + 1:02}"


GERMAN = "Die Prüfung der Öldichtung für Pumpe {} wäre spätestens nächste Woche durchzuführen"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encoding_of_a_long_table_is_found_wherever_it_shows(encoding: str) -> None:
    lines = ["Tag,Note", *["P-1,plain"] * 40_000, *[f"P-2,{GERMAN.format(n)}" for n in range(20)]]
    rows = rows_of(streamed("\n".join(lines).encode(encoding)))
    assert (rows[0], rows[-1]) == (("P-1", "plain"), ("P-2", GERMAN.format(19)))


def test_longer_rows_name_their_further_columns_by_place() -> None:
    rows = [["P-1", "3"]] * PIECE_ROWS + [["P-2", "3", "x"]]
    pieces = list(row_pieces(rows, columns=["Tag", "Load"]))
    assert pieces[-1].columns == ("Tag", "Load", "Column 3")
    assert pieces[-1].first_row == PIECE_ROWS + 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n" + b"x" * 2_000_000, "line 2: The line has more than"),
        (b"a,b\n" + b"1,2\n" * 300 + b'1,"' + b"x" * 200_000 + b'"\n', "line 302: The row cannot"),
        (b"a,b\n1,2\n" + b"," * 3000, "more than 2000 columns"),
        (b"%PDF-1.7 x", "this is a PDF file"),
        (b"a,b\n1,\x00\n", "some of its bytes are zero"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(IngestionError, match=message):
        list(streamed(data).blocks)


def test_long_table_is_never_in_memory() -> None:
    class Endless(io.RawIOBase):
        """A table of 4 MB that is made as it is read."""

        def __init__(self) -> None:
            self.place = 0

        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            assert (offset, whence) in ((0, 0), (0, 1))
            self.place = 0 if whence == 0 else self.place
            return self.place

        def tell(self) -> int:
            return self.place

        def readinto(self, buffer: bytearray) -> int:
            line = b"P-1234567,some words in a cell,12.5\n" * 100
            size = min(len(buffer), len(line), 4_000_000 - self.place)
            start = self.place % len(line)
            size = min(size, len(line) - start)
            buffer[:size] = line[start : start + size]
            self.place += size
            return size

    with io.BufferedReader(Endless()) as stream:
        document = stream_document(stream, name="a.csv")
        pieces = [weakref.ref(block) for block in document.blocks]
    assert len(pieces) > 100
    assert sum(piece() is not None for piece in pieces) <= 1


def test_only_large_tables_are_streamed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x" * 9_000_000)
    (tmp_path / "a.txt").write_bytes(b"x" * 9_000_000)
    (tmp_path / "b.csv").write_bytes(b"a,b\n1,2\n")
    assert [is_long(tmp_path / name) for name in ("a.csv", "a.txt", "b.csv")] == [
        True,
        False,
        False,
    ]


# Parquet


def test_typed_values_become_cells_and_strings_stay_text() -> None:
    data = parquet_file(
        {
            "tag": ["P-1", "P-2"],
            "code": ["007", "12"],
            "load": [38.2, None],
            "price": [Decimal("12.50"), Decimal("3.00")],
            "since": [datetime.date(2024, 5, 1), None],
            "on": [True, False],
            "parts": [["seal", "shaft"], []],
            "photo": [b"\x89PNG", b"x"],
        }
    )
    parser = SectionNodeParser(token_counter=lambda text: len(text.split()))
    nodes = parser.nodes_of(parse_document(data, name="pumps.parquet"), document_id="p")
    assert nodes[0].text == (
        "tag: P-1; code: 007; load: 38.2; price: 12.50; since: 2024-05-01; on: TRUE; "
        'parts: ["seal", "shaft"]'
    )
    metadata = nodes[1].metadata
    assert (metadata["cell:code"], metadata["cell:price"]) == ("12", 3.0)
    assert metadata["row_key"] == "P-2"


def test_parquet_is_read_some_rows_at_a_time() -> None:
    data = parquet_file({"n": list(range(5000))}, row_group_size=5000)
    blocks = parse_document(data, name="a.parquet").blocks
    assert isinstance(blocks, Iterator)
    sizes = [len(block.rows) for block in blocks if isinstance(block, Table)]
    assert sizes == [PIECE_ROWS] * 5


def test_parquet_that_unpacks_to_something_absurd_is_refused() -> None:
    data = parquet_file({"n": ["x" * 1000] * 30_000}, use_dictionary=False, compression="zstd")
    assert len(data) < 200_000
    with pytest.raises(IngestionError, match="It would unpack to"):
        parse_document(data, name="a.parquet", limits=ReadLimits(streamed_bytes=10_000_000))


def test_damaged_parquet_is_refused_by_name() -> None:
    data = bytearray(parquet_file({"n": list(range(5000))}, use_dictionary=False))
    for damaged in (b"PAR1 nothing PAR1", bytes(data[:-20]), json.dumps([1]).encode()):
        with pytest.raises(IngestionError, match=r"'a\.parquet': The Parquet file is damaged"):
            parse_document(damaged, name="a.parquet")
    data[100:400] = b"\xff" * 300
    with pytest.raises(IngestionError, match=r"'a\.parquet': The Parquet file is damaged"):
        rows_of(parse_document(bytes(data), name="a.parquet"))
