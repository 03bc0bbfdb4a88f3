"""The store keeps LlamaIndex's contract, and none of the faults of LlamaIndex's FAISS stores."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import ImageNode, IndexNode, NodeWithScore, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from phi3_industry.errors import StoreError, StoreIdentityError
from phi3_industry.vector_stores import FaissSQLiteVectorStore


def ask(store: FaissSQLiteVectorStore, vector: list[float], k: int = 10, **more: Any) -> Any:
    return store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=k, **more))


def only(**values: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=k, value=v) for k, v in values.items()])


# What LlamaIndex's FAISS stores do wrong


def test_similarity_is_cosine_and_higher_is_better(store, node):
    store.add([node("far", [0, 3]), node("exact", [2, 0]), node("near", [1, 1])])
    result = ask(store, [5, 0])
    assert result.ids == ["exact", "near", "far"]
    assert result.similarities == pytest.approx([1.0, math.sqrt(0.5), 0.0], abs=1e-6)
    assert all(type(similarity) is float for similarity in result.similarities)
    hits_of = (result.nodes, result.similarities)
    hits = [NodeWithScore(node=n, score=s) for n, s in zip(*hits_of, strict=True)]
    kept = SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(hits)
    assert [hit.node.node_id for hit in kept] == ["exact", "near"]


def test_delete_by_document_removes_its_nodes_for_good(store, node):
    store.add([node("a", [1, 0], doc="x"), node("b", [1, 0.1], doc="y")])
    ask(store, [1, 0])
    store.delete("x")
    assert ask(store, [1, 0]).ids == ["b"]
    store.delete("no such document")
    assert store.count == 1


def test_ids_of_deleted_rows_are_never_used_again(store, node):
    store.add([node("a", [1, 0, 0]), node("b", [0, 1, 0])])
    ask(store, [1, 0, 0])
    store.delete_nodes(["b"])
    store.add([node("c", [0, 0, 1]), node("d", [0, 1, 1])])
    assert ask(store, [0, 0, 1], 1).ids == ["c"]
    store.delete_nodes(["d"])
    assert sorted(ask(store, [0, 1, 0]).ids) == ["a", "c"]


def test_adding_a_node_again_replaces_it(store, node):
    store.add([node("a", [1, 0], text="old")])
    ask(store, [1, 0])
    store.add([node("a", [0, 1], text="new")])
    result = ask(store, [0, 1])
    assert result.ids == ["a"]
    assert result.nodes[0].get_content() == "new"
    assert result.similarities == pytest.approx([1.0])
    words = VectorStoreQuery(query_str="old", mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert store.query(words).ids == []


def test_of_nodes_with_one_id_in_one_call_the_last_is_kept(store, node):
    assert store.add([node("a", [1, 0]), node("a", [0, 1])]) == ["a", "a"]
    assert store.count == 1
    assert ask(store, [0, 1]).similarities == pytest.approx([1.0])


def test_filters_are_exact(store, node):
    store.add([node(f"n{i}", [1, i], site="Oslo" if i % 2 else "Bergen") for i in range(8)])
    assert set(ask(store, [1, 0], filters=only(site="Oslo")).ids) == {"n1", "n3", "n5", "n7"}
    assert ask(store, [1, 0], filters=only(site="Rome")).ids == []


def test_rows_of_a_filter_are_remembered_only_while_nothing_changes(store, node, monkeypatch):
    from phi3_industry.vector_stores import accelerator

    asked: list[str] = []
    look = accelerator.matching_rows
    monkeypatch.setattr(
        accelerator,
        "matching_rows",
        lambda connection, condition: asked.append(condition[0]) or look(connection, condition),
    )
    store.add([node(f"n{i}", [1, i], site="Oslo" if i % 2 else "Bergen") for i in range(8)])
    for _ in range(3):
        assert set(ask(store, [1, 0], filters=only(site="Oslo")).ids) == {"n1", "n3", "n5", "n7"}
    assert len(asked) == 1
    assert ask(store, [1, 0], filters=only(site="Rome")).ids == []
    store.delete_nodes(["n3"])
    store.add([node("new", [1, 1], site="Oslo")])
    assert set(ask(store, [1, 0], filters=only(site="Oslo")).ids) == {"n1", "n5", "n7", "new"}
    assert len(asked) == 3


def test_adding_takes_nodes_as_they_come(store, node, monkeypatch):
    monkeypatch.setattr("phi3_industry.vector_stores.faiss_sqlite._BATCH", 10)
    waiting = 0
    most = 0

    def stream():
        nonlocal waiting, most
        for number in range(95):
            waiting += 1
            most = max(most, waiting)
            yield node(f"n{number % 90}", [math.cos(number), math.sin(number)])

    put = store._batches

    def counted(nodes, ids):
        nonlocal waiting
        for batch in put(nodes, ids):
            waiting = 0
            yield batch

    monkeypatch.setattr(FaissSQLiteVectorStore, "_batches", lambda self, *args: counted(*args))
    assert len(store.add(stream())) == 95
    assert most == 10
    assert (store.count, store.generation) == (90, 1)
    assert ask(store, [math.cos(94), math.sin(94)], 1).ids == [
        "n4"
    ]  # the last of several with one id


async def test_a_stream_that_breaks_off_changes_nothing(store, node, monkeypatch):
    monkeypatch.setattr("phi3_industry.vector_stores.faiss_sqlite._BATCH", 2)
    store.add([node("a", [1, 0])])

    def stream():
        yield from [node("b", [1, 0]), node("c", [1, 0]), node("d", [1, 0])]
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        await store.async_add(stream())
    assert (store.count, store.generation) == (1, 1)
    assert store.verify().count == 1


def test_filters_that_let_many_rows_through_are_exact(store, node):
    vectors = np.random.default_rng(0).standard_normal((2000, 8))
    store.add([node(f"n{i}", list(v), even=i % 2) for i, v in enumerate(vectors)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [i for i in np.argsort(-(unit @ unit[7])) if i % 2 == 1][:10]
    result = ask(store, list(vectors[7]), 10, filters=only(even=1))
    assert result.ids == [f"n{i}" for i in expected]


def test_doc_ids_and_node_ids_of_a_query_are_obeyed(store, node):
    store.add([node("a", [1, 0], doc="x"), node("b", [1, 1], doc="y"), node("c", [0, 1], doc="y")])
    assert ask(store, [1, 0], doc_ids=["y"]).ids == ["b", "c"]
    assert ask(store, [1, 0], doc_ids=[]).ids == []
    assert ask(store, [1, 0], node_ids=["c", "a"]).ids == ["a", "c"]
    assert ask(store, [1, 0], node_ids=["c", "a"], doc_ids=["y"]).ids == ["c"]
    words = VectorStoreQuery(
        query_str="text", doc_ids=["x"], similarity_top_k=9, mode=VectorStoreQueryMode.TEXT_SEARCH
    )
    assert store.query(words).ids == ["a"]


def test_mmr_prefers_what_is_new(store, node):
    store.add([node("a", [1, 0.1]), node("twin", [1, 0.11]), node("other", [0.7, -0.7])])
    mmr = {"mode": VectorStoreQueryMode.MMR}
    assert ask(store, [1, 0], 2).ids == ["a", "twin"]
    assert ask(store, [1, 0], 2, **mmr).ids == ["a", "other"]
    assert ask(store, [1, 0], 2, mmr_threshold=1.0, **mmr).ids == ["a", "twin"]
    given = store.query(
        VectorStoreQuery(query_embedding=[1, 0], similarity_top_k=2, **mmr), mmr_threshold=1.0
    )
    assert given.ids == ["a", "twin"]
    assert given.similarities[0] == pytest.approx(1 / math.sqrt(1.01))


def test_get_nodes_by_ids_and_filters(store, node):
    store.add([node("a", [1, 0], n=1), node("b", [0, 1], n=2), node("c", [1, 1], n=2)])
    assert [found.node_id for found in store.get_nodes()] == ["a", "b", "c"]
    assert [found.node_id for found in store.get_nodes(["c", "a", "none"])] == ["a", "c"]
    assert [found.node_id for found in store.get_nodes(filters=only(n=2))] == ["b", "c"]
    assert [found.node_id for found in store.get_nodes(["a", "b"], only(n=2))] == ["b"]
    assert store.get_nodes([]) == []


def test_delete_nodes_by_ids_and_filters(store, node):
    store.add([node("a", [1, 0], n=1), node("b", [0, 1], n=2), node("c", [1, 1], n=2)])
    store.delete_nodes([])
    assert store.count == 3
    store.delete_nodes(["a", "b"], only(n=2))
    assert [found.node_id for found in store.get_nodes()] == ["a", "c"]
    store.delete_nodes(filters=only(n=2))
    assert [found.node_id for found in store.get_nodes()] == ["a"]
    with pytest.raises(ValueError, match=r"Neither node_ids nor filters.*call clear\(\)"):
        store.delete_nodes()


def test_clear_empties_the_store_and_lets_another_embedding_in(store, node):
    store.clear()
    store.add([node("a", [1, 0], text="pump")])
    ask(store, [1, 0])
    store.clear()
    assert store.count == 0
    assert ask(store, [1, 0, 0]).ids == []
    assert store.document_hashes() == {}
    store.add([node("b", [1, 0, 0], text="valve")])
    assert ask(store, [1, 0, 0]).ids == ["b"]
    words = VectorStoreQuery(query_str="pump", mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert store.query(words).ids == []


async def test_async_calls_leave_the_event_loop_free(store, node, monkeypatch):
    started = threading.Event()
    slow = FaissSQLiteVectorStore._batches

    def sleepy(self, nodes, ids):
        started.set()
        time.sleep(0.2)
        return slow(self, nodes, ids)

    monkeypatch.setattr(FaissSQLiteVectorStore, "_batches", sleepy)
    ticks = 0
    task = asyncio.create_task(store.async_add([node("a", [1, 0])]))
    while not task.done():
        ticks += started.is_set()
        await asyncio.sleep(0.01)
    assert ticks > 5
    query = VectorStoreQuery(query_embedding=[1, 0], similarity_top_k=1)
    assert (await store.aquery(query)).ids == ["a"]
    assert [result.ids for result in await store.aquery_many([query, query])] == [["a"], ["a"]]
    assert [found.node_id for found in await store.aget_nodes()] == ["a"]
    await store.adelete_nodes(["a"])
    await store.async_add([node("b", [1, 0])])
    await store.adelete("d")
    await store.aclear()
    assert store.count == 0


# Queries


def query_of(mode: VectorStoreQueryMode, **more: Any) -> VectorStoreQuery:
    return VectorStoreQuery(mode=mode, similarity_top_k=5, **more)


def test_text_search_finds_words_and_nothing_else(store, node):
    store.add(
        [
            node("seal", [1, 0], text="Replace the mechanical seal of pump P-4471."),
            node("valve", [0, 1], text="The relief valve opens at 12 bar."),
        ]
    )
    for mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE):
        result = store.query(query_of(mode, query_str="p-4471 SEAL"))
        assert result.ids == ["seal"]
        assert result.similarities[0] > 0
        assert store.query(query_of(mode, query_str="turbine")).ids == []
        assert store.query(query_of(mode, query_str="")).ids == []
        assert store.query(query_of(mode, query_str="?!")).ids == []


def test_a_word_in_the_header_counts_more_than_one_in_the_text(store, node):
    filler = "lorem ipsum dolor sit amet"
    store.add(
        [
            node("body", [1, 0], text=f"cavitation {filler}", context_header="Notes"),
            node("head", [0, 1], text=f"about {filler}", context_header="Cavitation"),
        ]
    )
    result = store.query(query_of(VectorStoreQueryMode.TEXT_SEARCH, query_str="cavitation"))
    assert result.ids == ["head", "body"]


@pytest.mark.parametrize(
    "text",
    ['"', 'a" OR b', "NEAR(a b)", "body:pump", "pump*", "AND", "( pump", "pump'; DROP TABLE nodes"],
)
def test_no_query_text_is_query_syntax(store, node, text):
    store.add([node("a", [1, 0], text="pump and valve")])
    result = store.query(query_of(VectorStoreQueryMode.TEXT_SEARCH, query_str=text))
    assert result.ids in ([], ["a"])
    assert store.count == 1


def test_words_that_are_everywhere_find_nothing_by_themselves(store, node):
    store.add([node(f"n{i}", [1, i], text=f"the pump number{i}") for i in range(20)])
    search = VectorStoreQueryMode.TEXT_SEARCH
    assert store.query(query_of(search, query_str="the pump of the turbine")).ids == []
    assert store.query(query_of(search, query_str="the pump number7")).ids == ["n7"]


def test_hybrid_fuses_both_searches_and_obeys_alpha(store, node):
    store.add(
        [
            node("vector", [1, 0], text="something else"),
            node("both", [0.9, 0.3], text="impeller clearance clearance"),
            node("words", [-1, 0], text="impeller clearance of something"),
        ]
    )
    common = {"query_embedding": [1.0, 0.0], "query_str": "impeller clearance"}
    hybrid = VectorStoreQueryMode.HYBRID
    fused = store.query(query_of(hybrid, **common))
    assert fused.ids[0] == "both"
    assert fused.similarities == sorted(fused.similarities, reverse=True)
    assert store.query(query_of(hybrid, alpha=1.0, **common)).ids[0] == "vector"
    assert set(store.query(query_of(hybrid, alpha=0.0, **common)).ids) == {"words", "both"}
    assert len(store.query(query_of(hybrid, hybrid_top_k=1, **common)).ids) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (VectorStoreQuery(), "needs query_embedding"),
        (VectorStoreQuery(mode=VectorStoreQueryMode.TEXT_SEARCH), "needs query_str"),
        (VectorStoreQuery([1.0], mode=VectorStoreQueryMode.HYBRID), "needs query_str"),
        (VectorStoreQuery([1.0], mode=VectorStoreQueryMode.SVM), "'svm' is not offered"),
        (VectorStoreQuery([1.0, 0.0], similarity_top_k=-1), "similarity_top_k is -1"),
        (VectorStoreQuery([1.0, 0.0], alpha=1.5), "alpha is 1.5"),
        (VectorStoreQuery([1.0, 0.0, 0.0]), "3 dimensions and the store's vectors have 2"),
        (VectorStoreQuery([1.0, float("nan")]), "NaN or infinity"),
        (VectorStoreQuery([0.0, 0.0]), "all zeros"),
    ],
)
def test_queries_that_cannot_be_answered_say_why(store, node, query, message):
    store.add([node("a", [1, 0])])
    with pytest.raises(ValueError, match=message):
        store.query(query)


def test_top_k_of_any_size_is_answered(store, node):
    store.add([node("a", [1, 0])])
    assert ask(store, [1, 0], 0).ids == []
    assert ask(store, [1, 0], 10**9).ids == ["a"]
    words = VectorStoreQuery(query_str="text", similarity_top_k=10**12, mode="text_search")
    assert store.query(words).ids == ["a"]


# Adding


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1, 2, 3], "has 3 dimensions and the store's vectors have 2"),
        ([1, float("nan")], "holds NaN or infinity"),
        ([float("inf"), 1], "holds NaN or infinity"),
        ([0, 0], "is all zeros"),
        ([], "it must be one row of numbers"),
    ],
)
def test_a_bad_vector_is_refused_before_anything_is_written(store, node, vector, message):
    store.add([node("a", [1, 0])])
    with pytest.raises(ValueError, match=f"'bad': its embedding.*{message}"):
        store.add([node("good", [0, 1]), node("bad", vector)])
    assert store.count == 1
    assert store.generation == 1


def test_a_bad_first_vector_makes_no_folder(folder, node):
    with FaissSQLiteVectorStore(folder) as store, pytest.raises(ValueError, match="all zeros"):
        store.add([node("bad", [0, 0])])
    assert not folder.exists()


def test_a_node_without_embedding_is_refused(store):
    with pytest.raises(ValueError, match=r"'x' has no embedding\. Embed it before"):
        store.add([TextNode(id_="x", text="x")])


def test_huge_and_tiny_vectors_keep_their_direction(store, node):
    store.add([node("huge", [1e300, 1e300]), node("tiny", [1e-300, -1e-300])])
    assert ask(store, [1, 1]).similarities == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    "metadata",
    [
        {"nested": {"a": [1, {"b": None}]}, "list": ["x", 2, 3.5], "none": None, "true": True},
        {"quote'\"\\": "it's", "": "empty key", "$.a": 1, "ключ": "значение", "\n": "\t\x00"},
        {"big": 2**80, "tiny": 1e-300, "lone": "\ud800", "emoji": "🔧"},
    ],
)
def test_any_metadata_and_text_come_back_as_they_were(store, node, metadata):
    text = "line\r\nbreak\u2028 \x00 圧力 \ud83d ‮right-to-left"
    store.add([node("ключ 🔑", [1, 0], text=text, doc="док", **metadata)])
    (found,) = store.get_nodes()
    assert found.get_content() == text
    assert repr(found.metadata) == repr(metadata)
    assert found.ref_doc_id == "док"
    assert store.get_nodes(filters=only(missing=1)) == []  # a filter reads every row's metadata


def test_numbers_that_json_lacks_are_missing_values(store, node):
    store.add([node("a", [1, 0], cell=float("nan"), cells=[float("inf"), 1.5])])
    (found,) = store.get_nodes()
    assert found.metadata == {"cell": None, "cells": [None, 1.5]}


def test_other_kinds_of_nodes_keep_their_class(store):
    kinds = [
        IndexNode(id_="i", text="an index", index_id="other", embedding=[1.0, 0.0]),
        ImageNode(id_="p", text="a picture", image_path="p.png", embedding=[0.0, 1.0]),
    ]
    store.add(kinds)
    found = store.get_nodes()
    assert [type(entry) for entry in found] == [IndexNode, ImageNode]
    assert found[0].index_id == "other"
    assert found[1].image_path == "p.png"


def test_an_id_that_is_not_text_in_unicode_is_refused(store, node):
    with pytest.raises(ValueError, match="cannot be stored"):
        store.add([node("\ud800", [1, 0])])


# Documents


def test_replacing_a_document_is_one_step(store, node):
    store.replace_document("d", "hash1", [node("a", [1, 0]), node("b", [0, 1])])
    store.replace_document("e", "hash2", [])
    generation = store.generation
    store.replace_document("d", "hash3", [node("b", [1, 1]), node("c", [0, 1])])
    assert store.generation == generation + 1
    assert sorted(found.node_id for found in store.get_nodes()) == ["b", "c"]
    assert store.document_hashes() == {"d": "hash3", "e": "hash2"}
    store.delete_document("e")
    assert store.document_hashes() == {"d": "hash3"}


def test_a_node_of_another_document_is_refused(store, node):
    with pytest.raises(ValueError, match="'a' is of the document 'd' and not of 'x'"):
        store.replace_document("x", "hash", [node("a", [1, 0], doc="d")])


@pytest.mark.parametrize("change", ["add", "overwrite", "delete_nodes"])
def test_a_hash_is_forgotten_when_its_nodes_are_changed_otherwise(store, node, change):
    store.replace_document("d", "hash", [node("a", [1, 0])])
    if change == "add":
        store.add([node("b", [1, 0], doc="d")])
    elif change == "overwrite":
        store.add([node("a", [1, 0], doc="e")])
    else:
        store.delete_nodes(["a"])
    assert store.document_hashes() == {}


def test_every_document_is_listed(store, node):
    store.replace_document("hashed", "hash", [node("a", [1, 0], doc="hashed")])
    store.add([node("b", [0, 1], doc="plain"), node("c", [0, 1], doc=None)])
    assert store.ref_doc_ids() == {"hashed": "hash", "plain": None}


# Opening and closing


def test_what_was_added_is_there_after_reopening(folder, node):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node(f"n{i}", [1, i]) for i in range(30)])
        before = ask(store, [1, 7])
    assert sorted(path.name for path in folder.iterdir()) == [
        "store.acknowledged",
        "store.sqlite",
        "vectors.1.faiss",
        "writer.lock",
    ]
    with FaissSQLiteVectorStore.from_path(folder, read_only=True) as store:
        after = ask(store, [1, 7])
    assert (after.ids, after.similarities) == (before.ids, before.similarities)


def test_rows_newer_than_the_index_file_are_found(folder, node):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node(f"n{i}", [1, i]) for i in range(100)])
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("new", [-1, 0])])
        store.delete_nodes(["n3"])
    assert [path.name for path in folder.glob("vectors.*")] == ["vectors.1.faiss"]
    with FaissSQLiteVectorStore(folder) as store:
        assert ask(store, [-1, 0], 1).ids == ["new"]
        assert "n3" not in ask(store, [1, 3], 100).ids
        store.persist("/ignored/vector_store.json")
        assert [path.name for path in folder.glob("vectors.*")] == ["vectors.3.faiss"]
        store.add([node("newer", [-1, 0.1])])
        assert ask(store, [-1, 0.1], 1).ids == ["newer"]
        store.rebuild()
        assert ask(store, [-1, 0.1], 1).ids == ["newer"]


def test_a_reader_follows_a_writer(folder, node):
    with FaissSQLiteVectorStore(folder) as writer:
        writer.add([node(f"n{i}", [1, i]) for i in range(10)])
        with FaissSQLiteVectorStore(folder, read_only=True) as reader:
            assert ask(reader, [1, 0], 1).ids == ["n0"]
            writer.delete_nodes(["n0"])
            writer.add([node("new", [1, 0.01])])
            assert ask(reader, [1, 0], 1).ids == ["new"]
            writer.persist()
            writer.delete_nodes(["new"])
            writer.persist()  # the list of deletions starts anew, so the reader reads the file
            assert ask(reader, [1, 0], 1).ids == ["n1"]
            writer.clear()
            assert ask(reader, [1, 0], 1).ids == []


def test_a_closed_store_opens_again_when_it_is_used(store, node):
    store.add([node("a", [1, 0])])
    store.close()
    assert store.count == 1
    store.add([node("b", [0, 1])])
    assert store.count == 2


def test_reading_a_store_that_is_not_there_is_refused(folder):
    with pytest.raises(StoreError, match=r"There is no store in .*Check the path"):
        FaissSQLiteVectorStore(folder, read_only=True)
    with pytest.raises(StoreError, match="There is no store in"):
        FaissSQLiteVectorStore.from_path(folder)
    assert not folder.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"is a file\. Give the path of a folder"):
        FaissSQLiteVectorStore(tmp_path / "file")


def test_a_new_store_is_empty_and_makes_no_folder_before_it_is_written(folder):
    with FaissSQLiteVectorStore(folder) as store:
        assert (store.count, store.generation, store.dimensions) == (0, 0, None)
        assert ask(store, [1, 0]).ids == []
        assert store.get_nodes() == []
        assert store.ref_doc_ids() == {}
        assert store.verify().count == 0
        store.persist()
        store.clear()
        store.delete("d")
    assert not folder.exists()


def test_writing_to_a_read_only_store_is_refused(folder, node):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("a", [1, 0])])
    with FaissSQLiteVectorStore(folder, read_only=True) as reader:
        for write in (lambda: reader.add([node("b", [1, 0])]), lambda: reader.delete("d")):
            with pytest.raises(StoreError, match="was opened read-only"):
                write()


def test_a_store_in_a_read_only_folder_can_be_read(folder, node, monkeypatch):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("a", [1, 0])])
    files = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr("os.access", lambda *_: False)
    with FaissSQLiteVectorStore(folder, read_only=True) as reader:
        assert ask(reader, [1, 0]).ids == ["a"]
        assert sorted(path.name for path in folder.iterdir()) == files


def test_store_survives_serialisation_pickling_and_copying(folder, node):
    with FaissSQLiteVectorStore(folder, identity={"embedding_model": "m"}) as store:
        store.add([node("a", [1, 0])])
        saved = store.to_dict()
        assert saved["path"] == str(folder)
        for other in (
            FaissSQLiteVectorStore.from_dict(saved),
            pickle.loads(pickle.dumps(store)),
            copy.deepcopy(store),
        ):
            assert other.identity == {"embedding_model": "m"}
            assert ask(other, [1, 0]).ids == ["a"]
            if other is not store:
                other.close()
        assert ask(store, [1, 0]).ids == ["a"]


def test_threads_may_share_a_store(store, node):
    errors: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for step in range(10):
                store.add([node(f"{name}-{step}", [1, name + step / 100])])
                assert f"{name}-{step}" in ask(store, [1, name + step / 100], 80).ids
        except BaseException as error:  # handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.count == 60


# Identity


def test_another_identity_is_refused_with_both_values(folder, node):
    given = {"embedding_model": "a", "dimensions": 2}
    with FaissSQLiteVectorStore(folder, identity=given) as store:
        store.add([node("n", [1, 0])])
        assert store.stored_identity == given
    other = {"embedding_model": "b", "dimensions": 2, "query_prompt": "q: "}
    with pytest.raises(StoreIdentityError, match="embedding_model: the store has 'a'") as caught:
        FaissSQLiteVectorStore(folder, identity=other)
    assert caught.value.differences == {
        "embedding_model": ("a", "b"),
        "query_prompt": (None, "q: "),
    }
    for same in (given, None):
        FaissSQLiteVectorStore(folder, identity=same).close()


def test_identity_of_other_dimensions_than_the_vectors_is_refused(folder, node):
    with FaissSQLiteVectorStore(folder) as store:
        store.add([node("n", [1, 0])])
    with pytest.raises(StoreIdentityError, match="dimensions: the store has 2, given was 3"):
        FaissSQLiteVectorStore(folder, identity={"dimensions": 3})


def test_dimensions_of_the_identity_bind_the_first_vector(folder, node):
    with (
        FaissSQLiteVectorStore(folder, identity={"dimensions": 3}) as store,
        pytest.raises(ValueError, match="2 dimensions and the store's vectors have 3"),
    ):
        store.add([node("n", [1, 0])])
