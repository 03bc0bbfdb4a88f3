from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.schema import BaseNode, MetadataMode

from phi3_industry.errors import IngestionError
from phi3_industry.ingestion import (
    LLMSummaries,
    OutlineSummaries,
    SectionNodeParser,
    TextBlock,
    parse_document,
)
from phi3_industry.ingestion.summaries import as_summaries
from phi3_industry.knowledge_base import KnowledgeBase

MANUAL = "# Manual\n\n## Pump\n\nThe pump {runs}.\n\n## Valve\n\nIt closes.\n"


class Writer(CustomLLM):
    """Writes numbered summaries and keeps what it was asked."""

    asked: list[str] = []
    answer: str = "Summary"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="writer")

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        raise NotImplementedError

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.asked.append(prompt)
        text = f"{self.answer} {len(self.asked)}." if self.answer else " "
        return CompletionResponse(text=text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    root.mkdir()
    (root / "a.md").write_text(MANUAL)
    (root / "b.txt").write_text("Text of b.")
    return root


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    bases: list[KnowledgeBase] = []

    def open_with(summaries: object, **settings: Any) -> KnowledgeBase:
        if bases:
            bases.pop().close()
        embed_model = MockEmbedding(embed_dim=4)
        base = KnowledgeBase.open(
            tmp_path / "kb", embed_model=embed_model, summaries=summaries, **settings
        )
        bases.append(base)
        return base

    yield open_with
    bases.pop().close()


def nodes_of(kb: KnowledgeBase, name: str) -> list[BaseNode]:
    return [n for n in kb.vector_store.get_nodes() if n.ref_doc_id == name]


def test_outline_stands_above_each_passage_for_the_llm_and_not_for_the_embedding(
    opened: Any, folder: Path
) -> None:
    kb = opened("outline")
    kb.add(folder)
    first = nodes_of(kb, "a.md")[0]
    assert first.get_content(MetadataMode.LLM) == (
        "Manual > Pump\nThe pump {runs}. … Pump · Valve\nThe pump {runs}."
    )
    assert first.get_content(MetadataMode.EMBED) == "Manual > Pump\nThe pump {runs}."


def test_document_of_one_passage_needs_no_summary(opened: Any, folder: Path) -> None:
    llm = Writer(asked=[])
    kb = opened(llm)
    kb.add(folder)
    assert len(llm.asked) == 1
    assert "summary" not in nodes_of(kb, "b.txt")[0].metadata


def test_llm_is_asked_once_for_each_content(opened: Any, folder: Path) -> None:
    llm = Writer(asked=[])
    kb = opened(llm)
    kb.add(folder)
    assert kb.add(folder).nodes == 0
    assert [n.metadata["summary"] for n in nodes_of(kb, "a.md")] == ["Summary 1."] * 2
    # other settings shape other nodes; the content and so the summary are the same
    kb = opened(llm, node_parser=SectionNodeParser(max_tokens=64, min_tokens=32))
    assert kb.refresh(folder).updated == ["a.md", "b.txt"]
    assert len(llm.asked) == 1
    (folder / "a.md").write_text(MANUAL + "\nMore.")
    kb.refresh(folder)
    assert {n.metadata["summary"] for n in nodes_of(kb, "a.md")} == {"Summary 2."}


def test_summary_goes_with_its_document(opened: Any, folder: Path, tmp_path: Path) -> None:
    kb = opened(Writer(asked=[], answer="Unmistakable"))
    kb.add(folder)
    kb.delete("a.md")
    kb.vector_store.close()
    stored = b"".join(file.read_bytes() for file in (tmp_path / "kb").glob("store.sqlite*"))
    assert "Unmistakable" not in str([n.metadata for n in kb.vector_store.get_nodes()])
    assert b"Text of b." in stored


def test_turning_summaries_off_takes_them_away(opened: Any, folder: Path) -> None:
    opened("outline").add(folder)
    kb = opened(None)
    kb.refresh(folder)
    assert all("summary" not in n.metadata for n in kb.vector_store.get_nodes())


def test_prompt_is_the_users_and_braces_are_no_fields(opened: Any, folder: Path) -> None:
    llm = Writer(asked=[])
    kb = opened(LLMSummaries(llm, prompt="{x} Сократи: {document}", max_input_tokens=8))
    kb.add(folder)
    assert llm.asked[0].startswith("{x} Сократи: Manual")
    assert "closes" not in llm.asked[0]
    with pytest.raises(ValueError, match=r"no place for '\{document\}'"):
        LLMSummaries(llm, prompt="Sum it up.")


def test_document_without_its_summary_is_skipped_and_tried_again(opened: Any, folder: Path) -> None:
    kb = opened(Writer(asked=[], answer=""))
    report = kb.add(folder)
    assert (report.added, report.skipped[0][0]) == (["b.txt"], "a.md")
    with pytest.raises(IngestionError, match=r"'a\.md': Its summary is empty"):
        kb.add(folder / "a.md")
    assert opened(Writer(asked=[])).add(folder).added == ["a.md"]


def test_what_summaries_can_be() -> None:
    assert as_summaries(None) is None
    assert as_summaries("outline") == OutlineSummaries()
    assert isinstance(as_summaries(MockLLM()), LLMSummaries)
    with pytest.raises(TypeError, match="summaries is 'yes'; it can be None, 'outline'"):
        as_summaries("yes")


def test_outline_of_a_table_without_a_name_is_its_columns() -> None:
    document = parse_document(b"Tag,Load\nP-1,2\nP-2,3\n", name="a.csv")
    assert OutlineSummaries().summarise("", document.blocks) == "Tag, Load"


def test_outline_of_a_script_without_spaces_is_cut() -> None:
    blocks = [TextBlock(section=("操作",), text="水泵" * 900)]
    outline = OutlineSummaries(max_chars=100).summarise("", blocks)
    assert outline.startswith("水泵")
    assert outline.endswith("操作")
    assert len(outline) <= 100
