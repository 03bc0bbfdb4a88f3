"""Cosine, inner product and L2: higher is better in every mode, and the metric is identity."""

from __future__ import annotations

import math

import pytest
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeWithScore
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.errors import StoreIdentityError
from phi3_industry.vector_stores import FaissSQLiteVectorStore
from phi3_industry.vector_stores.similarity import prepared

# Worked by hand for the query (2, 0).
EXPECTED = {
    "cosine": {"long": 1.0, "near": 1.0, "diagonal": math.sqrt(0.5), "up": 0.0},
    "ip": {"long": 20.0, "near": 4.0, "diagonal": 2.0, "up": 0.0},
    "l2": {
        "near": 1.0,
        "diagonal": 1 / (1 + math.sqrt(2)),
        "up": 1 / (1 + math.sqrt(8)),
        "long": 1 / 9,
    },
}
VECTORS = {"up": [0, 2], "diagonal": [1, 1], "near": [2, 0], "long": [10, 0]}


@pytest.fixture(params=sorted(EXPECTED))
def any_store(request, folder, node):
    with FaissSQLiteVectorStore(folder, metric=request.param) as store:
        store.add([node(name, vector, text=f"word{name}") for name, vector in VECTORS.items()])
        yield store


def ask(store, vector=(2.0, 0.0), k=4, **more):
    return store.query(VectorStoreQuery(list(vector), similarity_top_k=k, **more))


@pytest.mark.parametrize("way", ["index", "scan"])
def test_similarities_are_those_worked_by_hand(any_store, way):
    more = {"node_ids": list(VECTORS)} if way == "scan" else {}
    result = ask(any_store, **more)
    found = dict(zip(result.ids, result.similarities, strict=True))
    assert found == pytest.approx(EXPECTED[any_store.metric], abs=1e-6)
    assert result.similarities == sorted(result.similarities, reverse=True)


def test_a_cut_off_keeps_the_best(any_store):
    result = ask(any_store)
    expected = EXPECTED[any_store.metric]
    cutoff = sorted(expected.values())[1] + 1e-4
    pairs = zip(result.nodes, result.similarities, strict=True)
    hits = [NodeWithScore(node=found, score=score) for found, score in pairs]
    kept = SimilarityPostprocessor(similarity_cutoff=cutoff).postprocess_nodes(hits)
    assert {hit.node_id for hit in kept} == {n for n, value in expected.items() if value > cutoff}
    assert 0 < len(kept) < 4


def test_fusion_and_mmr_work_with_every_metric(any_store):
    best = ask(any_store, k=1).ids[0]
    hybrid = ask(any_store, mode="hybrid", query_str=f"word{best}")
    assert hybrid.ids[0] == best
    similar = ask(any_store, mode="mmr", mmr_threshold=1.0)
    assert similar.similarities == ask(any_store).similarities
    diverse = ask(any_store, mode="mmr", mmr_threshold=0.0, k=2)
    assert diverse.ids[0] in ("near", "long")
    # what is least like the first choice comes next
    assert diverse.ids[1] == ("long" if any_store.metric == "l2" else "up")


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_a_zero_vector_is_a_vector_where_length_counts(folder, node, metric):
    with FaissSQLiteVectorStore(folder, metric=metric) as store:
        store.add([node("zero", [0, 0]), node("one", [1, 0])])
        result = ask(store, (0.0, 0.0))
        found = dict(zip(result.ids, result.similarities, strict=True))
        expected = {"ip": {"zero": 0.0, "one": 0.0}, "l2": {"zero": 1.0, "one": 0.5}}
        assert found == pytest.approx(expected[metric])


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_numbers_whose_squares_overflow_are_refused(folder, node, metric):
    with FaissSQLiteVectorStore(folder, metric=metric) as store:
        with pytest.raises(ValueError, match="as large as 1e\\+30, whose squares 32 bits cannot"):
            store.add([node("huge", [1e30, 0])])
        store.add([node("large", [1e17, 0])])
        assert all(math.isfinite(value) for value in ask(store, (-1e17, 1e17)).similarities)
        for bad in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="NaN or infinity"):
                ask(store, (bad, 0.0))


def test_vectors_are_kept_as_given_unless_compared_by_cosine():
    for metric, expected in (("cosine", [0.6, 0.8]), ("ip", [3, 4]), ("l2", [3, 4])):
        vector = prepared([3, 4], metric=metric, dimensions=2, what="It")
        assert vector.tolist() == pytest.approx(expected)


def test_the_metric_is_part_of_the_identity(folder, node):
    with FaissSQLiteVectorStore(folder, metric="l2") as store:
        store.add([node("a", [1, 0])])
    with FaissSQLiteVectorStore(folder) as store:
        assert store.metric == "l2"
        store.rebuild()
        assert ask(store, (1.0, 1.0)).similarities == pytest.approx([0.5])
    with pytest.raises(StoreIdentityError, match="metric: the store has 'l2', given was 'cosine'"):
        FaissSQLiteVectorStore(folder, metric="cosine")
    assert FaissSQLiteVectorStore.from_path(folder, read_only=True, metric="l2").metric == "l2"


def test_an_unknown_metric_is_refused(folder):
    with pytest.raises(ValueError, match="'dot'; it must be one of cosine, ip, l2"):
        FaissSQLiteVectorStore(folder, metric="dot")


def test_a_cleared_store_keeps_its_metric_and_a_new_one_may_choose(folder, node):
    with FaissSQLiteVectorStore(folder, metric="ip") as store:
        store.add([node("a", [1, 0])])
        store.clear()
        store.add([node("b", [3, 0])])
        assert ask(store, (2.0, 0.0)).similarities == [6.0]
        store.clear()
    with FaissSQLiteVectorStore(folder, metric="l2") as store:
        store.add([node("c", [3, 0])])
        assert ask(store, (3.0, 0.0)).similarities == [1.0]
