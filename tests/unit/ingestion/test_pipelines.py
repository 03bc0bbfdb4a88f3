"""A LlamaIndex pipeline computes in place of this process, and the nodes are the same."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, Document, TransformComponent

from phi3_industry import KnowledgeBase
from phi3_industry.errors import ConfigurationError, IngestionError
from phi3_industry.ingestion import FileNodeParser, OutlineSummaries

SECTION = "# Pump P-7\n\nIts rated pressure is 12 bar.\n\n## Oil\n\nISO VG 46.\n"


class LetterEmbedding(BaseEmbedding):
    """Counts letters; another shift is another embedding."""

    shift: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        counts = [0.0] * 8
        for letter in text:
            counts[(ord(letter) * (1 + self.shift)) % 8] += 1.0
        return counts

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Shuffled(TransformComponent):
    """Gives nodes back in another order, as workers that compete do."""

    def __call__(self, nodes: Any, **_: Any) -> Any:
        return list(reversed(nodes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    root.mkdir()
    (root / "pump.md").write_text(SECTION)
    (root / "parts.csv").write_text("Tag,Pressure\nP-1,10 bar\nP-2,20 bar\n")
    return root


def opened(path: Path, **options: Any) -> KnowledgeBase:
    return KnowledgeBase.open(path, embed_model=LetterEmbedding(), **options)


def pipeline_for(base: KnowledgeBase, *others: Any, shift: int = 0) -> IngestionPipeline:
    parser = base.node_parser
    reads = FileNodeParser(max_tokens=parser.max_tokens, min_tokens=parser.min_tokens)
    steps = [reads, LetterEmbedding(shift=shift), *others]
    return IngestionPipeline(transformations=steps, disable_cache=True)


def contents(base: KnowledgeBase) -> dict[str, dict[str, Any]]:
    return {node.node_id: node.to_dict() for node in base.vector_store.get_nodes()}


def test_a_pipeline_gives_the_nodes_of_this_process_in_any_order(
    folder: Path, tmp_path: Path
) -> None:
    with opened(tmp_path / "one") as here, opened(tmp_path / "two") as there:
        here.add(folder)
        report = there.add(folder, pipeline=pipeline_for(there, Shuffled()))
        assert sorted(report.added) == ["parts.csv", "pump.md"]
        assert contents(there) == contents(here)
        assert len(contents(here)) == 4
        assert there.vector_store.document_hashes() == here.vector_store.document_hashes()


def test_only_what_changed_is_computed_again(folder: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    class Recorder(TransformComponent):
        def __call__(self, nodes: list[BaseNode], **_: Any) -> list[BaseNode]:
            seen.extend(sorted({node.ref_doc_id or "" for node in nodes}))
            return nodes

    with opened(tmp_path / "kb") as base:
        pipeline = pipeline_for(base, Recorder())
        base.refresh(folder, pipeline=pipeline)
        (folder / "pump.md").write_text(SECTION.replace("12 bar", "13 bar"))
        seen.clear()
        report = base.refresh(folder, pipeline=pipeline)
        assert (report.updated, report.unchanged, seen) == (["pump.md"], ["parts.csv"], ["pump.md"])
        (folder / "pump.md").unlink()
        assert base.refresh(folder, pipeline=pipeline).deleted == ["pump.md"]


def test_what_cannot_be_read_is_skipped_with_its_reason(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.xlsx").write_bytes(b"no workbook")
    with opened(tmp_path / "one") as here, opened(tmp_path / "two") as there:
        expected = here.add(folder).skipped
        assert there.add(folder, pipeline=pipeline_for(there)).skipped == expected
        assert [name for name, _ in expected] == ["broken.xlsx"]
        with pytest.raises(IngestionError, match=r"broken\.xlsx"):
            there.add(folder / "broken.xlsx", pipeline=pipeline_for(there))


def test_documents_of_llamaindex_are_sent_whole(tmp_path: Path) -> None:
    document = Document(text=SECTION, id_="pump", metadata={"title": "Pump", "site": "North"})
    with opened(tmp_path / "one") as here, opened(tmp_path / "two") as there:
        here.add(document)
        there.add(document, pipeline=pipeline_for(there))
        assert contents(there) == contents(here)
        assert document.metadata == {"title": "Pump", "site": "North"}


def test_another_embedding_is_refused(folder: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as base:
        with pytest.raises(ConfigurationError, match="vectors are not those"):
            base.add(folder, pipeline=pipeline_for(base, shift=1))
        assert base.documents == []


def test_other_settings_of_the_parser_are_refused(folder: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as base:
        steps = [FileNodeParser(max_tokens=100, min_tokens=50), LetterEmbedding()]
        with pytest.raises(ConfigurationError, match=r"splits by \[.*100, 50"):
            base.add(folder, pipeline=IngestionPipeline(transformations=steps))


def test_another_parser_and_no_embedding_are_refused(folder: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as base:
        with pytest.raises(ConfigurationError, match="begin with"):
            base.add(folder, pipeline=IngestionPipeline(transformations=[SentenceSplitter()]))
        alone = IngestionPipeline(transformations=[pipeline_for(base).transformations[0]])
        with pytest.raises(ConfigurationError, match="no vector"):
            base.add(folder, pipeline=alone)


def test_summaries_are_not_made_by_a_pipeline(folder: Path, tmp_path: Path) -> None:
    with (
        opened(tmp_path / "kb", summaries=OutlineSummaries()) as base,
        pytest.raises(ConfigurationError, match="without summaries"),
    ):
        base.add(folder, pipeline=pipeline_for(base))


def test_the_parser_travels_as_plain_values(folder: Path) -> None:
    parser = FileNodeParser(tokenizer="embedded", max_tokens=100, min_tokens=50)
    again = pickle.loads(pickle.dumps(parser))
    assert again.fingerprint == parser.fingerprint
    assert type(parser).from_dict(parser.to_dict()).fingerprint == parser.fingerprint
