"""From our own store to another one and back: nothing is lost, and the stores are compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from stores_under_test import MAKERS, StoreMaker, WordEmbedding, word_vector

from phi3_industry import FaissSQLiteVectorStore, KnowledgeBase
from phi3_industry.cli import main
from phi3_industry.errors import StoreError, StoreIdentityError
from phi3_industry.vector_stores.others import (
    RegisteredVectorStore,
    open_store,
    transfer,
    vector_store_from_url,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
]

OTHERS = [
    pytest.param(kind, marks=() if kind.startswith("qdrant") else pytest.mark.servers)
    for kind, make in MAKERS.items()
    if make is not None
]


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    root.mkdir()
    for number in range(6):
        sections = "\n\n".join(f"## S{n}\n\n泵 {number} Größe {n}." for n in range(50))
        (root / f"{number}.md").write_text(f"# Handbuch {number}\n\n{sections}")
    (root / "t.csv").write_text("Tag,Load [t]\nP-1,2\nP-2,3.5\n")
    return root


@pytest.fixture
def source(tmp_path: Path, documents: Path) -> Iterator[FaissSQLiteVectorStore]:
    """A knowledge base with documents, nodes of a document without a hash, and nodes of none."""
    embed_model = WordEmbedding()
    with KnowledgeBase.open(tmp_path / "source", embed_model=embed_model) as kb:
        kb.add(documents)
        of: Any = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="by hand", metadata={"a": 1})}
        others: list[Any] = [
            TextNode(
                id_=f"n{n}", text=f"note {n}\n", relationships=of, embedding=word_vector("note")
            )
            for n in range(300)
        ]
        others.append(IndexNode(id_="index", text="of all", index_id="all"))
        others[-1].embedding = word_vector("all")
        kb.vector_store.add(others)
        yield kb.vector_store


@pytest.mark.parametrize("maker", OTHERS, indirect=True)
def test_there_and_back_loses_nothing(
    maker: StoreMaker, source: FaissSQLiteVectorStore, documents: Path, tmp_path: Path
) -> None:
    identity = source.stored_identity
    with open_store(tmp_path / "there", vector_store=maker(), identity=identity) as there:
        gone = transfer(source, there)
        assert (gone.nodes, gone.written, gone.documents) == (603, 603, 8)
        assert gone.largest_difference < 1e-6
        again = transfer(source, there)
        assert (again.written, again.digest) == (0, gone.digest)
        with open_store(tmp_path / "back", identity=identity) as back:
            assert transfer(there, back).digest == gone.digest
            assert back.document_hashes() == source.document_hashes() == there.document_hashes()
    embed_model = WordEmbedding()
    for folder, store in (("there", maker()), ("back", None)):
        with KnowledgeBase.open(
            tmp_path / folder, embed_model=embed_model, vector_store=store
        ) as kb:
            assert len(kb.add(documents).unchanged) == 7
            assert kb.as_retriever().retrieve("泵 3 Größe 7")
    assert embed_model.embedded == 0


@pytest.mark.parametrize("maker", OTHERS, indirect=True)
def test_an_interrupted_transfer_goes_on(
    maker: StoreMaker, source: FaissSQLiteVectorStore, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    identity = source.stored_identity
    writes = 0
    with pytest.MonkeyPatch.context() as patch:
        write = RegisteredVectorStore._put

        def dies(store: Any, *arguments: Any, **settings: Any) -> None:
            nonlocal writes
            writes += 1
            write(store, *arguments, **settings)
            if writes == 4:
                raise Killed

        patch.setattr(RegisteredVectorStore, "_put", dies)
        with (
            open_store(tmp_path / "there", vector_store=maker(), identity=identity) as there,
            pytest.raises(Killed),
        ):
            transfer(source, there)
    with open_store(tmp_path / "there", vector_store=maker(), identity=identity) as there:
        report = transfer(source, there)
        assert report.nodes == 603
        assert 0 < report.written < 603


@pytest.fixture
def qdrant(tmp_path: Path) -> Iterator[StoreMaker]:
    made = StoreMaker("qdrant", tmp_path, None)
    yield made
    made.close()


def test_stores_that_do_not_fit_are_refused(
    qdrant: StoreMaker, source: FaissSQLiteVectorStore, tmp_path: Path
) -> None:
    with (
        open_store(tmp_path / "there", vector_store=qdrant()) as nameless,
        pytest.raises(StoreError, match="Open it with identity=source"),
    ):
        transfer(source, nameless)
    other = {**(source.stored_identity or {}), "embedding_model": "another"}
    with (
        open_store(tmp_path / "there", vector_store=qdrant(), identity=other) as strange,
        pytest.raises(StoreIdentityError, match="another"),
    ):
        transfer(source, strange)
    identity = source.stored_identity
    with open_store(tmp_path / "there", vector_store=qdrant(), identity=identity) as there:
        there.add([TextNode(text="x", embedding=word_vector("x"))])
        there.replace_document("stranger", "hash", [])
        with pytest.raises(StoreError, match=r"1 documents that .* has not, such as 'stranger'"):
            transfer(source, there)
    with (
        FaissSQLiteVectorStore(tmp_path / "l2", metric="l2") as l2,
        open_store(tmp_path / "other", vector_store=qdrant("b")) as cosine,
        pytest.raises(StoreError, match=r"compares by 'l2' and .* by 'cosine'"),
    ):
        transfer(l2, cosine)


def test_what_was_changed_in_between_is_noticed(
    qdrant: StoreMaker, source: FaissSQLiteVectorStore, tmp_path: Path
) -> None:
    identity = source.stored_identity
    with open_store(tmp_path / "there", vector_store=qdrant(), identity=identity) as there:
        transfer(source, there)
        node = there.nodes_with_vectors(["n7"])[0]
        node.set_content("changed")
        there.add([node])
        with pytest.raises(StoreError, match="'n7' has another text"):
            transfer(source, there)
        node.set_content("note 7\n")
        node.embedding = word_vector("something else")
        there.add([node])
        with pytest.raises(StoreError, match="'n7' has a vector that differs by"):
            transfer(source, there)
        node.embedding = word_vector("note")
        there.add([node])
        assert transfer(source, there).written == 0
        there.add([TextNode(text="loose", embedding=word_vector("x"))])
        with pytest.raises(StoreError, match=r"603 nodes were compared; .* 604\. Was one"):
            transfer(source, there)


def test_the_command_copies_and_prints_what_both_hold(
    source: FaissSQLiteVectorStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"qdrant:{tmp_path / 'folder'}?collection=kb"
    copies = [
        ["transfer", source.path, str(tmp_path / "there"), "--to", address],
        ["transfer", str(tmp_path / "there"), str(tmp_path / "back"), "--from", address],
    ]
    source.close()
    printed = []
    for arguments in copies:
        assert main(arguments) == 0
        printed.append(capsys.readouterr().out)
    assert "8 documents, 603 nodes in both, 603 of them written now." in printed[0]
    assert printed[0].partition("Vectors")[0] == printed[1].partition("Vectors")[0]
    assert main(["transfer", str(tmp_path / "none"), str(tmp_path / "x")]) == 1
    assert "There is no knowledge base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("mysql://a/b?table=x", "is no address of a vector store"),
        ("qdrant:folder", "needs 'collection'"),
        ("qdrant:folder?collection=a&x=1", "takes no other"),
        ("postgresql://a/b?table=x&collection=y", r"takes \['hnsw', 'words'\]"),
    ],
)
def test_addresses_that_say_nothing_are_refused(address: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        vector_store_from_url(address, dimensions=None)


@pytest.mark.servers
def test_stores_are_made_by_their_addresses(postgres: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="How long are the vectors"):
        vector_store_from_url(f"{postgres.url}?table=t", dimensions=None)
    for number, address in enumerate(
        [
            f"{postgres.url}?table=by_address&words=simple&hnsw=yes",
            f"chroma:{tmp_path / 'chroma'}?collection=by-address",
        ]
    ):
        made: Any = vector_store_from_url(address, dimensions=64)
        with open_store(tmp_path / str(number), vector_store=made) as store:
            store.add([TextNode(id_="n", text="pump", embedding=word_vector("pump"))])
            assert [node.node_id for node in store.get_nodes()] == ["n"]
            assert store.supports_text_search is ("words" in address)
        if "postgresql" in address:
            made.client.dispose()
            bare = vector_store_from_url(f"{postgres.url}?table=by_address", dimensions=64)
            with pytest.raises(StoreError, match=r"has an HNSW index.*Say hnsw=yes in the address"):
                open_store(tmp_path / str(number), vector_store=bare)
            bare.client.dispose()
