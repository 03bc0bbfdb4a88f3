"""The settings of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from phi3_industry.finetuning.config import FinetuneConfig, recipe_for


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "lokr"}, "method is 'lokr'; it must be one of 'lora', 'qlora', 'rslora'"),
        ({"lr_scheduler": "step"}, "lr_scheduler is 'step'; it must be one of"),
        ({"lora_rank": 0}, "lora_rank is 0; it must be at least 1"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be above 0"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0; it must be at least 0 and below 1"),
        ({"warmup_ratio": -0.1}, "warmup_ratio is -0.1; it must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must not be negative"),
        ({"save_steps": 0}, "save_steps is 0; it must be at least 1"),
        ({"packing": True, "group_by_length": True}, "packing leaves nothing to pad"),
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
    recipe = FinetuneConfig(learning_rate=1e-3).recipe(3_800_000_000)
    assert recipe == replace(recipe_for(3_800_000_000), learning_rate=1e-3)
    assert recipe.gradient_checkpointing is True
    assert FinetuneConfig(gradient_checkpointing=False).recipe(10**10).gradient_checkpointing is (
        False
    )


def test_alpha_is_twice_the_rank_unless_it_is_given() -> None:
    assert FinetuneConfig(lora_rank=8).recipe(1).lora_alpha == 16
    assert FinetuneConfig(lora_rank=8, lora_alpha=4).recipe(1).lora_alpha == 4
    assert all(r.lora_alpha == 2 * r.lora_rank for r in map(recipe_for, (1, 10**10)))


def test_small_models_learn_faster_than_phi3() -> None:
    assert recipe_for(3_000_000).learning_rate > recipe_for(3_800_000_000).learning_rate


def test_every_method_scales_its_output_by_two_unless_told() -> None:
    assert FinetuneConfig(lora_rank=16).recipe(10**6).lora_alpha == 32
    # rank-stabilised: alpha is divided by the square root of the rank
    assert FinetuneConfig(method="rslora", lora_rank=16).recipe(10**6).lora_alpha == 8
    assert FinetuneConfig(method="rslora", lora_alpha=5).recipe(10**6).lora_alpha == 5


def test_identity_holds_what_decides_the_outcome_alone() -> None:
    plain = FinetuneConfig(target_modules=["qkv_proj", "o_proj"]).identity()
    told = FinetuneConfig(
        target_modules=("o_proj", "qkv_proj"), report_to=["tensorboard"], check_memory=False
    ).identity()
    assert plain == told
    assert FinetuneConfig(lora_dropout=0.1).identity() != FinetuneConfig().identity()
