"""EmbeddingFinetuneEngine learns, says what it did, goes on after a stop, and harms no store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding
from llama_index.core.schema import TextNode
from safetensors.numpy import load_file, save_file

from phi3_industry import EmbeddingFinetuneEngine, Phi3Embedding, load_embedding
from phi3_industry.embeddings import embedding_identity
from phi3_industry.errors import (
    AdapterError,
    AdapterMismatchError,
    AdapterNotFoundError,
    ConfigurationError,
    StoreIdentityError,
    TrainingDataError,
)
from phi3_industry.finetuning import embedding as engine_module
from phi3_industry.finetuning.progress import Watcher
from phi3_industry.grounding.questions import Question
from phi3_industry.models.adapter import read_manifest
from phi3_industry.vector_stores import FaissSQLiteVectorStore
from tiny_encoders import save_tiny_encoder

COLOURS = ("red", "blue", "green", "iron", "copper", "zinc", "north", "south", "east", "west")
PROMPTS = {"query": "query: ", "document": "passage: "}
QUICK = {"batch_size": 8, "learning_rate": 1e-2, "show_progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"), prompts=PROMPTS)


@pytest.fixture
def embed(folder: Path) -> Any:
    return load_embedding(folder, device="cpu", dtype="float32")


def plant() -> tuple[list[TextNode], list[Question]]:
    nodes, questions = [], []
    for number in range(40):
        colour = COLOURS[number % 10]
        text = f"The {colour} pump number {number} has {number * 3} bar."
        nodes.append(TextNode(id_=f"n{number}", text=text))
        questions.append(
            Question(
                id=f"q{number}",
                question=f"pressure of pump {number} {colour}",
                answers=(f"{number * 3} bar",),
                gold_ids=(f"n{number}",),
            )
        )
    return nodes, questions


def engine(embed_model: Any, output_dir: Path, **settings: Any) -> EmbeddingFinetuneEngine:
    nodes, questions = plant()
    given = {"store": nodes, "questions": questions, **QUICK, **settings}
    return EmbeddingFinetuneEngine(embed_model, output_dir=output_dir, **given)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained until it helps."""
    path = tmp_path_factory.mktemp("adapters") / "search"
    embed = load_embedding(folder, device="cpu", dtype="float32")
    engine(embed, path, num_epochs=10).finetune()
    return path


def hits(embed_model: Any) -> int:
    """How many questions find their passage first."""
    nodes, questions = plant()
    texts = np.array(embed_model.get_text_embedding_batch([node.text for node in nodes]))
    vectors = np.array([embed_model.get_query_embedding(q.question) for q in questions])
    return int(((vectors @ texts.T).argmax(axis=1) == np.arange(len(nodes))).sum())


# What it makes


def test_training_raises_ndcg_on_held_out_questions_and_says_so(embed, tmp_path):
    said: list[str] = []
    tuner = engine(embed, tmp_path / "a", num_epochs=10, report=said.append)
    metrics = tuner.finetune().metrics
    assert metrics["verdict"] == "better"
    assert metrics["ndcg_at_10_after"] > metrics["ndcg_at_10_before"] + 0.1
    assert metrics["validation_questions"] == 6
    assert metrics["train_loss_last"] < metrics["train_loss_first"]
    assert "Build your store again with it" in said[-1]
    names = {path.name for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "phi3_industry.json",
        "loss.csv",
        "loss.png",
        "log.json",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_worse_than_before_is_said(embed, tmp_path, monkeypatch):
    monkeypatch.setattr(
        engine_module, "ndcg_of_each", lambda held, **_: [next(falling)] * len(held)
    )
    falling = iter([0.9, 0.5])
    said: list[str] = []
    metrics = engine(embed, tmp_path / "a", max_steps=1, report=said.append).finetune().metrics
    assert metrics["verdict"] == read_manifest(tmp_path / "a").metrics["verdict"] == "worse"
    assert "from 0.900 to 0.500; 0 rose, 6 fell. Worse than before: keep the embedding" in said[-1]


def test_the_tuned_model_is_the_one_that_was_measured_at_the_cost_of_the_base(embed, trained):
    tuned = load_embedding(embed.model_name, adapter=trained, device="cpu", dtype="float32")
    assert tuned.query_instruction == "query: "
    assert not any("lora" in name for name, _ in tuned._model.named_parameters())
    assert hits(tuned) >= hits(embed) + 5
    again = type(tuned).from_dict(tuned.to_dict())
    assert again.get_query_embedding("x") == pytest.approx(tuned.get_query_embedding("x"), abs=1e-6)


def test_training_reads_texts_with_the_prompts_of_serving(embed, tmp_path, monkeypatch):
    from sentence_transformers.base.modules import Transformer

    seen: list[tuple[str, str]] = []
    original = Transformer.preprocess

    def preprocess(self: Any, inputs: Sequence[str], prompt: str | None = None, **rest: Any) -> Any:
        seen.extend((prompt or "", text) for text in inputs)
        return original(self, inputs, prompt=prompt, **rest)

    monkeypatch.setattr(Transformer, "preprocess", preprocess)
    engine(embed, tmp_path / "a", max_steps=2, validation_share=0.0).finetune()
    asked = {text for prompt, text in seen if prompt == "query: "}
    read = {text for prompt, text in seen if prompt == "passage: "}
    assert asked
    assert all(text.startswith("pressure of") for text in asked)
    assert all(text.startswith("The ") for text in read)
    # that model also asks how long its prompts are
    assert {text for prompt, text in seen if not prompt} <= set(PROMPTS.values())


def test_held_out_questions_are_never_trained_on(embed, tmp_path, monkeypatch):
    from phi3_industry.finetuning import embedding_training

    kept: list[Any] = []
    original = embedding_training.train_embedding

    def train(encoder: Any, pairs: Any, *args: Any, **kwargs: Any) -> Any:
        kept.extend(pairs)
        return original(encoder, pairs, *args, **kwargs)

    monkeypatch.setattr(embedding_training, "train_embedding", train)
    _, questions = plant()
    engine(
        embed,
        tmp_path / "a",
        questions=questions[:20],
        validation_questions=questions[20:],
        max_steps=1,
    ).finetune()
    assert {pair.question for pair in kept} == {q.question for q in questions[:20]}
    with pytest.raises(TrainingDataError, match="2 validation questions are also questions to tra"):
        engine(embed, tmp_path / "b", validation_questions=questions[:2]).finetune()


def test_a_phi3_embedding_learns_and_its_adapter_serves_beside_the_llm(tiny_llm, tmp_path):
    embed = Phi3Embedding(llm=tiny_llm, query_instruction="Find: ")
    tuner = engine(embed, tmp_path / "a", num_epochs=4, max_steps=12)
    metrics = tuner.finetune().metrics
    assert metrics["train_loss_last"] < metrics["train_loss_first"]
    tuned = tuner.get_finetuned_model()
    assert tuned._llm.base_model is tiny_llm.base_model
    assert tuned.query_instruction == "Find: "
    assert embedding_identity(tuned)["adapter"] != embedding_identity(embed).get("adapter")
    # what training computed is what serving computes
    encoder = embed.encoder()
    texts = ["pump", "The discharge pressure of the pump is 38 bar."]
    expected = encoder.model.encode(texts, normalize_embeddings=True)
    assert np.allclose(embed.get_text_embedding_batch(texts), expected, atol=1e-5)
    other = Phi3Embedding(llm=tiny_llm, adapter=str(tmp_path / "a"))
    with pytest.raises(AdapterMismatchError, match=r"prompts and pooling should be .*'Find: '"):
        other.get_text_embedding("pump")


# Stores


def test_a_store_of_the_base_refuses_the_tuned_model_and_says_what_to_do(embed, trained, tmp_path):
    tuned = embed.with_adapter(trained)
    base, own = embedding_identity(embed), embedding_identity(tuned)
    assert {name for name in own if own.get(name) != base.get(name)} == {"adapter"}
    with FaissSQLiteVectorStore(tmp_path / "store", identity=base) as store:
        store.add([TextNode(id_="a", text="x", embedding=embed.get_text_embedding("x"))])
    expected = r"adapter: the store has None, given was '[0-9a-f]{16}'.* build a new store"
    with pytest.raises(StoreIdentityError, match=expected):
        FaissSQLiteVectorStore(tmp_path / "store", identity=own)


# Adapters that do not fit


def test_an_adapter_of_another_model_is_refused(trained, tmp_path):
    other = save_tiny_encoder(tmp_path, seed=1, prompts=PROMPTS)
    with pytest.raises(AdapterMismatchError, match="the base model's weights should be"):
        load_embedding(other, adapter=trained, device="cpu")


def test_an_adapter_with_other_prompts_is_refused(folder, trained):
    with pytest.raises(AdapterMismatchError, match=r"'query: '.* but is .*'ask: '.* Pass query_in"):
        load_embedding(folder, adapter=trained, device="cpu", query_instruction="ask: ")


def test_a_damaged_or_missing_adapter_is_refused(folder, trained, tmp_path):
    import shutil

    with pytest.raises(AdapterNotFoundError, match="nowhere"):
        load_embedding(folder, adapter=tmp_path / "nowhere", device="cpu")
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    weights = load_file(damaged / "adapter_model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, damaged / "adapter_model.safetensors")
    with pytest.raises(AdapterMismatchError, match=r"SHA-256 of adapter_model\.safetensors"):
        load_embedding(folder, adapter=damaged, device="cpu")
    (damaged / "phi3_industry.json").unlink()
    with pytest.raises(AdapterError, match=r"no phi3_industry\.json"):
        load_embedding(folder, adapter=damaged, device="cpu")


def test_a_second_adapter_is_trained_on_the_base(embed, trained, tmp_path):
    with pytest.raises(ConfigurationError, match=r"has the adapter .* already"):
        engine(embed.with_adapter(trained), tmp_path / "a").finetune()


# Stopped and resumed


class StoppedError(Exception):
    """The process dies."""


def test_a_stopped_run_goes_on_to_the_same_losses(embed, tmp_path, monkeypatch):
    settings = {"max_steps": 6, "save_steps": 2, "lora_dropout": 0.1}
    engine(embed, tmp_path / "whole", **settings).finetune()
    original = Watcher.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        original(self, args, state, control, **rest)
        if state.global_step == 5:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "on_step_end", stop)
        with pytest.raises(StoppedError):
            engine(embed, tmp_path / "stopped", **settings).finetune()
    assert not (tmp_path / "stopped").exists()
    with pytest.raises(FileExistsError, match="interrupted after step 4"):
        engine(embed, tmp_path / "stopped", **settings).finetune()
    with pytest.raises(ConfigurationError, match="another one: learning_rate was"):
        engine(embed, tmp_path / "stopped", **{**settings, "learning_rate": 1e-3}).finetune(
            resume=True
        )
    engine(embed, tmp_path / "stopped", **settings).finetune(resume=True)
    losses = [
        [
            point["loss"]
            for point in json.loads((tmp_path / name / "training/log.json").read_text())["points"]
        ]
        for name in ("whole", "stopped")
    ]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


# What cannot be trained on


def test_wrong_inputs_are_clear_errors_before_anything_is_written(embed, tmp_path):
    nodes, questions = plant()
    for settings, message in (
        ({"questions": []}, "There is no question"),
        ({"questions": questions[:1]}, "There is 1 question to train on"),
        (
            {"questions": [Question(id="q", question="?", answers=())]},
            "1 questions 0 name passages in gold_ids",
        ),
        ({"store": nodes[:1]}, "The store holds 1 passages"),
    ):
        with pytest.raises(TrainingDataError, match=message):
            engine(embed, tmp_path / "a", **settings).finetune()
    with pytest.raises(TypeError, match="A MockEmbedding cannot be trained here"):
        engine(MockEmbedding(embed_dim=4), tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        engine(embed, tmp_path / "a", questions=tmp_path / "none.jsonl").finetune()
    with pytest.raises(AdapterNotFoundError):
        engine(embed, tmp_path / "a").get_finetuned_model()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is not empty and holds no .phi3_industry\.json"):
        engine(embed, tmp_path / "taken").finetune()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
