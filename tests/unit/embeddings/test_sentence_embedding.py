"""A sentence-transformers model computes fast, and its vectors stay what they are in 32 bits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

from phi3_industry.embeddings import embedding_identity, load_embedding, sentence, sentence_model
from phi3_industry.errors import ConfigurationError, EngineError
from tiny_encoders import save_tiny_encoder

TEXTS = [
    "The oil of pump P-7 is Tovex 32.",
    "弁は毎年点検する。",
    "x",
    "The discharge pressure of the pump is 38 bar. " * 12,
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"))


@pytest.fixture
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every processor computes in bfloat16; not every one does so fast."""
    monkeypatch.setattr(sentence_model, "_multiplies_bfloat16", lambda device: True)


def cosines(first: list[list[float]], second: list[list[float]]) -> np.ndarray:
    a, b = np.asarray(first), np.asarray(second)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.usefixtures("fast_bfloat16")
def test_bfloat16_is_the_default_and_gives_the_vectors_of_float32(caplog):
    with caplog.at_level(logging.INFO):
        fast = load_embedding("embedded", device="cpu")
    exact = load_embedding("embedded", device="cpu", dtype="float32")
    assert (fast.compute_type, exact.compute_type) == ("bfloat16", "float32")
    assert "'embedded' computes in bfloat16" in caplog.text
    found = cosines(fast.get_text_embedding_batch(TEXTS), exact.get_text_embedding_batch(TEXTS))
    assert found.min() >= 0.9995
    question = "Which oil?"
    assert cosines([fast.get_query_embedding(question)], [exact.get_query_embedding(question)]) > (
        0.9995
    )
    # pooled and normalised in bfloat16, vectors would be off by 0.3 % here, and similarities too
    assert np.linalg.norm(fast.get_text_embedding_batch(TEXTS), axis=1) == pytest.approx(
        np.ones(len(TEXTS)), abs=1e-5
    )


@pytest.mark.usefixtures("fast_bfloat16")
def test_a_store_cannot_tell_the_types_apart(folder):
    fast, exact = (load_embedding(folder, device="cpu", dtype=d) for d in ("auto", "float32"))
    assert fast.compute_type != exact.compute_type
    assert embedding_identity(fast) == embedding_identity(exact)


@pytest.mark.usefixtures("fast_bfloat16")
def test_a_model_that_bfloat16_harms_computes_in_float32_and_says_so(folder, monkeypatch, caplog):
    original = sentence_model._converted

    def harmed(body: Any, dtype: torch.dtype) -> Any:
        for weight in body.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
        return original(body, dtype)

    exact = load_embedding(folder, device="cpu", dtype="float32").get_text_embedding_batch(TEXTS)
    monkeypatch.setattr(sentence_model, "_converted", harmed)
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING):
        model = load_embedding(folder, device="cpu")
    assert model.compute_type == "float32"
    assert "computes in float32: in bfloat16 the vectors of probes agree" in caplog.text
    assert np.allclose(model.get_text_embedding_batch(TEXTS), exact, atol=1e-6)


def test_a_processor_without_bfloat16_computes_in_float32(folder, monkeypatch):
    monkeypatch.setattr(sentence_model, "_multiplies_bfloat16", lambda device: False)
    assert load_embedding(folder, device="cpu").compute_type == "float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_does_not_depend_on_its_batch(folder, dtype):
    model = load_embedding(folder, device="cpu", dtype=dtype)
    together = model.get_text_embedding_batch(TEXTS)
    backwards = model.get_text_embedding_batch(TEXTS[::-1])[::-1]
    alone = [model.get_text_embedding(text) for text in TEXTS]
    assert cosines(together, alone).min() >= 0.999
    assert cosines(together, backwards).min() >= 0.999
    assert model.get_text_embedding_batch([]) == []


def test_texts_are_batched_by_tokens_across_one_call_of_llamaindex(folder, monkeypatch):
    model = load_embedding(folder, device="cpu", dtype="float32")
    monkeypatch.setitem(sentence._BATCH_TOKENS, "cpu", 128)
    seen, original = [], model._model.encode

    def encode(batch: list[str], **options: Any) -> Any:
        seen.append([text[0] for text in batch])
        return original(batch, **options)

    monkeypatch.setattr(model._model, "encode", encode)
    # as many characters, of which digits take more tokens
    texts = ["1 2 3 4 5 6 7 8 9 0 " * 4, "pumps and motors and" * 4] * 10
    nodes = IngestionPipeline(transformations=[model]).run(
        nodes=[TextNode(text=text) for text in texts]
    )
    assert sum(len(batch) for batch in seen) == len(texts)
    assert all(len(batch) <= 3 for batch in seen if "1" in batch)  # 42 tokens each
    assert max(len(batch) for batch in seen) > 3
    assert sum(len(set(batch)) > 1 for batch in seen) <= 1
    for text, node in zip(texts[:2], nodes[:2], strict=True):
        assert cosines([node.embedding], [model.get_text_embedding(text)]) > 0.999


def test_without_memory_the_batch_is_halved(folder, monkeypatch):
    model = load_embedding(folder, device="cpu", dtype="float32")
    expected = model.get_text_embedding_batch(TEXTS)
    original = model._model.encode

    def scarce(batch: list[str], *, room: int = 1, **options: Any) -> Any:
        if len(batch) > room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(batch, **options)

    monkeypatch.setattr(model._model, "encode", scarce)
    assert cosines(model.get_text_embedding_batch(TEXTS), expected).min() >= 0.999
    monkeypatch.setattr(model._model, "encode", lambda batch, **o: scarce(batch, room=0, **o))
    with pytest.raises(EngineError, match="Memory ran out with a single text"):
        model.get_text_embedding("pump")


def test_fewer_dimensions_are_the_first_ones_at_length_one(folder):
    whole = np.array(load_embedding(folder, device="cpu", dtype="float32").get_text_embedding("x"))
    short = load_embedding(folder, device="cpu", dtype="float32", dimensions=8)
    expected = whole[:8] / np.linalg.norm(whole[:8])
    assert short.get_text_embedding("x") == pytest.approx(expected, abs=1e-5)
    assert embedding_identity(short)["dimensions"] == 8
    assert type(short).from_dict(short.to_dict()).dimensions == 8
    with pytest.raises(ConfigurationError, match=r"dimensions is 33 and '.*' has vectors of 32"):
        load_embedding(folder, device="cpu", dimensions=33)


def test_no_process_is_started_for_a_vector(folder, monkeypatch):
    import multiprocessing.process

    def refuse(self: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    model = load_embedding(folder, device="cpu")
    assert len(model.get_query_embedding("x")) == 32
    assert len(model.get_text_embedding_batch(TEXTS)) == len(TEXTS)


def test_a_text_that_is_cut_keeps_its_end_token(folder):
    model = load_embedding(folder, device="cpu", max_length=8)
    ids = model._model.preprocess(["one two three four five six seven eight nine ten"])["input_ids"]
    assert ids.shape == (1, 8)
    assert ids[0, -1] == model._model.tokenizer.sep_token_id
