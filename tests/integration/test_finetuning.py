"""From a table and questions to an adapter of the embedded model that answers from the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from phi3_industry import (
    KnowledgeBase,
    LoraFinetuneEngine,
    Phi3LLM,
    TrainingSetBuilder,
    load_embedding,
)
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.models.adapter import read_manifest, write_manifest
from phi3_industry.models.loading import load_base_model

TAGS = [f"P-{number}" for number in range(101, 113)]
QUESTION = "What is the discharge pressure of P-104?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finetuning")


@pytest.fixture(scope="module")
def knowledge_base(folder: Path) -> KnowledgeBase:
    documents = folder / "documents"
    documents.mkdir()
    rows = [f"{tag},{30 + place}.5 bar,{80 + place} kg" for place, tag in enumerate(TAGS)]
    table = "\n".join(["tag,discharge pressure,net weight", *rows])
    (documents / "pumps.csv").write_text(table + "\n", encoding="utf-8")
    base = KnowledgeBase.open(folder / "kb", embed_model=load_embedding("embedded"))
    base.add(documents)
    return base


@pytest.fixture(scope="module")
def train_set(folder: Path, knowledge_base: KnowledgeBase, embedded_llm: Phi3LLM) -> TrainingSet:
    path = folder / "questions.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for place, tag in enumerate(TAGS):
            for what, value, code in (
                ("discharge pressure", f"{30 + place}.5 bar", "PDIS"),
                ("net weight", f"{80 + place} kg", "GNET"),
            ):
                record = {
                    "id": f"{tag} {code}",
                    "question": f"What is the {what} of {tag}?",
                    "answers": [value],
                    "gold_ids": [f"pumps.csv#{tag}"],
                    "reference": f"{value} | {code}",
                }
                file.write(json.dumps(record) + "\n")
    builder = TrainingSetBuilder(knowledge_base, llm=embedded_llm, num_passages=(1, 2))
    built = builder.build(path, rows_per_question=1)
    assert built.report.counts["train"]["grounded"] >= 18
    return built


def engine(train_set: TrainingSet, folder: Path, **settings: Any) -> LoraFinetuneEngine:
    quick = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 3e-3, "batch_size": 4}
    return LoraFinetuneEngine(
        "embedded",
        train_set=train_set,
        output_dir=folder,
        show_progress=False,
        **{**quick, "max_steps": 12, **settings},
    )


@pytest.fixture(scope="module")
def trained(folder: Path, train_set: TrainingSet) -> LoraFinetuneEngine:
    tuner = engine(train_set, folder / "adapters" / "pumps")
    tuner.finetune()
    return tuner


def answer(llm: Phi3LLM, knowledge_base: KnowledgeBase) -> str:
    strategy = "rag" if llm.adapter is None else "rag_fine_tuned"
    query_engine = knowledge_base.as_query_engine(
        llm, adapter=llm.adapter, strategy=strategy, similarity_top_k=2
    )
    return str(query_engine.query(QUESTION))


def test_loss_falls(trained: LoraFinetuneEngine) -> None:
    metrics = read_manifest(trained.output_dir).metrics
    assert metrics["validation_loss_after"] < 0.5 * metrics["validation_loss_before"]


def test_adapter_serves_through_the_query_engine_and_a_reload_says_the_same(
    trained: LoraFinetuneEngine, knowledge_base: KnowledgeBase
) -> None:
    first = answer(trained.get_finetuned_model(max_new_tokens=16), knowledge_base)
    again = Phi3LLM(model="embedded", max_new_tokens=16)
    again.load_adapter(trained.output_dir, "pumps")
    assert first
    assert answer(again.with_adapter("pumps"), knowledge_base) == first
    assert read_manifest(trained.output_dir).prompt_fingerprint == DEFAULT_PROMPT.fingerprint


def test_zeroed_adapter_is_the_base_model(
    trained: LoraFinetuneEngine, train_set: TrainingSet, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    zeroed = tmp_path / "zeroed"
    shutil.copytree(trained.output_dir, zeroed)
    weights = load_file(zeroed / "adapter_model.safetensors")
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)
    save_file(
        {name: weight * ("lora_B" not in name) for name, weight in weights.items()},
        zeroed / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    write_manifest(
        zeroed,
        load_base_model("embedded"),
        prompt_fingerprint=train_set.prompt_fingerprint,
        method="lora",
        data_fingerprint=train_set.fingerprint,
        metrics={},
    )
    llm = Phi3LLM(model="embedded", max_new_tokens=16)
    prompts = [row.prompt for row in train_set.rows[:4]]
    continuation = ["[1] 33.5 bar"]
    base = [llm.score(prompt, continuation)[0] for prompt in prompts]
    llm.load_adapter(zeroed, "zeroed")
    view = llm.with_adapter("zeroed")
    for prompt, expected in zip(prompts, base, strict=True):
        assert view.score(prompt, continuation)[0] == pytest.approx(expected, abs=1e-5)


def test_qlora_learns_on_the_base_in_four_bits_and_serves(
    train_set: TrainingSet, knowledge_base: KnowledgeBase, tmp_path: Path
) -> None:
    tuner = engine(train_set, tmp_path / "pumps", method="qlora")
    manifest = tuner.finetune()
    assert manifest.method == "qlora"
    metrics = manifest.metrics
    assert metrics["validation_loss_after"] < 0.5 * metrics["validation_loss_before"]
    expert = tuner.get_finetuned_model(max_new_tokens=8)
    assert expert.quantization == "nf4"
    assert answer(expert, knowledge_base)
    # the 4-bit base and the whole one are the same model to an adapter
    whole = tuner.get_finetuned_model(max_new_tokens=8, quantization=None)
    assert answer(whole, knowledge_base)
