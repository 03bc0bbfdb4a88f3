"""Rows side by side in one forward pass see nothing of each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from phi3_industry.finetuning.examples import TokenizedRow, tokenize_rows
from phi3_industry.finetuning.packed_attention import use_row_attention
from phi3_industry.finetuning.slice_scores import score_slices
from phi3_industry.finetuning.trainer import LoraFinetuneEngine
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.loading import LoadedModel, load_base_model


@pytest.fixture(scope="module")
def loaded(tiny_phi3: Path) -> LoadedModel:
    return load_base_model(str(tiny_phi3))


@pytest.fixture
def rows(loaded: LoadedModel, train_set: TrainingSet) -> list[TokenizedRow]:
    tokenized = tokenize_rows(train_set.rows[:5], loaded.chat_format, max_length=512)
    assert len({len(row.input_ids) for row in tokenized}) > 1
    return tokenized


def packed_losses(model: Any, rows: list[TokenizedRow], **changes: Any) -> list[float]:
    """Losses of the rows in one pass, as TRL hands them to the model."""
    import torch

    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collator([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
    labels = batch.pop("labels")[0]
    assert "attention_mask" not in batch
    with torch.inference_mode():
        logits = model(**{**batch, "use_cache": False, **changes}).logits[0]
    each = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="none").split(
        [len(row.input_ids) for row in rows[:-1]] + [len(rows[-1].input_ids) - 1]
    )
    return [float(loss.sum()) / row.trained for loss, row in zip(each, rows, strict=True)]


def test_each_row_has_the_loss_that_it_has_alone(
    loaded: LoadedModel, rows: list[TokenizedRow]
) -> None:
    alone = [score_slices(loaded.model, [row], ["x"])["x"].loss for row in rows]
    assert packed_losses(loaded.model, rows) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("window", [None, 24])
def test_attention_row_by_row_is_that_of_all_rows_together(
    tiny_phi3: Path, rows: list[TokenizedRow], window: int | None
) -> None:
    together = load_base_model(str(tiny_phi3)).model
    by_row = load_base_model(str(tiny_phi3)).model
    for model in (together, by_row):
        model.config.sliding_window = window
    use_row_attention(by_row)
    assert max(len(row.input_ids) for row in rows) > (window or 0)
    expected = packed_losses(together, rows)
    assert packed_losses(by_row, rows) == pytest.approx(expected, abs=1e-5)
    # where nothing tells the rows the positions do
    untold: dict[str, Any] = {"cu_seq_lens_q": None, "cu_seq_lens_k": None}
    assert packed_losses(by_row, rows, **untold) == pytest.approx(expected, abs=1e-5)


def test_packed_training_attends_to_each_row_by_itself(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations import sdpa_attention

    widths: set[int] = set()
    attend = sdpa_attention.sdpa_attention_forward

    def noting(module: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        widths.add(query.shape[2])
        return attend(module, query, *arguments, **options)

    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", noting)
    engine = LoraFinetuneEngine(
        str(tiny_phi3),
        train_set=train_set,
        output_dir=tmp_path / "adapter",
        packing=True,
        max_steps=1,
        batch_size=4,
        show_progress=False,
    )
    engine.finetune()
    longest = max(
        len(row.input_ids)
        for row in tokenize_rows(
            train_set.rows, load_base_model(str(tiny_phi3)).chat_format, max_length=512
        )
    )
    assert 0 < max(widths) <= longest


@pytest.mark.parametrize("leak", ["cache", "attention mask", "positions"])
def test_what_would_leak_is_seen_by_this_test(
    loaded: LoadedModel, rows: list[TokenizedRow], leak: str
) -> None:
    import torch

    length = sum(len(row.input_ids) for row in rows)
    changes: dict[str, Any] = {
        "cache": {"use_cache": True},
        "attention mask": {"attention_mask": torch.ones(1, length, dtype=torch.long)},
        "positions": {"position_ids": torch.arange(length)[None]},
    }[leak]
    alone = [score_slices(loaded.model, [row], ["x"])["x"].loss for row in rows]
    assert packed_losses(loaded.model, rows, **changes)[1:] != pytest.approx(alone[1:], abs=1e-2)


def test_packed_training_follows_the_curve_of_padded_training(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    curves = []
    for name, packing in (("padded", False), ("packed", True)):
        LoraFinetuneEngine(
            str(tiny_phi3),
            train_set=train_set,
            output_dir=tmp_path / name,
            packing=packing,
            max_steps=6,
            lora_rank=4,
            batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            show_progress=False,
        ).finetune()
        log = json.loads((tmp_path / name / "training" / "log.json").read_text())
        curves.append([point["loss"] for point in log["points"]])
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    assert curves[0][-1] < curves[0][0]
