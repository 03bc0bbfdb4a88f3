"""An ingestion that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.embeddings import MockEmbedding

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion import parts, readers
from phi3_industry.ingestion.records import DocumentRecord
from phi3_industry.knowledge_base import KnowledgeBase


class Counting(MockEmbedding):
    """Embeds by length, counts, and kills its own process after a number of texts."""

    embedded: int = 0
    lethal: int = 10**9

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        if self.embedded > self.lethal:
            os.kill(os.getpid(), signal.SIGKILL)
        return [[1.0 + len(text), 2.0, 3.0, 4.0] for text in texts]


def table(rows: int, note: str = "note") -> str:
    return "Tag,Load,Note\n" + "".join(f"P-{n},{n}.5,{note} {n}\n" for n in range(rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of five parts, and limits small enough for that."""
    small_parts(monkeypatch)
    root = tmp_path / "documents"
    root.mkdir()
    (root / "long.csv").write_text(table(450))
    for number in range(4):
        (root / f"m{number}.md").write_text(f"# M {number}\n\n## A\n\nText.\n\n## B\n\nMore.")
    return root


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_NODES", 100)
    monkeypatch.setattr(readers, "_STREAMED_FROM", 1000)


def opened(path: Path, **settings: Any) -> KnowledgeBase:
    return KnowledgeBase.open(path, embed_model=Counting(embed_dim=4, **settings))


def state(kb: KnowledgeBase) -> tuple[object, ...]:
    nodes = {n.node_id: (n.ref_doc_id, n.get_content()) for n in kb.vector_store.get_nodes()}
    return nodes, kb.vector_store.document_hashes(), kb.documents


def embedded(kb: KnowledgeBase) -> int:
    assert isinstance(kb.embed_model, Counting)
    return kb.embed_model.embedded


def test_long_table_is_one_document_stored_in_parts(folder: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as kb:
        report = kb.add(folder)
        assert (len(report.added), report.nodes) == (5, 458)
        assert kb.documents == ["long.csv", "m0.md", "m1.md", "m2.md", "m3.md"]
        nodes = kb.vector_store.get_nodes()
        assert len({n.ref_doc_id for n in nodes if n.metadata["file_path"] == "long.csv"}) == 5
        rows = sorted(n.metadata["row_number"] for n in nodes if "row_number" in n.metadata)
        assert rows == list(range(1, 451))
        assert len(kb.add(folder).unchanged) == 5
        assert kb.delete("long.csv")
        assert kb.vector_store.count == 8
        assert "long.csv" not in kb.documents


def test_row_at_the_end_costs_the_last_part(folder: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as kb:
        kb.add(folder)
        before = embedded(kb)
        (folder / "long.csv").write_text(table(460))
        assert kb.refresh(folder).updated == ["long.csv"]
        # the last part, and the first, which vouches for all
        assert embedded(kb) - before == 60 + 100
        (folder / "long.csv").write_text(table(150))
        kb.refresh(folder)
        assert kb.vector_store.count == 150 + 8
        (folder / "long.csv").write_text(table(3))
        kb.refresh(folder)
        assert kb.vector_store.count == 3 + 8
        (folder / "long.csv").unlink()
        assert kb.refresh(folder).deleted == ["long.csv"]
        assert kb.vector_store.count == 8


CHILD = """
import sys
from pathlib import Path
import pytest
from test_interruption import opened, small_parts
with pytest.MonkeyPatch.context() as patch:
    small_parts(patch)
    with opened(Path(sys.argv[1]), lethal=int(sys.argv[3])) as kb:
        kb.refresh(sys.argv[2])
"""


@pytest.mark.parametrize("lethal", [50, 250, 449])
def test_killed_refresh_is_taken_up_where_it_was(folder: Path, tmp_path: Path, lethal: int) -> None:
    with opened(tmp_path / "whole") as kb:
        kb.add(folder)
        expected = state(kb)
    with opened(tmp_path / "kb") as kb:
        (folder / "gone.md").write_text("# Gone\n\nIt goes.")
        (folder / "long.csv").write_text(table(450, note="old"))
        kb.add(folder)
    (folder / "gone.md").unlink()
    (folder / "long.csv").write_text(table(450))
    arguments = [str(tmp_path / "kb"), str(folder), str(lethal)]
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    with opened(tmp_path / "kb") as kb:
        kb.vector_store.verify()
        kb.refresh(folder)
        assert state(kb) == expected
        done = max(0, lethal // 100 - 1) * 100  # full parts; the first one is stored last
        assert embedded(kb) <= 450 - done


def test_table_that_breaks_off_is_reported_and_tried_again(folder: Path, tmp_path: Path) -> None:
    broken = table(250) + 'P-x,1,"' + "x" * 200_000 + '"\n'
    (folder / "long.csv").write_text(broken)
    with opened(tmp_path / "kb") as kb:
        report = kb.add(folder)
        [(place, reason)] = report.skipped
        assert (place, len(report.added)) == ("long.csv, line 252", 4)
        assert "The row cannot be read" in reason
        with pytest.raises(IngestionError, match=r"'long\.csv', line 252"):
            kb.add(folder / "long.csv")
        (folder / "long.csv").write_text(table(250))
        kb.refresh(folder)
        assert kb.vector_store.count == 250 + 8


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (DocumentRecord("ab", "/a b/c"), "ab /a b/c"),
        (DocumentRecord("ab", "", "cd"), "ab/cd "),
        (DocumentRecord("ab", "/x", is_part=True), "part:ab /x"),
    ],
)
def test_record_is_read_as_it_was_written(record: DocumentRecord, text: str) -> None:
    assert str(record) == text
    assert DocumentRecord.parse(text) == record


def test_part_is_told_from_a_document_of_such_a_name() -> None:
    assert DocumentRecord("ab", "", is_part=True).part_of("a.csv#part-2") == "a.csv"
    assert DocumentRecord("ab", "").part_of("a.csv#part-2") == "a.csv#part-2"
