from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from phi3_industry.errors import ConfigurationError, ModelLoadError
from phi3_industry.models.loading import load_base_model, load_checkpoint
from tiny_models import save_tiny_phi3


def test_the_embedded_model_is_a_genuine_phi3() -> None:
    loaded = load_base_model("embedded")
    assert type(loaded.model).__name__ == "Phi3ForCausalLM"
    assert loaded.model.config.model_type == "phi3"
    names = {name.rsplit(".", 2)[-2] for name, _ in loaded.model.named_parameters()}
    assert {"qkv_proj", "gate_up_proj"} <= names
    assert (loaded.name, loaded.dtype, loaded.device) == ("embedded", "float32", "cpu")
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_folder_loads_by_its_own_configuration(tiny_phi3: Path) -> None:
    loaded = load_base_model(str(tiny_phi3))
    assert loaded.checkpoint.context_window == 512
    assert loaded.name == tiny_phi3.name


def test_what_a_model_holds_is_known_without_its_weights(tiny_phi3: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_phi3 / "config.json", tmp_path)
    assert load_checkpoint(str(tmp_path)).context_window == 512


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantised_models_compute_close_to_the_plain_one(quantization: str) -> None:
    plain = load_base_model("embedded")
    quantised = load_base_model("embedded", quantization=quantization)  # type: ignore[arg-type]
    assert quantised.model.get_memory_footprint() < plain.model.get_memory_footprint()
    ids = torch.tensor([plain.chat_format.encode_messages([{"role": "user", "content": "P-7?"}])])
    with torch.inference_mode():
        expected = plain.model(ids).logits.flatten()
        found = quantised.model(ids).logits.flatten().float()
    assert torch.nn.functional.cosine_similarity(expected, found, dim=0) > 0.95


def test_the_weights_fingerprint_does_not_depend_on_how_the_model_was_loaded() -> None:
    fingerprints = {
        load_base_model("embedded").weights_fingerprint,
        load_base_model("embedded", dtype="bfloat16").weights_fingerprint,
        load_base_model("embedded", quantization="nf4").weights_fingerprint,
    }
    assert len(fingerprints) == 1


def test_models_of_the_same_shape_have_different_fingerprints(
    tiny_phi3: Path, tmp_path: Path
) -> None:
    other = load_base_model(str(save_tiny_phi3(tmp_path, seed=1)))
    first = load_base_model(str(tiny_phi3))
    assert other.config_hash == first.config_hash
    assert other.weights_fingerprint != first.weights_fingerprint


def test_a_missing_model_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"neither 'embedded', nor a folder .*Phi-3-mini-4k"):
        load_base_model(str(tmp_path / "nowhere"), local_files_only=True)


def test_a_model_of_another_kind_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_phi3 / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(ModelLoadError, match=r"of the type 'llama'; this library loads the types"):
        load_base_model(str(tmp_path))


def test_a_folder_without_weights_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_phi3, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="does not load"):
        load_base_model(str(tmp_path))


def test_pickled_weights_are_never_read(tiny_phi3: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_phi3, tmp_path, dirs_exist_ok=True)
    weights = load_base_model(str(tiny_phi3)).model.state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="does not load"):
        load_base_model(str(tmp_path))


def test_code_in_a_checkpoint_is_not_run(tiny_phi3: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_phi3, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_phi3.py").write_text("raise SystemExit('code of the checkpoint ran')")
    assert type(load_base_model(str(tmp_path)).model).__module__.startswith("transformers.")


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match=r"torch sees no CUDA device. Use device='cpu'"):
        load_base_model("embedded", device="cuda:0")


def test_an_unknown_quantisation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be None, 'nf4' or 'int8'"):
        load_base_model("embedded", quantization="int3")  # type: ignore[arg-type]
