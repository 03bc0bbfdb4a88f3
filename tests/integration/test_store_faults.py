"""A database that dies while documents are added: an error or a second try, and nothing lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from stores_under_test import EMBED_DIM, StoreMaker, WordEmbedding, word_vector

from phi3_industry import KnowledgeBase
from phi3_industry.errors import StoreError

pytestmark = pytest.mark.servers

DOCUMENTS = 12
SECTIONS = 40


SERVERS = pytest.mark.parametrize("maker", ["pgvector", "chroma-server"], indirect=True)
POSTGRES = pytest.mark.parametrize("maker", ["pgvector"], indirect=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    root.mkdir()
    for number in range(DOCUMENTS):
        sections = "\n\n".join(f"## S{n}\n\nPump {number} part {n}." for n in range(SECTIONS))
        (root / f"{number}.md").write_text(f"# Manual {number}\n\n{sections}")
    return root


class MeetsADeath(WordEmbedding):
    """Kills the server when it has embedded some texts; starts it again if it is to."""

    server: Any = None
    after: int = 0
    restart_after_s: float | None = None
    killed: bool = False

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = super()._get_text_embedding(text)
        if self.server is not None and self.embedded >= self.after and not self.killed:
            self.killed = True
            self.server.kill()
            if self.restart_after_s is not None:
                threading.Timer(self.restart_after_s, self.server.start).start()
        return vector


def opened(maker: StoreMaker, embed_model: Any, *, waits: tuple[float, ...]) -> KnowledgeBase:
    kb = KnowledgeBase.open(maker.folder / "kb", embed_model=embed_model, vector_store=maker())
    kb.vector_store.retry_waits_s = waits
    return kb


def check_that_all_is_there(kb: KnowledgeBase) -> None:
    assert len(kb.documents) == DOCUMENTS
    assert kb.vector_store.unfinished_documents() == set()
    query = VectorStoreQuery(query_embedding=word_vector("pump"), similarity_top_k=10_000)
    held = kb.vector_store.vector_store.query(query).ids
    assert len(held) == len(set(held)) == DOCUMENTS * SECTIONS == kb.vector_store.count
    texts = {node.get_content() for node in kb.vector_store.get_nodes()}
    assert texts == {f"Pump {i} part {n}." for i in range(DOCUMENTS) for n in range(SECTIONS)}


@SERVERS
def test_a_server_that_died_is_an_error_and_the_next_run_completes(
    maker: StoreMaker, folder: Path
) -> None:
    dying = MeetsADeath(
        dimensions=EMBED_DIM, server=maker.server, after=DOCUMENTS * SECTIONS * 2 // 3
    )
    with opened(maker, dying, waits=(0.1,)) as kb:
        with pytest.raises(StoreError, match=r"(?s)could not be reached in 2 tries .* completes"):
            kb.add(folder)
        finished = len(kb.vector_store.ref_doc_ids()) - len(kb.vector_store.unfinished_documents())
        assert 0 < finished < DOCUMENTS
    maker.server.start()
    with opened(maker, WordEmbedding(dimensions=EMBED_DIM), waits=(0.1,)) as kb:
        report = kb.add(folder)
        assert len(report.unchanged) == finished  # what was acknowledged is not done twice
        check_that_all_is_there(kb)


@SERVERS
def test_a_server_that_comes_back_is_waited_for(maker: StoreMaker, folder: Path) -> None:
    dying = MeetsADeath(
        dimensions=EMBED_DIM,
        server=maker.server,
        after=DOCUMENTS * SECTIONS * 2 // 3,
        restart_after_s=0.5,
    )
    with opened(maker, dying, waits=(0.5,) * 60) as kb:
        assert len(kb.add(folder).added) == DOCUMENTS
        assert dying.killed
        check_that_all_is_there(kb)


@POSTGRES
def test_a_server_killed_inside_a_write_leaves_nothing_twice(
    maker: StoreMaker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llama_index.vector_stores.postgres import PGVectorStore

    build_row = PGVectorStore._node_to_table_row
    rows = 0

    def kill_in_the_middle(store: Any, node: Any) -> Any:
        nonlocal rows
        rows += 1
        if rows == 100:  # inside a transaction of 40 rows
            maker.server.kill()
            maker.server.start()
        return build_row(store, node)

    monkeypatch.setattr(PGVectorStore, "_node_to_table_row", kill_in_the_middle)
    with opened(maker, WordEmbedding(dimensions=EMBED_DIM), waits=(0.1, 0.1)) as kb:
        kb.add(folder)
        assert rows > DOCUMENTS * SECTIONS  # some were written in two tries
        check_that_all_is_there(kb)


@POSTGRES
def test_a_server_that_is_down_from_the_start_is_an_error(maker: StoreMaker, folder: Path) -> None:
    maker.server.kill()
    with opened(maker, WordEmbedding(dimensions=EMBED_DIM), waits=()) as kb:
        with pytest.raises(StoreError, match="could not be reached in 1 tries"):
            kb.add(folder)
        maker.server.start()
        assert len(kb.add(folder).added) == DOCUMENTS
        check_that_all_is_there(kb)
