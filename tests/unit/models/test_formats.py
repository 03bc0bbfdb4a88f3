from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from family_models import save_family_member
from phi3_industry.errors import ConfigurationError, MissingDependencyError, ModelLoadError
from phi3_industry.models import formats
from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.formats import load_config, stored_quantization
from phi3_industry.models.loading import load_base_model
from tiny_models import save_random_adapter


def folder_with_config(tmp_path: Path, **config: Any) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("phi3small", "Use 'microsoft/Phi-3-medium-4k-instruct' or"),
        ("phi3_v", "It reads pictures, and this library reads text. Use 'microsoft/Phi-3.5-mini"),
        ("phi4mm", "Use 'microsoft/Phi-4-mini-instruct' instead"),
        ("phi4_multimodal", "Use 'microsoft/Phi-4-mini-instruct' instead"),
    ],
)
def test_relatives_that_cannot_be_loaded_name_one_that_can(
    tmp_path: Path, kind: str, advice: str
) -> None:
    code = {"AutoModelForCausalLM": f"modeling_{kind}.Model"}
    with pytest.raises(ModelLoadError, match=rf"of the type '{kind}'\. .*{advice}"):
        load_config(folder_with_config(tmp_path, model_type=kind, auto_map=code))


def test_a_checkpoint_that_demands_its_own_code_is_refused(tmp_path: Path) -> None:
    folder = folder_with_config(
        tmp_path, model_type="phi3_custom", auto_map={"AutoConfig": "configuration_own.Config"}
    )
    (tmp_path / "configuration_own.py").write_text("raise SystemExit('code of the checkpoint ran')")
    with pytest.raises(ModelLoadError, match="demands that code from the checkpoint is run, which"):
        load_base_model(folder)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("microsoft/Phi-3-mini-4k-instruct-gguf", r"llama.cpp \(GGUF\)"),
        ("microsoft/Phi-3-mini-4k-instruct-onnx", r"ONNX Runtime \(ONNX\)"),
        ("models/Phi-3-mini-4k-instruct-q4.gguf", r"llama.cpp \(GGUF\)"),
    ],
)
def test_files_for_other_runtimes_are_refused_by_name(name: str, runtime: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"is made for {runtime}.*quantization='nf4'"):
        load_config(name, local_files_only=True)


@pytest.mark.parametrize("file", ["cpu-int4/model.onnx", "phi-3-q4.GGUF"])
def test_folders_for_other_runtimes_are_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(ModelLoadError, match=r"or let .* serve the file and give its address"):
        load_config(folder_with_config(tmp_path, model_type="phi3"))


def test_an_adapter_is_no_base_model_even_beside_one(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    with pytest.raises(ModelLoadError, match=r"holds an adapter\. Load its base model, then"):
        load_base_model(str(adapter))
    both = shutil.copytree(tiny_phi3, tmp_path / "both")
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    with pytest.raises(ModelLoadError, match="holds an adapter"):
        load_base_model(str(both))


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nor a folder with a config\.json of a known kind"):
        load_config(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{", '"phi3"', "{}", '{"model_type": 3}'])
def test_an_unreadable_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelLoadError):
        load_config(str(tmp_path))


def test_gptq_weights_without_its_package_are_refused(
    tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    raw = json.loads((tiny_phi3 / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(MissingDependencyError, match=r"'optimum' is needed to load .* with GPTQ"):
        load_config(folder_with_config(tmp_path, **raw))
    monkeypatch.setattr(formats, "find_spec", importlib.util.find_spec)
    assert stored_quantization(raw) == "gptq"


def test_other_quantisations_are_refused_with_what_can_be_read(
    tiny_phi3: Path, tmp_path: Path
) -> None:
    raw = json.loads((tiny_phi3 / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "awq", "bits": 4}
    with pytest.raises(ModelLoadError, match=r"quantised with 'awq'; .* quantization='nf4'\."):
        load_config(folder_with_config(tmp_path, **raw))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_checkpoint_stored_quantised_loads_as_it_is(tmp_path: Path, quantization: Any) -> None:
    known = KNOWN_CHECKPOINTS["microsoft/Phi-3-medium-4k-instruct"]
    plain = save_family_member(tmp_path / "plain", known)
    first = load_base_model(str(plain), quantization=quantization, dtype="float32")
    ids = torch.tensor([first.chat_format.encode_messages([{"role": "user", "content": "P-7?"}])])
    stored = shutil.copytree(plain, tmp_path / "stored")
    (stored / "model.safetensors").unlink()
    first.model.save_pretrained(stored)
    second = load_base_model(str(stored), dtype="float32")
    assert second.quantization == quantization
    assert second.config_hash == first.config_hash
    assert second.weights_fingerprint == first.weights_fingerprint
    with torch.inference_mode():
        assert torch.allclose(first.model(ids).logits, second.model(ids).logits, atol=1e-4)
    other = "int8" if quantization == "nf4" else "nf4"
    with pytest.raises(ConfigurationError, match=f"quantization is '{other}' and the weights of"):
        load_base_model(str(stored), quantization=other)  # type: ignore[arg-type]
