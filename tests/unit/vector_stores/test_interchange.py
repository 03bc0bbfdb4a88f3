"""LlamaIndex's FAISS store comes over whole or not at all, and goes back."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from llama_index.core import (
    MockEmbedding,
    StorageContext,
    VectorStoreIndex,
    load_index_from_storage,
)
from llama_index.core.schema import NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.faiss import FaissVectorStore

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores import FaissSQLiteVectorStore

VECTORS = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
QUERY = [0.5, -1.0, 2.0, 0.1]


def index_of(kind: faiss.Index, vectors: np.ndarray = VECTORS) -> VectorStoreIndex:
    nodes = [
        TextNode(
            id_=f"n{number}",
            text=f"text {number}",
            embedding=vector.tolist(),
            metadata={"number": number, "tags": ["a", number]},
            relationships={
                NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"d{number // 3}"),
                NodeRelationship.NEXT: RelatedNodeInfo(node_id=f"n{number + 1}"),
            },
        )
        for number, vector in enumerate(vectors)
    ]
    context = StorageContext.from_defaults(vector_store=FaissVectorStore(faiss_index=kind))
    return VectorStoreIndex(
        nodes, storage_context=context, embed_model=MockEmbedding(4), store_nodes_override=True
    )


def found(index: VectorStoreIndex) -> list[str]:
    hits = index.as_retriever(similarity_top_k=12).retrieve(QueryBundle("", embedding=QUERY))
    return [hit.node.node_id for hit in hits]


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        (faiss.IndexFlatL2(4), "l2"),
        (faiss.IndexFlatIP(4), "ip"),
        (faiss.IndexHNSWFlat(4, 8), "l2"),
    ],
)
def test_an_index_comes_over_with_all_that_it_has(folder, kind, metric):
    index = index_of(kind)
    with FaissSQLiteVectorStore.from_llamaindex(index, folder, identity={"m": 1}) as store:
        assert (store.metric, store.count, store.stored_identity) == (metric, 12, {"m": 1})
        result = store.query(VectorStoreQuery(QUERY, similarity_top_k=12))
        assert result.ids == found(index)
        assert result.similarities == sorted(result.similarities, reverse=True)
        for node in store.get_nodes():
            original = index.docstore.get_document(node.node_id)
            assert node == original
            assert node.ref_doc_id == f"d{int(node.node_id[1:]) // 3}"


def test_a_store_goes_back_and_comes_again(folder, tmp_path, node):
    with FaissSQLiteVectorStore(folder, metric="l2") as store:
        store.add([node(f"n{i}", list(map(float, vector))) for i, vector in enumerate(VECTORS)])
        store.delete_nodes(["n4"])
        context = store.to_llamaindex()
        expected = store.query(VectorStoreQuery(QUERY, similarity_top_k=12)).ids
    context.persist(str(tmp_path / "llamaindex"))
    loaded = StorageContext.from_defaults(
        persist_dir=str(tmp_path / "llamaindex"),
        vector_store=FaissVectorStore.from_persist_dir(str(tmp_path / "llamaindex")),
    )
    index = load_index_from_storage(loaded, embed_model=MockEmbedding(4))
    assert found(index) == expected
    with FaissSQLiteVectorStore.from_llamaindex(index, tmp_path / "again") as again:
        assert again.query(VectorStoreQuery(QUERY, similarity_top_k=12)).ids == expected


def test_another_metric_is_taken_only_where_the_order_is_the_same(tmp_path):
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    index = index_of(faiss.IndexFlatL2(4), unit)
    with FaissSQLiteVectorStore.from_llamaindex(index, tmp_path / "a", metric="cosine") as store:
        assert store.query(VectorStoreQuery(QUERY, similarity_top_k=12)).ids == found(index)
    with pytest.raises(StoreError, match="'cosine' would rank them otherwise"):
        FaissSQLiteVectorStore.from_llamaindex(
            index_of(faiss.IndexFlatL2(4)), tmp_path / "b", metric="cosine"
        )


def damaged(kind: str) -> VectorStoreIndex:
    index = index_of(faiss.IndexFlatL2(4))
    if kind == "a vector too many":
        index.vector_store.client.add(VECTORS[:1])
    elif kind == "a node twice":
        index.insert_nodes(
            [
                index.docstore.get_document("n3").model_copy(
                    update={"embedding": VECTORS[3].tolist()}
                )
            ]
        )
    elif kind == "a node missing":
        index.docstore.delete_document("n5")
    elif kind == "compressed":
        compressed = faiss.IndexScalarQuantizer(4, faiss.ScalarQuantizer.QT_8bit)
        compressed.train(VECTORS)
        index = index_of(compressed)
    elif kind == "another metric":
        index = index_of(faiss.IndexFlat(4, faiss.METRIC_L1))
    return index


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a vector too many", "13 vectors and the index structure names 12"),
        ("a node twice", "'n3' has several vectors"),
        ("a node missing", "'n5', which the docstore does not have"),
        ("compressed", "IndexScalarQuantizer, from which exact vectors cannot be read"),
        ("another metric", "only inner product and L2"),
    ],
)
def test_what_cannot_be_right_is_refused_and_nothing_is_stored(folder: Path, kind, message):
    with pytest.raises(StoreError, match=message):
        FaissSQLiteVectorStore.from_llamaindex(damaged(kind), folder)
    assert FaissSQLiteVectorStore(folder).count == 0


def test_another_kind_of_store_and_a_full_folder_are_refused(folder, node):
    plain = VectorStoreIndex([], embed_model=MockEmbedding(4))
    with pytest.raises(StoreError, match="over a SimpleVectorStore"):
        FaissSQLiteVectorStore.from_llamaindex(plain, folder)
    with FaissSQLiteVectorStore(folder, metric="l2") as store:
        store.add([node("a", [1, 0, 0, 0])])
    with pytest.raises(StoreError, match=r"There is a store in .* already"):
        FaissSQLiteVectorStore.from_llamaindex(index_of(faiss.IndexFlatL2(4)), folder)


def test_an_empty_store_has_nothing_to_export(store):
    with pytest.raises(StoreError, match="nothing to export"):
        store.to_llamaindex()
