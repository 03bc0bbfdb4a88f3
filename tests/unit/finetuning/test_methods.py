"""Every method's adapter serves as it was trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi3_industry.finetuning.config import Method
from phi3_industry.finetuning.examples import tokenize_rows
from phi3_industry.finetuning.slice_scores import BeforeAndAfter, score_slices
from phi3_industry.finetuning.trainer import LoraFinetuneEngine
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.adapter import attach_adapter
from phi3_industry.models.loading import load_base_model


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "pissa"])
def test_loss_on_the_untouched_base_is_the_loss_after_training(
    method: Method, tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    tuner = LoraFinetuneEngine(
        str(tiny_phi3),
        train_set=train_set,
        output_dir=tmp_path / "pumps",
        method=method,
        max_steps=6,
        lora_rank=4,
        batch_size=4,
        learning_rate=1e-2,
        show_progress=False,
    )
    metrics = tuner.finetune().metrics
    assert metrics["verdict"] == "better"
    loaded = load_base_model(str(tiny_phi3))
    rows = train_set.split("validation")
    held_out = tokenize_rows(rows, loaded.chat_format, max_length=512), [row.slice for row in rows]
    before = score_slices(loaded.model, *held_out)
    served = attach_adapter(loaded.model, tmp_path / "pumps", internal_name="served")
    scores = BeforeAndAfter(before=before, after=score_slices(served, *held_out))
    assert scores.loss == pytest.approx(
        (metrics["validation_loss_before"], metrics["validation_loss_after"]), abs=1e-3
    )
    expert = tuner.get_finetuned_model(max_new_tokens=4)
    question = "Question: What is the discharge pressure of pump P-1?"
    assert expert.complete(question).text != expert.with_adapter(None).complete(question).text
