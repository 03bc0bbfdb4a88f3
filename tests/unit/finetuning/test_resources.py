"""What training takes, estimated before it begins."""

from __future__ import annotations

import pytest

from phi3_industry.errors import ConfigurationError
from phi3_industry.finetuning import resources
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.resources import check_memory, estimate_training_memory

LAYOUT = {"hidden_size": 100, "intermediate_size": 200, "num_hidden_layers": 3, "vocab_size": 1000}


def estimate(**settings: object) -> resources.TrainingMemory:
    config = FinetuneConfig(batch_size=2, **settings)  # type: ignore[arg-type]
    return estimate_training_memory(
        LAYOUT,
        config.recipe(10**6),
        weights=5_000_000,
        trained_parameters=1000,
        longest_row=50,
        dtype="bfloat16",
    )


def test_estimate_adds_up_by_hand() -> None:
    found = estimate(gradient_checkpointing=False)
    assert (found.adapter, found.gradients, found.optimizer) == (4000, 4000, 8000)
    # 100 tokens of 2 bytes: 8 x 100 + 5 x 200 values in each of 3 layers; logits of 100 x 1000
    assert found.activations == 3 * 100 * 2 * 1800 + 100 * 1000 * 4
    assert found.to_come == 16000 + found.activations


def test_checkpointing_keeps_the_input_of_each_layer_and_one_layer_whole() -> None:
    found = estimate(gradient_checkpointing=True)
    assert found.activations == 3 * 100 * 2 * 100 + 100 * 2 * 1800 + 100 * 1000 * 4


def test_run_that_does_not_fit_is_refused_with_what_would_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = estimate()
    recipe = FinetuneConfig(batch_size=2).recipe(10**6)
    monkeypatch.setattr(resources, "available_memory", lambda device: found.to_come)
    check_memory(found, recipe, device="cpu")
    monkeypatch.setattr(resources, "available_memory", lambda device: found.to_come - 1)
    with pytest.raises(
        ConfigurationError, match=r"are free on 'cpu' .* batch_size below 2, gradient_checkpointing"
    ):
        check_memory(found, recipe, device="cpu")
