"""What the command hands on, and what its exit code says."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever

from phi3_industry.cli import main
from phi3_industry.finetuning.dataset import TrainingSetBuilder
from phi3_industry.finetuning.trainer import LoraFinetuneEngine
from phi3_industry.finetuning.training_set import TrainingSet


@dataclass
class Manifest:
    """As much of an adapter's manifest as the command looks at."""

    metrics: dict[str, Any]


@pytest.fixture
def given(
    retriever: BaseRetriever, train_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Train nothing; keep what was handed on, and end with the verdict in it."""
    kept: dict[str, Any] = {"verdict": "better"}

    def build(self: TrainingSetBuilder, **sources: Any) -> TrainingSet:
        kept["sources"] = sources
        return train_set

    def finetune(self: LoraFinetuneEngine, *, resume: bool) -> Any:
        kept.update(config=self.config, resume=resume)
        return Manifest(metrics={"verdict": kept["verdict"]})

    monkeypatch.setattr(
        "phi3_industry.cli.finetune.open_knowledge_base",
        lambda *_, **__: nullcontext(retriever),
    )
    monkeypatch.setattr("phi3_industry.cli.finetune.check_places", lambda _: None)
    monkeypatch.setattr(TrainingSetBuilder, "build", build)
    monkeypatch.setattr(LoraFinetuneEngine, "finetune", finetune)
    return kept


@pytest.mark.parametrize(
    ("verdict", "code"), [("better", 0), ("unclear", 0), ("not measured", 0), ("worse", 4)]
)
def test_exit_code_says_whether_the_adapter_is_worse(
    given: dict[str, Any], verdict: str, code: int, tiny_phi3: Path
) -> None:
    given["verdict"] = verdict
    arguments = ["finetune", "q.jsonl", "--model", str(tiny_phi3), "--output", "adapter"]
    assert main(arguments) == code


def test_settings_of_the_command_reach_the_engine(given: dict[str, Any], tiny_phi3: Path) -> None:
    arguments = "finetune --glossary g.json --conversations a.jsonl b.jsonl --replay c.jsonl"
    more = "--method dora --resume --packing --patience 3 --tensorboard --rank 8 --output out"
    assert main([*arguments.split(), *more.split(), "--model", str(tiny_phi3)]) == 0
    assert given["sources"] == {
        "questions": None,
        "glossary": "g.json",
        "conversations": ["a.jsonl", "b.jsonl"],
        "replay": ["c.jsonl"],
        "show_progress": False,
    }
    config = given["config"]
    assert given["resume"] is True
    assert (config.method, config.packing, config.lora_rank) == ("dora", True, 8)
    assert (config.early_stopping_patience, config.report_to) == (3, ["tensorboard"])
