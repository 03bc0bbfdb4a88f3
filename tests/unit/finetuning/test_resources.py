"""What training takes, estimated before it begins."""

from __future__ import annotations

import pytest

from phi3_industry.errors import ConfigurationError
from phi3_industry.finetuning import resources
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.resources import check_memory, estimate_training_memory
from phi3_industry.models.memory import MemoryEstimate

LAYOUT = {"hidden_size": 100, "intermediate_size": 200, "num_hidden_layers": 3, "vocab_size": 1000}


# 3 layers of 1,000,000 bytes, an embedding and a head of as many
BASE = MemoryEstimate(
    parameters=2_500_000,
    weights={
        "embeddings": 1_000_000,
        "attention": 1_000_000,
        "mlp": 1_997_000,
        "norms": 3000,
        "head": 1_000_000,
    },
    kv_bytes_per_token=0,
    sliding_window=None,
)


def estimate(*, shares: int = 1, **settings: object) -> resources.TrainingMemory:
    config = FinetuneConfig(batch_size=2, **settings)  # type: ignore[arg-type]
    return estimate_training_memory(
        LAYOUT,
        config.recipe(10**6),
        base=BASE,
        trained_parameters=1000,
        longest_row=50,
        dtype="bfloat16",
        shares=shares,
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


def test_a_base_that_is_shared_out_is_whole_layer_by_layer() -> None:
    found = estimate(gradient_checkpointing=True, shares=2)
    alone = estimate(gradient_checkpointing=True)
    assert (found.weights, found.adapter, found.optimizer) == (2_500_000, 2000, 4000)
    assert found.activations == alone.activations
    # two layers and the output head
    assert found.gathered == 2 * 1_000_000 + 1_000_000
    assert (found.loading, alone.loading, alone.gathered) == (5_000_000, 0, 0)
    assert found.peak == max(5_000_000, 2_500_000 + found.to_come)
    assert "in each process, and 4.8 MiB while it loads" in str(found)


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
