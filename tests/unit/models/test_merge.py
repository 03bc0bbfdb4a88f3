from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from family_models import save_family_member
from phi3_industry.errors import AdapterError, AdapterMismatchError
from phi3_industry.models.adapter import attach_adapter, write_manifest
from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.loading import load_base_model
from phi3_industry.models.merge import (
    MERGE_RECORD_NAME,
    LogitDrift,
    measure_drift,
    merge_adapter,
)
from tiny_models import save_random_adapter, save_tiny_phi3

PROBES = [[{"role": "user", "content": "泵 P-4471?"}]]


def logits_of(model: object, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float()  # type: ignore[operator]


def test_a_merged_model_computes_what_base_and_adapter_do(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    merged = merge_adapter(str(tiny_phi3), adapter, tmp_path / "merged")
    loaded = load_base_model(str(merged.path))
    ids = loaded.chat_format.encode_messages(PROBES[0])
    base = load_base_model(str(tiny_phi3)).model
    plain = logits_of(base, ids)
    beside = logits_of(attach_adapter(base, adapter, internal_name="a"), ids)
    found = logits_of(loaded.model, ids)
    assert torch.allclose(found, beside, atol=1e-3)
    assert not torch.allclose(found, plain, atol=0.1)
    assert merged.drift.max_abs < 1e-3
    assert merged.drift.same_choice == 1.0
    assert merged.drift.positions == 4 * 48
    assert merged.training_drift is None


def test_the_drift_of_16_bits_is_measured_and_written_down(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    merged = merge_adapter(
        str(tiny_phi3), adapter, tmp_path / "merged", dtype="bfloat16", probes=PROBES
    )
    assert merged.drift.max_abs > 1e-3  # rounding to 8 bits of mantissa shows
    record = json.loads((merged.path / MERGE_RECORD_NAME).read_text())
    assert record["drift"]["max_abs"] == merged.drift.max_abs
    assert record["base"] == tiny_phi3.name
    assert not list(tmp_path.glob(".merged*"))


def test_a_qlora_adapter_is_also_compared_with_the_base_it_learned_on(tmp_path: Path) -> None:
    base = save_family_member(tmp_path / "base", KNOWN_CHECKPOINTS["microsoft/phi-4"])
    adapter = save_random_adapter(tmp_path / "adapter", base)
    write_manifest(
        adapter,
        load_base_model(str(base)),
        prompt_fingerprint="none",
        method="qlora",
        data_fingerprint="none",
        metrics={},
    )
    merged = merge_adapter(str(base), adapter, tmp_path / "merged", dtype="float32")
    assert merged.training_drift is not None
    assert merged.training_drift.max_abs > 10 * merged.drift.max_abs


def test_an_adapter_is_never_merged_into_quantised_weights(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    quantised = load_base_model(str(tiny_phi3), quantization="nf4")
    quantised.model.save_pretrained(tmp_path / "nf4")
    quantised.tokenizer.save_pretrained(tmp_path / "nf4")
    with pytest.raises(AdapterError, match="stored as nf4, and an adapter is merged into 16- or"):
        merge_adapter(str(tmp_path / "nf4"), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_only_an_adapter_of_this_base_is_merged(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    other = save_tiny_phi3(tmp_path / "other", seed=1)
    with pytest.raises(AdapterMismatchError, match="the base model's weights"):
        merge_adapter(str(other), adapter, tmp_path / "merged")


def test_weights_that_are_no_numbers_are_not_merged(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    weights[sorted(weights)[0]][0, 0] = float("nan")
    save_file(weights, path)
    write_manifest(
        adapter,
        load_base_model(str(tiny_phi3)),
        prompt_fingerprint="none",
        method="lora",
        data_fingerprint="none",
        metrics={},
    )
    with pytest.raises(AdapterError, match="cannot be merged"):
        merge_adapter(str(tiny_phi3), adapter, tmp_path / "merged")


def test_a_folder_in_the_way_is_kept(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="holds something already"):
        merge_adapter(str(tiny_phi3), adapter, tmp_path / "merged")


def test_no_probe_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    with pytest.raises(ValueError, match="probes is empty"):
        merge_adapter(str(tiny_phi3), adapter, tmp_path / "merged", probes=[])


def test_drift_by_hand() -> None:
    before = [torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]])]
    after = [torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 3.0]])]
    # the first row: softmax (1/2, 1/2) against (1, e) / (1 + e)
    # KL = 1/2 ln((1 + e) / 2) + 1/2 ln((1 + e) / (2 e)) = ln((1 + e) / 2) - 1/2 = 0.12011
    assert measure_drift(before, after) == LogitDrift(
        max_abs=1.0,
        mean_abs=0.25,
        kl_divergence=pytest.approx(0.12011 / 2, abs=1e-5),
        same_choice=0.5,
        positions=2,
    )
