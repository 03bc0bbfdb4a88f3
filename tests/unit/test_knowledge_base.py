from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import Document
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from phi3_industry.errors import (
    IngestionError,
    StoreError,
    StoreIdentityError,
)
from phi3_industry.ingestion import SectionNodeParser
from phi3_industry.knowledge_base import IngestReport, KnowledgeBase
from phi3_industry.retrievers.hybrid import HybridRetriever


class CountingEmbedding(MockEmbedding):
    """Counts the texts that it embeds."""

    embedded: int = 0

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return [[1.0 + len(text), 2.0, 3.0, 4.0] for text in texts]


@pytest.fixture
def embed_model() -> CountingEmbedding:
    return CountingEmbedding(embed_dim=4)


@pytest.fixture
def kb(tmp_path: Path, embed_model: CountingEmbedding) -> Iterator[KnowledgeBase]:
    with KnowledgeBase.open(tmp_path / "kb", embed_model=embed_model) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    (root / "tables").mkdir(parents=True)
    (root / "a.md").write_text("# Manual\n\n## Pump\n\nThe pump runs.\n\n## Valve\n\nIt closes.")
    (root / "b.txt").write_text("Text of b.")
    (root / "tables" / "t.csv").write_text("Tag,Load\nP-1,2 t\nP-2,3 t\n")
    return root


def texts(kb: KnowledgeBase) -> set[str]:
    return {node.get_content() for node in kb.vector_store.get_nodes()}


def test_folder_is_added_with_paths_as_ids(kb: KnowledgeBase, folder: Path) -> None:
    report = kb.add(folder)
    assert report.added == ["a.md", "b.txt", "tables/t.csv"]
    assert (report.nodes, kb.vector_store.count, report.skipped) == (5, 5, [])
    assert kb.documents == report.added


def test_second_add_computes_nothing(
    kb: KnowledgeBase, folder: Path, embed_model: CountingEmbedding
) -> None:
    kb.add(folder)
    assert embed_model.embedded == 5
    report = kb.add(folder)
    assert (len(report.unchanged), report.nodes, report.added) == (3, 0, [])
    assert embed_model.embedded == 5


def test_refresh_touches_only_what_changed(
    kb: KnowledgeBase, folder: Path, embed_model: CountingEmbedding
) -> None:
    kb.add(folder)
    (folder / "a.md").write_text("# Manual\n\nAll is new.")
    (folder / "b.txt").unlink()
    (folder / "c.txt").write_text("Text of c.")
    report = kb.refresh(folder)
    assert (report.added, report.updated) == (["c.txt"], ["a.md"])
    assert (report.deleted, report.unchanged) == (["b.txt"], ["tables/t.csv"])
    assert embed_model.embedded == 5 + 2
    assert "All is new." in texts(kb)
    assert not {"The pump runs.", "Text of b."} & texts(kb)


def test_add_deletes_nothing(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    (folder / "b.txt").unlink()
    assert kb.add(folder).deleted == []
    assert "b.txt" in kb.documents


def test_refresh_leaves_other_folders_and_documents_alone(
    kb: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "o.txt").write_text("Text of o.")
    kb.add(folder)
    kb.add(other)
    kb.add(Document(text="Given.", id_="given"))
    assert kb.refresh(folder).deleted == []
    assert set(kb.documents) == {"a.md", "b.txt", "given", "o.txt", "tables/t.csv"}


def test_same_path_of_another_folder_replaces_nothing(
    kb: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.txt").write_text("Another b.")
    (other / "c.txt").write_text("Text of c.")
    kb.add(folder)
    report = kb.add(other)
    assert report.added == ["c.txt"]
    [(name, reason)] = report.skipped
    assert name == "b.txt"
    assert "Another document of this name is there already" in reason
    assert str(folder.resolve() / "b.txt") in reason
    assert "Text of b." in texts(kb)


def test_moved_folder_is_the_same_folder(kb: KnowledgeBase, folder: Path, tmp_path: Path) -> None:
    kb.add(folder)
    moved = tmp_path / "moved"
    folder.rename(moved)
    report = kb.refresh(moved)
    assert len(report.updated) == 3
    assert kb.vector_store.count == 5
    (moved / "b.txt").unlink()
    assert kb.refresh(moved).deleted == ["b.txt"]


def test_single_file_belongs_to_the_folder_that_was_added(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    (folder / "tables" / "t.csv").write_text("Tag,Load\nP-1,9 t\nP-2,3 t\n")
    assert kb.add(folder / "tables" / "t.csv").updated == ["tables/t.csv"]
    assert "Tag: P-1; Load: 9 t" in texts(kb)


def test_single_file_of_no_known_folder_is_named_by_itself(kb: KnowledgeBase, folder: Path) -> None:
    assert kb.add(folder / "tables" / "t.csv").added == ["t.csv"]


def test_documents_of_llama_index_are_added_and_updated(kb: KnowledgeBase) -> None:
    documents = [Document(text=f"Text {n}.", id_=f"d{n}") for n in range(3)]
    assert kb.add(documents).added == ["d0", "d1", "d2"]
    documents[1] = Document(text="New.", id_="d1")
    documents[2] = Document(text="Text 2.", id_="d2", metadata={"author": "me"})
    report = kb.add(documents)
    assert (report.unchanged, report.updated) == (["d0"], ["d1", "d2"])


def test_rows_of_a_database_are_added_and_brought_up_to_date(
    kb: KnowledgeBase, tmp_path: Path
) -> None:
    file = tmp_path / "plant.db"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE pumps (tag TEXT, load REAL)")
        connection.execute("INSERT INTO pumps VALUES ('P-1', 2.5), ('P-2', 3.5)")
    query = "SELECT * FROM pumps ORDER BY tag"
    assert kb.add_sql(f"sqlite:///{file}", query, name="pumps").added == ["pumps"]
    assert texts(kb) == {"tag: P-1; load: 2.5", "tag: P-2; load: 3.5"}
    assert kb.add_sql(f"sqlite:///{file}", query, name="pumps").unchanged == ["pumps"]
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM pumps WHERE tag = 'P-1'")
    assert kb.add_sql(f"sqlite:///{file}", query, name="pumps").updated == ["pumps"]
    assert texts(kb) == {"tag: P-2; load: 3.5"}
    assert str(file) not in str([node.metadata for node in kb.vector_store.get_nodes()])
    filters = MetadataFilters(
        filters=[MetadataFilter(key="cell:load", value=3, operator=FilterOperator.GT)]
    )
    assert len(kb.vector_store.get_nodes(filters=filters)) == 1


def test_documents_with_one_id_are_refused(kb: KnowledgeBase) -> None:
    with pytest.raises(ValueError, match="Several documents have the id 'd'"):
        kb.add([Document(text="a", id_="d"), Document(text="b", id_="d")])
    with pytest.raises(TypeError, match="A str cannot be added"):
        kb.add(["text"])  # type: ignore[list-item]
    assert kb.documents == []


def test_empty_folder_is_an_error_and_the_index_stays(
    kb: KnowledgeBase, folder: Path, tmp_path: Path
) -> None:
    kb.add(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(IngestionError, match=r"empty'?: The folder holds no document .* is empty"):
        kb.add(empty)
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        kb.add(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        kb.refresh(tmp_path / "none")
    assert kb.vector_store.count == 5


def test_refresh_of_an_emptied_folder_deletes_nothing(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(IngestionError, match="The folder holds no document"):
        kb.refresh(folder)
    assert len(kb.documents) == 3


def test_unreadable_files_are_skipped_with_reasons_and_the_others_added(
    kb: KnowledgeBase, folder: Path
) -> None:
    (folder / "binary.txt").write_bytes(bytes(range(256)))
    (folder / "broken.pdf").write_bytes(b"no pdf")
    (folder / "empty.txt").write_text("  \n")
    (folder / "picture.png").write_bytes(b"x")
    report = kb.add(folder)
    assert len(report.added) == 3
    reasons = dict(report.skipped)
    assert reasons.keys() == {"binary.txt", "broken.pdf", "empty.txt", "picture.png"}
    assert "This is no text" in reasons["binary.txt"]
    assert "It is empty" in reasons["empty.txt"]


def test_folder_of_nothing_readable_names_what_it_holds(kb: KnowledgeBase, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "binary.txt").write_bytes(b"\x00\x01")
    with pytest.raises(IngestionError, match=r"binary\.txt: This is no text"):
        kb.add(bad)


def test_single_binary_file_is_an_error(kb: KnowledgeBase, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02")
    with pytest.raises(IngestionError, match=r"'binary\.txt': This is no text"):
        kb.add(tmp_path / "binary.txt")


def test_file_that_became_unreadable_keeps_its_old_nodes(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    (folder / "b.txt").write_bytes(b"\x00\x01\x02")
    report = kb.refresh(folder)
    assert report.deleted == []
    assert "What was indexed of it before is kept." in dict(report.skipped)["b.txt"]
    assert "Text of b." in texts(kb)


def test_file_that_became_empty_loses_its_nodes(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    (folder / "b.txt").write_text("")
    assert kb.refresh(folder).deleted == ["b.txt"]
    assert "Text of b." not in texts(kb)


def test_other_settings_of_the_parser_index_anew(
    kb: KnowledgeBase, folder: Path, embed_model: CountingEmbedding
) -> None:
    kb.add(folder)
    other = KnowledgeBase(
        kb.vector_store,
        embed_model=embed_model,
        node_parser=SectionNodeParser(max_tokens=64, min_tokens=32),
    )
    assert len(other.add(folder).updated) == 3


def test_interrupted_ingestion_keeps_what_was_finished_and_goes_on(
    tmp_path: Path, folder: Path
) -> None:
    for number in range(6):
        lines = "\n\n".join(f"## Part {n}\n\nText {n} of {number}." for n in range(100))
        (folder / f"long-{number}.md").write_text(f"# Long {number}\n\n{lines}")

    class Failing(CountingEmbedding):
        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            if self.embedded >= 303:  # after the first documents, which are embedded together
                raise KeyboardInterrupt
            return super()._get_text_embeddings(texts)

    with KnowledgeBase.open(tmp_path / "kb", embed_model=Failing(embed_dim=4)) as kb:
        with pytest.raises(KeyboardInterrupt):
            kb.add(folder)
        finished = kb.documents
    assert 0 < len(finished) < 9
    counting = CountingEmbedding(embed_dim=4)
    with KnowledgeBase.open(tmp_path / "kb", embed_model=counting) as kb:
        kb.vector_store.verify()
        report = kb.add(folder)
        assert report.unchanged == finished
        assert kb.vector_store.count == 605
        assert counting.embedded == report.nodes < 605


def test_failing_write_leaves_the_earlier_index(
    kb: KnowledgeBase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.add(folder)
    (folder / "c.txt").write_text("Text of c.")

    def full(*_: object) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(type(kb.vector_store), "replace_document", full)
    with pytest.raises(StoreError, match="The disk is full"):
        kb.add(folder)
    assert kb.vector_store.count == 5


def test_reopened_knowledge_base_is_the_same(
    tmp_path: Path, folder: Path, embed_model: CountingEmbedding
) -> None:
    with KnowledgeBase.open(tmp_path / "kb", embed_model=embed_model) as kb:
        kb.add(folder)
    with KnowledgeBase.open(tmp_path / "kb", embed_model=embed_model, read_only=True) as kb:
        assert kb.vector_store.count == 5
        with pytest.raises(StoreError, match="read"):
            kb.delete("b.txt")


def test_other_embedding_is_refused(
    tmp_path: Path, folder: Path, embed_model: CountingEmbedding
) -> None:
    with KnowledgeBase.open(tmp_path / "kb", embed_model=embed_model) as kb:
        kb.add(folder)
    other = MockEmbedding(embed_dim=8)
    with pytest.raises(StoreIdentityError):
        KnowledgeBase.open(tmp_path / "kb", embed_model=other)


def test_missing_knowledge_base_cannot_be_read(
    tmp_path: Path, embed_model: CountingEmbedding
) -> None:
    with pytest.raises(StoreError):
        KnowledgeBase.open(tmp_path / "none", embed_model=embed_model, read_only=True)


def test_delete_says_whether_there_was_one(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    assert kb.delete("b.txt")
    assert not kb.delete("b.txt")
    assert kb.vector_store.count == 4


def test_index_is_an_ordinary_index(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    assert isinstance(kb.index, VectorStoreIndex)
    assert kb.index is kb.index
    found = kb.index.as_retriever(similarity_top_k=2).retrieve("load of P-1")
    assert len(found) == 2


def test_retriever_finds_a_row_by_its_key(kb: KnowledgeBase, folder: Path) -> None:
    kb.add(folder)
    best = kb.as_retriever(similarity_top_k=1, weights=(0.0, 1.0)).retrieve("What load has P-2?")
    assert best[0].node.metadata["source_id"] == "tables/t.csv#P-2"


def test_fitted_weights_are_kept_and_used(
    kb: KnowledgeBase, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kb.add(folder)
    plain = kb.as_retriever().weights
    question = ("What load has P-1?", ["tables/t.csv#P-1"])
    report = kb.fit([question])
    assert (report.questions, report.adopted) == (1, False)
    assert kb.as_retriever().weights == plain
    fitted = kb.as_retriever(weights=(0.25, 0.75)).weights
    monkeypatch.setattr(
        HybridRetriever, "fit", lambda *_, **__: replace(report, adopted=True, weights=fitted)
    )
    kb.fit([question])
    assert kb.as_retriever().weights == fitted != plain
    assert kb.as_retriever(weights=plain).weights == plain
    kb.close()
    reader = KnowledgeBase.open(tmp_path / "kb", embed_model=kb.embed_model, read_only=True)
    with reader, pytest.raises(StoreError, match="open for reading alone"):
        reader.fit([question])


def test_query_engine_looks_only_at_what_the_filters_let_through(
    kb: KnowledgeBase, folder: Path
) -> None:
    kb.add(folder)
    filters = MetadataFilters(filters=[MetadataFilter(key="cell:Load", value="3 t")])
    engine = kb.as_query_engine(MockLLM(), strategy="rag", filters=filters)
    sources = engine.query("What load has P-1?").source_nodes
    assert [source.node.metadata["source_id"] for source in sources] == ["tables/t.csv#P-2"]
    assert len(kb.as_query_engine(MockLLM(), strategy="rag").query("load").source_nodes) == 3


def test_progress_bar_is_shown_only_when_asked(
    kb: KnowledgeBase, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb.add(folder)
    assert capsys.readouterr().err == ""
    kb.refresh(folder, show_progress=True)
    assert "Indexing" in capsys.readouterr().err


def test_report_says_in_words_what_was_done() -> None:
    report = IngestReport(added=["a"], skipped=[(f"x{n}", "It is empty.") for n in range(25)])
    lines = str(report).split("\n")
    assert lines[0] == (
        "Documents: 1 added, 0 updated, 0 unchanged, 0 deleted, 25 skipped; 0 nodes written."
    )
    assert lines[1] == "  skipped x0: It is empty."
    assert lines[-1] == "  ... and 5 more skipped"
