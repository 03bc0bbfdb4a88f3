"""The settings of a run."""

from __future__ import annotations

from typing import Any

import pytest

from phi3_industry.finetuning.config import FinetuneConfig, recipe_for


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dora"}, "method is 'dora'; it must be one of 'lora', 'qlora'"),
        ({"lr_scheduler": "step"}, "lr_scheduler is 'step'; it must be one of"),
        ({"lora_rank": 0}, "lora_rank is 0; it must be at least 1"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be above 0"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0; it must be at least 0 and below 1"),
        ({"warmup_ratio": -0.1}, "warmup_ratio is -0.1; it must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must not be negative"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"target_modules": []}, "target_modules is empty; name a layer, or pass None"),
    ],
)
def test_setting_outside_its_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**settings)


def test_target_modules_as_one_text_are_refused() -> None:
    with pytest.raises(TypeError, match="'qkv_proj'; it must be a list of names"):
        FinetuneConfig(target_modules="qkv_proj")


def test_model_size_fills_in_only_what_is_left_open() -> None:
    config = FinetuneConfig(learning_rate=1e-3).resolved(3_800_000_000)
    recipe = recipe_for(3_800_000_000)
    assert config.learning_rate == 1e-3
    assert config.batch_size == recipe.batch_size
    assert config.num_epochs == recipe.num_epochs
    assert config.gradient_accumulation_steps == recipe.gradient_accumulation_steps
    assert config.gradient_checkpointing is True


def test_small_models_learn_faster_than_phi3() -> None:
    assert recipe_for(3_000_000).learning_rate > recipe_for(3_800_000_000).learning_rate
