from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phi3_industry.errors import ModelLoadError
from phi3_industry.models import memory, placement
from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.loading import load_base_model
from phi3_industry.models.memory import available_memory
from phi3_industry.models.placement import check_fits_memory, choose_dtype

MINI = KNOWN_CHECKPOINTS["microsoft/Phi-3-mini-4k-instruct"]
BF16 = {**MINI.config, "dtype": "bfloat16"}
GIB = 2**30


def chosen(
    config: dict[str, Any], device: str = "cpu", asked: str = "auto", quantization: Any = None
) -> tuple[str, str]:
    return choose_dtype(
        asked, name=MINI.name, config=config, device=device, quantization=quantization
    )


def test_a_cpu_that_multiplies_bfloat16_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("avx512_bf16", "amx_bf16", "bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True})
        assert chosen(BF16) == ("bfloat16", "this CPU multiplies it")


def test_another_cpu_computes_in_float32_as_long_as_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    monkeypatch.setattr(placement, "available_memory", lambda device: 16 * GIB)
    assert chosen(BF16) == ("float32", "this CPU does not multiply bfloat16")
    monkeypatch.setattr(placement, "available_memory", lambda device: 12 * GIB)
    assert chosen(BF16) == ("bfloat16", "float32 does not fit into memory")
    assert chosen(BF16, quantization="nf4")[0] == "float32"


@pytest.mark.parametrize(("native", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_computes_in_the_16_bits_it_has(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert chosen(BF16, "cuda:0")[0] == dtype


def test_weights_stored_in_float32_stay_so_and_what_is_asked_for_wins() -> None:
    assert chosen({**MINI.config, "dtype": "float32"}) == ("float32", "its weights are stored so")
    assert chosen(BF16, asked="float16") == ("float16", "as asked")


def test_the_loaded_model_says_what_it_computes_with(tiny_phi3: Path) -> None:
    loaded = load_base_model(str(tiny_phi3))
    assert (loaded.dtype, loaded.dtype_reason) == ("float32", "its weights are stored so")
    assert loaded.attention == "sdpa"


@pytest.mark.parametrize(
    ("free_gib", "advice"),
    [
        (5.0, r"It fits with quantization='int8' \(4\.5 GiB\) or quantization='nf4' \(2\.8 GiB\)"),
        (3.0, r"It fits with quantization='nf4' \(2\.8 GiB\)\.$"),
        (1.0, r"it still needs 2\.8 GiB: choose a smaller checkpoint, or let a server"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, advice: str
) -> None:
    monkeypatch.setattr(placement, "available_memory", lambda device: int(free_gib * GIB))
    with pytest.raises(ModelLoadError, match=advice) as caught:
        check_fits_memory("mini", BF16, dtype="bfloat16", quantization=None, device="cpu")
    assert (
        "The model 'mini' needs 7.8 GiB in bfloat16 (7.1 GiB of weights, 0.7 GiB for the keys and "
        f"values of 2000 tokens), and {free_gib:.1f} GiB are free on 'cpu'."
    ) in str(caught.value)


def test_what_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "available_memory", lambda device: 8 * GIB)
    estimate = check_fits_memory("mini", BF16, dtype="bfloat16", quantization=None, device="cpu")
    assert estimate == MINI.memory()


def test_half_the_type_is_offered_where_float32_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "available_memory", lambda device: 9 * GIB)
    with pytest.raises(ModelLoadError, match=r"It fits with dtype='bfloat16' \(7\.8 GiB\) or"):
        check_fits_memory("mini", BF16, dtype="float32", quantization=None, device="cpu")


def test_memory_is_checked_before_any_weight_is_read(
    tiny_phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(placement, "available_memory", lambda device: 1000)
    with monkeypatch.context() as patch:
        patch.setattr(AutoModelForCausalLM, "from_pretrained", None)
        with pytest.raises(ModelLoadError, match="GiB are free on 'cpu'"):
            load_base_model(str(tiny_phi3))
    assert load_base_model(str(tiny_phi3), check_memory=False).memory.weights_bytes > 1000


def test_free_memory_of_a_container_is_what_its_limit_leaves(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 400\ninactive_file 200\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory._free_in_container(tmp_path, otherwise=9) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in_container(tmp_path, otherwise=9) == 9
    assert memory._free_in_container(tmp_path / "nowhere", otherwise=9) == 9


def test_free_memory_is_known_on_this_machine() -> None:
    assert 0 < available_memory("cpu") < 2**50
