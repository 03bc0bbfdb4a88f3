"""What is used where it is there."""

from __future__ import annotations

import pytest

from phi3_industry.finetuning import acceleration
from phi3_industry.finetuning.acceleration import Acceleration, choose_acceleration


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_has", lambda package: True)


@pytest.mark.usefixtures("everything")
def test_cpu_uses_torch_alone() -> None:
    assert choose_acceleration(device="cpu", dtype="bfloat16", quantization="nf4") == Acceleration(
        optimizer="adamw_torch", liger=False, attention="sdpa", bf16=True
    )


@pytest.mark.usefixtures("everything")
def test_gpu_uses_what_is_there() -> None:
    assert choose_acceleration(
        device="cuda:0", dtype="bfloat16", quantization="nf4"
    ) == Acceleration(
        optimizer="paged_adamw_32bit", liger=True, attention="flash_attention_2", bf16=True
    )


@pytest.mark.usefixtures("everything")
def test_flash_attention_is_for_halves_alone() -> None:
    chosen = choose_acceleration(device="cuda", dtype="float32", quantization=None)
    assert (chosen.attention, chosen.optimizer, chosen.bf16) == ("sdpa", "adamw_torch", False)


def test_what_is_not_installed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_has", lambda package: False)
    chosen = choose_acceleration(device="cuda", dtype="bfloat16", quantization=None)
    assert (chosen.attention, chosen.liger) == ("sdpa", False)
