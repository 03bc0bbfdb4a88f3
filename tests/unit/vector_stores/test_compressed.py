"""A large store is searched in compressed form, where that was measured to find what is near."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery

from phi3_industry.vector_stores import FaissSQLiteVectorStore, compressed

COUNT, DIMENSIONS = 1500, 15  # an odd number of dimensions: pairs need one more


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Let a store of some hundred nodes be a large one, and a filter of some twenty rows wide."""
    monkeypatch = pytest.MonkeyPatch()
    for module in ("vector_index", "accelerator"):
        monkeypatch.setattr(f"phi3_industry.vector_stores.{module}.FLAT_UP_TO", 700)
    monkeypatch.setattr("phi3_industry.vector_stores.search._SCANNED_ROWS", 20)
    yield
    monkeypatch.undo()


def manifold(count: int, seed: int = 0) -> np.ndarray:
    """Points on a surface of few dimensions, as embeddings are."""
    numbers = np.random.default_rng(seed)
    basis = np.random.default_rng(99).standard_normal((5, DIMENSIONS))
    points = numbers.standard_normal((count, 5)) @ basis
    return points + 0.1 * numbers.standard_normal((count, DIMENSIONS))


def nodes(vectors: np.ndarray, *, first: int = 0) -> Iterator[TextNode]:
    for number, vector in enumerate(vectors, start=first):
        yield TextNode(
            id_=f"n{number}",
            text=f"text {number}",
            embedding=vector.tolist(),
            metadata={"third": number % 3, "tenth": number % 10},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"d{number // 2}")},
        )


def exact(vectors: np.ndarray, query: np.ndarray, *, metric: str, k: int = 10) -> list[str]:
    if metric == "l2":
        values = -np.linalg.norm(vectors - query, axis=1)
    elif metric == "ip":
        values = vectors @ query
    else:
        values = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ query
    return [f"n{number}" for number in np.argsort(-values)[:k]]


def recall(
    store: FaissSQLiteVectorStore, vectors: np.ndarray, wanted: Callable[[np.ndarray], list[str]]
) -> float:
    shares = []
    for query in vectors:
        result = store.query(VectorStoreQuery(query.tolist(), similarity_top_k=10))
        shares.append(len(set(result.ids) & set(wanted(query))) / 10)
    return float(np.mean(shares))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_large_store_finds_what_an_exact_search_finds(folder, metric):
    vectors, queries = manifold(COUNT), manifold(50, seed=1)
    with FaissSQLiteVectorStore(folder, metric=metric) as store:
        store.add(nodes(vectors))
        assert recall(store, queries, lambda query: exact(vectors, query, metric=metric)) >= 0.98
        assert store.index_kind == "pq_fastscan"
        assert 0.99 <= store.index_recall <= 1.0
        first = store.query(VectorStoreQuery(queries[0].tolist(), similarity_top_k=10))
        assert len(store.query(VectorStoreQuery(queries[0].tolist(), similarity_top_k=999)).ids)
    with FaissSQLiteVectorStore(folder, read_only=True) as reader:
        report = reader.verify()
        assert (report.index_kind, report.index_file) == ("pq_fastscan", "intact")
        assert report.index_recall >= 0.99
        again = reader.query(VectorStoreQuery(queries[0].tolist(), similarity_top_k=10))
        assert (again.ids, again.similarities) == (first.ids, first.similarities)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "store"
    with FaissSQLiteVectorStore(folder) as store:
        store.add(nodes(manifold(COUNT)))
        store.persist()
    return folder


@pytest.fixture
def large(written: Path, folder: Path) -> Iterator[FaissSQLiteVectorStore]:
    shutil.copytree(written, folder)
    with FaissSQLiteVectorStore(folder) as store:
        yield store


def where(**values: int) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=k, value=v) for k, v in values.items()])


def test_similarities_are_exact_though_the_vectors_are_compressed(large):
    vectors = manifold(COUNT)
    result = large.query(VectorStoreQuery(vectors[7].tolist(), similarity_top_k=5))
    assert result.ids[0] == "n7"
    assert result.similarities[0] == pytest.approx(1.0, abs=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [float(unit[int(node_id[1:])] @ unit[7]) for node_id in result.ids]
    assert result.similarities == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        (where(third=1), lambda n: n % 3 == 1),  # through the compressed index
        (where(third=1, tenth=4), lambda n: n % 3 == 1 and n % 10 == 4),
        (where(third=5), lambda n: False),
    ],
)
def test_filters_are_exact_at_any_width(large, filters, allowed):
    vectors = manifold(COUNT)
    shares = []
    for query in manifold(20, seed=2):
        result = large.query(VectorStoreQuery(query.tolist(), similarity_top_k=10, filters=filters))
        assert all(allowed(int(node_id[1:])) for node_id in result.ids)
        wanted = [n for n in exact(vectors, query, metric="cosine", k=COUNT) if allowed(int(n[1:]))]
        assert len(result.ids) == min(10, len(wanted))
        shares.append(len(set(result.ids) & set(wanted[:10])) / 10 if wanted else 1.0)
    assert np.mean(shares) >= 0.98


def test_rows_that_come_and_go_are_followed_without_building_anew(large, folder, monkeypatch):
    large.query(VectorStoreQuery([1.0] * DIMENSIONS))

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("built anew")

    monkeypatch.setattr("phi3_industry.vector_stores.vector_index.compress", forbidden)
    vectors = manifold(COUNT + 30)
    large.add(nodes(vectors[COUNT:], first=COUNT))
    large.delete("d3")  # n6 and n7, of the compressed part
    large.delete_nodes([f"n{COUNT + 1}"])  # of the part that is not
    large.add(nodes(vectors[10:11] + 5, first=10))  # n10 moves
    large.persist()  # too little has changed for a new file
    with FaissSQLiteVectorStore(folder, read_only=True) as reader:
        for store in (large, reader):
            assert store.count == COUNT + 27
            assert store.index_kind == "pq_fastscan"
            result = store.query(VectorStoreQuery(vectors[7].tolist(), similarity_top_k=50))
            assert not {"n6", "n7", f"n{COUNT + 1}"} & set(result.ids)
            for number, vector in ((COUNT + 5, vectors[COUNT + 5]), (10, vectors[10] + 5)):
                near = store.query(VectorStoreQuery(vector.tolist(), similarity_top_k=1))
                assert near.ids == [f"n{number}"]
            every = store.query(VectorStoreQuery(vectors[0].tolist(), similarity_top_k=10**6))
            assert len(set(every.ids)) == len(every.ids) == COUNT + 27


def test_much_change_is_compressed_again(large, folder):
    (before,) = folder.glob("vectors.*.faiss")
    large.add(nodes(manifold(COUNT // 2, seed=3), first=COUNT))
    large.persist()
    (after,) = folder.glob("vectors.*.faiss")
    assert after != before
    large.delete_nodes([f"n{number}" for number in range(COUNT)])
    large.persist()
    (last,) = folder.glob("vectors.*.faiss")
    assert last != after
    assert large.verify().count == COUNT // 2
    assert len(large.query(VectorStoreQuery([1.0] * DIMENSIONS, similarity_top_k=9)).ids) == 9


def test_vectors_that_cannot_be_compressed_well_are_compared_exactly(folder, monkeypatch, caplog):
    monkeypatch.setattr(compressed, "_FACTORS", (1,))  # so few candidates are never enough
    vectors, queries = manifold(COUNT), manifold(20, seed=1)
    with FaissSQLiteVectorStore(folder) as store, caplog.at_level(logging.WARNING):
        store.add(nodes(vectors))
        assert recall(store, queries, lambda query: exact(vectors, query, metric="cosine")) == 1.0
        assert (store.index_kind, store.index_recall) == ("flat", 1.0)
    assert "all are compared instead" in caplog.text
    with FaissSQLiteVectorStore(folder, read_only=True) as reader:
        assert reader.verify().index_kind == "flat"


def test_measured_recall_is_that_of_an_exact_search(large):
    """The measure itself: what it says about the store's own vectors is so."""
    vectors = manifold(COUNT)
    found = []
    for number in range(0, COUNT, 10):
        result = large.query(VectorStoreQuery(vectors[number].tolist(), similarity_top_k=11))
        wanted = exact(vectors, vectors[number], metric="cosine", k=11)[1:]
        found.append(len(set(result.ids) & set(wanted)) / 10)
    assert np.mean(found) == pytest.approx(large.index_recall, abs=0.01)


@pytest.mark.parametrize("damage", ["flip", "truncate", "swap"])
def test_a_damaged_compressed_file_is_never_used(large, folder, tmp_path, damage, caplog):
    query = VectorStoreQuery(manifold(1, seed=5)[0].tolist(), similarity_top_k=10)
    expected = large.query(query)
    large.close()
    (path,) = folder.glob("vectors.*.faiss")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "truncate":
        del data[-1]
    else:
        with FaissSQLiteVectorStore(tmp_path / "other") as other:
            other.add(nodes(manifold(COUNT, seed=8)))
        data = bytearray((tmp_path / "other" / path.name).read_bytes())
    path.write_bytes(data)
    with FaissSQLiteVectorStore(folder) as store:
        assert store.verify().index_file == "damaged"
        found = store.query(query)
        assert (found.ids, found.similarities) == (expected.ids, expected.similarities)
        assert "is damaged. It is rebuilt" in caplog.text
    with FaissSQLiteVectorStore(folder) as healed:  # closing has written it anew
        assert healed.verify().index_file == "intact"
