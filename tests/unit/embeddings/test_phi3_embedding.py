"""Phi3Embedding: one base for language model and vectors, and every promise of a LlamaIndex one."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.kvstore import SimpleKVStore

from phi3_industry import KnowledgeBase, Phi3LLM
from phi3_industry.embeddings import Phi3Embedding, embedding_identity
from phi3_industry.errors import (
    AdapterNotFoundError,
    ConfigurationError,
    EngineError,
    StoreIdentityError,
)
from tiny_models import save_random_adapter

TEXTS = [
    "The oil of pump P-7 is Tovex 32.",
    "弁は毎年点検する。",
    "x",
    "The discharge pressure of the pump is 38 bar. " * 8,
    "",
]


@pytest.fixture(scope="module")
def adapter(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_adapter(tmp_path_factory.mktemp("adapters") / "search", tiny_phi3)


def cosines(first: list[list[float]], second: list[list[float]]) -> np.ndarray:
    return (np.asarray(first) * np.asarray(second)).sum(axis=1)


def test_llm_and_embedding_share_one_set_of_weights(tiny_llm, adapter):
    tiny_llm.load_adapter(adapter, "search")
    embed = Phi3Embedding(llm=tiny_llm, adapter="search")
    again = copy.deepcopy(embed)
    assert embed._llm.base_model is tiny_llm.base_model is again._llm.base_model
    base = Phi3Embedding(llm=tiny_llm)
    assert cosines([embed.get_text_embedding("pump")], [base.get_text_embedding("pump")]) < 0.99
    view = Phi3Embedding(llm=tiny_llm.with_adapter("search"))
    assert view.get_text_embedding("pump") == embed.get_text_embedding("pump")
    assert Phi3Embedding(llm=tiny_llm, adapter=str(adapter)).get_text_embedding("pump") == (
        pytest.approx(embed.get_text_embedding("pump"), abs=1e-5)
    )


def test_nothing_is_loaded_before_the_first_vector(tiny_phi3, adapter):
    embed = Phi3Embedding(model=str(tiny_phi3), adapter=str(adapter))
    assert not embed._llm._shared.loaded
    assert len(embed.get_text_embedding("pump")) == 32
    assert embed._llm._shared.loaded


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_vector_does_not_depend_on_its_batch(tiny_phi3, pooling, dtype):
    embed = Phi3Embedding(model=str(tiny_phi3), pooling=pooling, dtype=dtype)
    together = embed.get_text_embedding_batch(TEXTS)
    backwards = embed.get_text_embedding_batch(TEXTS[::-1])[::-1]
    alone = [embed.get_text_embedding(text) for text in TEXTS]
    assert cosines(together, alone).min() >= 0.999
    assert cosines(together, backwards).min() >= 0.999
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    assert type(together[0][0]) is float
    assert embed.get_text_embedding_batch([]) == []


def test_the_last_state_is_that_of_the_end_token_and_equals_the_model_s_own(tiny_llm):
    embed = Phi3Embedding(llm=tiny_llm, text_instruction="passage: ")
    loaded = tiny_llm.base_model
    ids = [*tiny_llm.tokenize("passage: pump"), loaded.tokenizer.eos_token_id]
    decoder = loaded.model.get_decoder()
    with torch.inference_mode():
        states = decoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states[-1], dim=0).tolist()
    assert embed.get_text_embedding("pump") == pytest.approx(expected, abs=1e-5)
    mean = Phi3Embedding(llm=tiny_llm, text_instruction="passage: ", pooling="mean")
    expected = torch.nn.functional.normalize(states.mean(dim=0), dim=0).tolist()
    assert mean.get_text_embedding("pump") == pytest.approx(expected, abs=1e-5)


def test_control_tokens_in_a_text_are_read_as_text(tiny_llm, monkeypatch):
    seen = []
    embed = Phi3Embedding(llm=tiny_llm)
    original = Phi3LLM.embed
    monkeypatch.setattr(
        Phi3LLM, "embed", lambda self, ids, **k: seen.extend(ids) or original(self, ids, **k)
    )
    embed.get_text_embedding("done<|end|><|assistant|>")
    control = set(tiny_llm.base_model.tokenizer.added_tokens_decoder)
    (ids,) = seen
    assert control.intersection(ids) == {ids[-1]}


def test_queries_and_texts_have_their_own_instruction(tiny_llm):
    embed = Phi3Embedding(llm=tiny_llm, query_instruction="q: ", text_instruction="t: ")
    plain = Phi3Embedding(llm=tiny_llm)
    for vector, expected in (
        (embed.get_query_embedding("pump"), plain.get_text_embedding("q: pump")),
        (embed.get_text_embedding("pump"), plain.get_text_embedding("t: pump")),
        (embed.get_text_embedding_batch(["pump"])[0], plain.get_text_embedding("t: pump")),
    ):
        assert vector == pytest.approx(expected, abs=1e-6)


def test_fewer_dimensions_are_the_first_ones_at_length_one(tiny_llm):
    whole = np.array(Phi3Embedding(llm=tiny_llm).get_text_embedding("pump"))
    short = Phi3Embedding(llm=tiny_llm, dimensions=8).get_text_embedding("pump")
    assert short == pytest.approx(whole[:8] / np.linalg.norm(whole[:8]), abs=1e-6)
    with pytest.raises(ConfigurationError, match=r"dimensions is 33 and '.*' has vectors of 32"):
        Phi3Embedding(llm=tiny_llm, dimensions=33).get_text_embedding("pump")


def test_a_long_text_is_cut_with_a_warning_and_keeps_its_end_token(tiny_llm, caplog):
    embed = Phi3Embedding(llm=tiny_llm, max_length=6)
    ids = tiny_llm.tokenize("one two three four five six seven")
    assert len(ids) > 6
    with caplog.at_level(logging.WARNING):
        long, _, _ = embed.get_text_embedding_batch(
            ["one two three four five six seven", "x", "one two three four five six seven eight"]
        )
    end = tiny_llm.base_model.tokenizer.eos_token_id
    assert long == pytest.approx(tiny_llm.embed([[*ids[:6], end]])[0].tolist(), abs=1e-5)
    (record,) = caplog.records
    most = embed.count_tokens("one two three four five six seven eight") - 6
    assert "2 of 3 texts are longer than max_length=6" in record.getMessage()
    assert f"of the longest {most} tokens were not read" in record.getMessage()


def test_the_default_length_fills_the_window_and_no_more_is_taken(tiny_llm):
    embed = Phi3Embedding(llm=tiny_llm)
    assert embed.max_length == 511
    assert len(embed.get_text_embedding("word " * 2000)) == 32
    with pytest.raises(ConfigurationError, match=r"max_length is 512 and .* at most 511 tokens"):
        Phi3Embedding(llm=tiny_llm, max_length=512)


async def test_async_gives_the_same_vectors_and_leaves_the_event_loop_free(tiny_llm, monkeypatch):
    embed = Phi3Embedding(llm=tiny_llm, embed_batch_size=2)
    expected = embed.get_text_embedding_batch(TEXTS)
    assert cosines(await embed.aget_text_embedding_batch(TEXTS), expected).min() >= 0.999
    query = await embed.aget_query_embedding("x")
    assert query == pytest.approx(embed.get_query_embedding("x"), abs=1e-5)
    loop_turned, original = threading.Event(), Phi3LLM.embed

    def wait_for_the_loop(self: Phi3LLM, *args: object, **kwargs: object) -> object:
        assert loop_turned.wait(timeout=30), "the event loop stood still"
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Phi3LLM, "embed", wait_for_the_loop)
    for ask in (embed.aget_query_embedding, embed.aget_text_embedding):
        loop_turned.clear()
        asyncio.get_running_loop().call_soon(loop_turned.set)
        assert len(await ask("x")) == 32


def test_settings_survive_dictionaries_and_pickling_as_plain_values(tiny_llm, adapter):
    tiny_llm.load_adapter(adapter, "search")
    embed = Phi3Embedding(
        llm=tiny_llm, adapter="search", pooling="mean", query_instruction="q: ", dimensions=16
    )
    expected = embed.get_query_embedding("pump")
    settings = embed.to_dict()
    assert settings["adapter_paths"] == {"search": str(adapter)}
    for again in (Phi3Embedding.from_dict(settings), pickle.loads(pickle.dumps(embed))):
        assert again.get_query_embedding("pump") == pytest.approx(expected, abs=1e-5)
        assert again.identity() == embed.identity()
    assert embed.get_query_embedding("pump") == pytest.approx(expected, abs=1e-6)


def test_identity_tells_what_changes_vectors(tiny_llm, tiny_phi3, adapter, tmp_path):
    tiny_llm.load_adapter(adapter, "search")
    identity = embedding_identity(Phi3Embedding(llm=tiny_llm, adapter="search", pooling="mean"))
    assert identity == {
        "embedding_model": tiny_phi3.name,
        "weights": tiny_llm.base_model.weights_fingerprint[:16],
        "dimensions": 32,
        "pooling": "mean",
        "normalize": True,
        "query_prompt": "",
        "text_prompt": "",
        "adapter": identity["adapter"],
    }
    moved = shutil.copytree(adapter, tmp_path / "elsewhere")
    assert Phi3Embedding(llm=tiny_llm, adapter=str(moved), pooling="mean").identity() == identity
    other = save_random_adapter(tmp_path / "other", tiny_phi3, seed=1)
    tiny_llm.load_adapter(other, "other")
    for settings in (
        {"adapter": "other"},
        {"adapter": None},
        {"pooling": "last"},
        {"query_instruction": "q: "},
        {"text_instruction": "t: "},
        {"dimensions": 16},
    ):
        asked = {"adapter": "search", "pooling": "mean", **settings}
        assert Phi3Embedding(llm=tiny_llm, **asked).identity() != identity, settings


def test_it_serves_a_knowledge_base_which_refuses_another_adapter(tiny_llm, adapter, tmp_path):
    tiny_llm.load_adapter(adapter, "search")
    path = tmp_path / "kb"
    documents = [Document(text=text, doc_id=str(n)) for n, text in enumerate(TEXTS[:3])]
    with KnowledgeBase.open(path, embed_model=Phi3Embedding(llm=tiny_llm, adapter="search")) as kb:
        kb.add(documents)
        found = kb.index.as_retriever(similarity_top_k=1).retrieve(TEXTS[1])
        assert found[0].node.ref_doc_id == "1"
    with pytest.raises(StoreIdentityError, match="adapter"):
        KnowledgeBase.open(path, embed_model=Phi3Embedding(llm=tiny_llm))


def test_it_serves_an_index_and_a_pipeline_of_llamaindex(tiny_llm):
    embed = Phi3Embedding(llm=tiny_llm)
    documents = [Document(text=text) for text in TEXTS[:3]]
    nodes = IngestionPipeline(transformations=[SentenceSplitter(), embed]).run(documents=documents)
    assert [len(node.embedding or ()) for node in nodes] == [32, 32, 32]
    index = VectorStoreIndex(nodes, embed_model=embed)
    assert index.as_retriever(similarity_top_k=1).retrieve("x")[0].node.get_content() == "x"


def test_each_call_makes_one_event(tiny_llm):
    ended = []

    class Ends(BaseEventHandler):
        def handle(self, event: object, **_: object) -> None:
            if isinstance(event, EmbeddingEndEvent):
                ended.append(event.chunks)

    debug = LlamaDebugHandler(print_trace_on_end=False)
    embed = Phi3Embedding(llm=tiny_llm, callback_manager=CallbackManager([debug]))
    root, handler = get_dispatcher(), Ends()
    root.add_event_handler(handler)
    try:
        embed.get_query_embedding("x")
        embed.get_text_embedding_batch(["a", "b"])
    finally:
        root.event_handlers.remove(handler)
    assert ended == [["x"], ["a", "b"]]
    assert len(debug.get_event_pairs(CBEventType.EMBEDDING)) == 2
    assert str(tiny_llm.model) not in str(embed.to_payload())


async def test_the_cache_keeps_queries_texts_and_adapters_apart(tiny_llm, adapter):
    tiny_llm.load_adapter(adapter, "search")
    store = SimpleKVStore()
    instructions = {"query_instruction": "q: ", "text_instruction": "t: "}
    for name in (None, "search"):
        plain = Phi3Embedding(llm=tiny_llm, adapter=name, **instructions)
        cached = Phi3Embedding(llm=tiny_llm, adapter=name, embeddings_cache=store, **instructions)
        text, query = plain.get_text_embedding("pump"), plain.get_query_embedding("pump")
        for _ in range(2):
            assert cached.get_text_embedding("pump") == pytest.approx(text, abs=1e-5)
            assert cached.get_query_embedding("pump") == pytest.approx(query, abs=1e-5)
            assert await cached.aget_query_embedding("pump") == pytest.approx(query, abs=1e-5)
            (batch,) = await cached.aget_text_embedding_batch(["pump"])
            assert batch == pytest.approx(text, abs=1e-5)
    assert sum(len(kept) for kept in store._collections_mappings.values()) == 4


def test_without_memory_the_batch_is_halved(tiny_llm, monkeypatch):
    embed = Phi3Embedding(llm=tiny_llm)
    expected = embed.get_text_embedding_batch(TEXTS)
    packed = tiny_llm._engine()._model
    original, sizes = packed.states, []

    def scarce(spans: list[object], *, room: int = 2) -> object:
        sizes.append(len(spans))
        if len(spans) > room:
            raise torch.OutOfMemoryError("no room")
        return original(spans)

    monkeypatch.setattr(packed, "states", scarce)
    assert cosines(embed.get_text_embedding_batch(TEXTS), expected).min() >= 0.999
    assert max(sizes) == 5
    assert min(sizes) <= 2
    monkeypatch.setattr(packed, "states", lambda spans: scarce(spans, room=0))
    with pytest.raises(EngineError, match="Memory ran out"):
        embed.get_text_embedding("x")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"adapter": "nowhere"}, AdapterNotFoundError, "nowhere"),
        ({"model": "embedded"}, ConfigurationError, r"an llm, and \['model'\] besides"),
        ({"device": "cpu"}, ConfigurationError, r"an llm, and \['device'\] besides"),
        ({"pooling": "max"}, ValueError, "pooling"),
        ({"dimensions": 0}, ValueError, "dimensions"),
    ],
)
def test_what_contradicts_is_refused(tiny_llm, settings, error, message):
    with pytest.raises(error, match=message):
        Phi3Embedding(llm=tiny_llm, **settings)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="'poling'"):
        Phi3Embedding(model="embedded", poling="last")
