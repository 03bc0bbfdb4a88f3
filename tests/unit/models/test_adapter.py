from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from phi3_industry.errors import (
    AdapterError,
    AdapterMismatchError,
    AdapterNotFoundError,
    TargetModuleError,
)
from phi3_industry.models.adapter import (
    MANIFEST_NAME,
    attach_adapter,
    check_fits,
    linear_module_names,
    read_manifest,
    resolve_target_modules,
    write_manifest,
)
from phi3_industry.models.loading import LoadedModel, load_base_model
from tiny_models import save_random_adapter, save_tiny_phi3

ALL_LINEAR = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


@pytest.fixture(scope="module")
def base(tiny_phi3: Path) -> LoadedModel:
    return load_base_model(str(tiny_phi3))


@pytest.fixture
def adapter(tiny_phi3: Path, tmp_path: Path) -> Path:
    return save_random_adapter(tmp_path / "adapter", tiny_phi3)


def test_all_linear_layers_but_the_head_are_targets_by_default(base: LoadedModel) -> None:
    assert resolve_target_modules(base.model, None) == ALL_LINEAR


def test_targets_of_the_cookbook_sample_are_refused_by_name(base: LoadedModel) -> None:
    sample = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"]
    with pytest.raises(TargetModuleError, match=r"'q_proj'.*use 'qkv_proj' in place of") as caught:
        resolve_target_modules(base.model, sample)
    assert caught.value.missing == ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]
    assert caught.value.available == ALL_LINEAR


def test_no_target_at_all_is_refused(base: LoadedModel) -> None:
    with pytest.raises(TargetModuleError):
        resolve_target_modules(base.model, [])


def test_layers_of_quantised_and_adapted_models_are_named_alike(
    tiny_phi3: Path, adapter: Path
) -> None:
    plain = linear_module_names(load_base_model(str(tiny_phi3)).model)
    quantised = linear_module_names(load_base_model(str(tiny_phi3), quantization="nf4").model)
    adapted = attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")
    assert plain == quantised == linear_module_names(adapted.get_base_model())


def test_a_manifest_is_read_as_it_was_written(base: LoadedModel, adapter: Path) -> None:
    manifest = read_manifest(adapter)
    assert manifest.base_model == base.name
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(manifest.files)
    check_fits(manifest, base, adapter=adapter)


def test_a_manifest_needs_the_files_it_speaks_of(base: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"holds no adapter_config.json"):
        write_manifest(
            tmp_path, base, prompt_fingerprint="", method="lora", data_fingerprint="", metrics={}
        )


def test_a_missing_folder_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterNotFoundError, match=r"There is no adapter '.*nowhere'"):
        read_manifest(tmp_path / "nowhere")


def test_an_adapter_without_manifest_is_refused(adapter: Path) -> None:
    (adapter / MANIFEST_NAME).unlink()
    with pytest.raises(AdapterError, match="nothing says which base model"):
        read_manifest(adapter)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3}', "[" * 100_000])
def test_an_unreadable_manifest_is_refused(adapter: Path, text: str) -> None:
    (adapter / MANIFEST_NAME).write_text(text)
    with pytest.raises(AdapterError, match="cannot be read"):
        read_manifest(adapter)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_changed_byte_is_found(adapter: Path, name: str) -> None:
    content = bytearray((adapter / name).read_bytes())
    content[len(content) // 2] ^= 1
    (adapter / name).write_bytes(content)
    with pytest.raises(AdapterMismatchError, match=f"the SHA-256 of {name} should be"):
        read_manifest(adapter)


def test_a_file_outside_of_the_folder_is_refused(adapter: Path) -> None:
    manifest = json.loads((adapter / MANIFEST_NAME).read_text())
    manifest["files"]["../secret"] = "0"
    (adapter / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(AdapterError, match="outside of its folder"):
        read_manifest(adapter)


def test_a_manifest_of_a_later_format_is_refused(adapter: Path) -> None:
    manifest = json.loads((adapter / MANIFEST_NAME).read_text())
    (adapter / MANIFEST_NAME).write_text(json.dumps({**manifest, "format_version": 2}))
    with pytest.raises(AdapterError, match="format version 2; this library reads version 1"):
        read_manifest(adapter)


def test_an_adapter_of_another_base_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = load_base_model(str(save_tiny_phi3(tmp_path / "other", seed=1)))
    with pytest.raises(AdapterMismatchError, match="the base model's weights should be that of"):
        check_fits(read_manifest(adapter), other, adapter=adapter)


def test_an_adapter_of_another_shape_is_refused(adapter: Path) -> None:
    embedded = load_base_model("embedded")
    with pytest.raises(AdapterMismatchError, match="the base model's configuration"):
        check_fits(read_manifest(adapter), embedded, adapter=adapter)


def test_an_adapter_of_another_chat_template_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(tiny_phi3, tmp_path / "changed")
    template = changed / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    with pytest.raises(AdapterMismatchError, match="the tokenizer with its chat template"):
        check_fits(read_manifest(adapter), load_base_model(str(changed)), adapter=adapter)


def rewrite_weights(adapter: Path, change: object) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)  # type: ignore[operator]
    save_file(weights, path)


def test_missing_and_unexpected_and_misshapen_weights_are_refused(
    tiny_phi3: Path, tmp_path: Path
) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        weights.pop(sorted(weights)[0])

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["base_model.model.lm_head.weight"] = torch.zeros(2, 2)

    def shrink(weights: dict[str, torch.Tensor]) -> None:
        name = sorted(weights)[0]
        weights[name] = weights[name][:-1].contiguous()

    for number, change in enumerate((drop, add, shrink)):
        adapter = save_random_adapter(tmp_path / str(number), tiny_phi3)
        rewrite_weights(adapter, change)
        with pytest.raises(AdapterMismatchError, match=r"the weight base_model\.model\."):
            attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")


def save_peft_adapter(folder: Path, base: Path, config: Any) -> Path:
    """An adapter of PEFT's with a manifest, its weights as PEFT first draws them."""
    from peft import get_peft_model

    get_peft_model(load_base_model(str(base)).model, config).save_pretrained(folder)
    write_manifest(
        folder,
        load_base_model(str(base)),
        prompt_fingerprint="none",
        method="lora",
        data_fingerprint="none",
        metrics={},
    )
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["o_proj"]},
        {"target_modules": r".*layers\.1\..*qkv_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["qkv_proj"], "layers_to_transform": [0]},
        {"target_modules": ["qkv_proj", "o_proj"], "rank_pattern": {"o_proj": 2}},
        {"target_modules": ["o_proj"], "use_dora": True},
        {"target_modules": ["o_proj"], "use_rslora": True},
    ],
)
def test_whatever_plain_lora_peft_saves_is_attached(
    tiny_phi3: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model_state_dict

    adapter = save_peft_adapter(tmp_path / "adapter", tiny_phi3, LoraConfig(r=4, **settings))
    adapted = attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")
    saved = load_file(adapter / "adapter_model.safetensors")
    attached = get_peft_model_state_dict(adapted, adapter_name="a")
    assert attached.keys() == saved.keys()
    assert all(torch.equal(attached[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules_to_save": ["norm"]}, r"sets modules_to_save to \['norm'\], so it replaces"),
        ({"bias": "lora_only"}, r"changes biases \(bias='lora_only'\)"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices to"),
    ],
)
def test_an_adapter_that_changes_what_others_share_is_refused(
    tiny_phi3: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    from peft import LoraConfig

    adapter = save_peft_adapter(
        tmp_path / "adapter", tiny_phi3, LoraConfig(target_modules=["o_proj"], **settings)
    )
    with pytest.raises(AdapterError, match=message):
        attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")


def test_another_kind_of_adapter_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    from peft import LoKrConfig

    adapter = save_peft_adapter(
        tmp_path / "adapter", tiny_phi3, LoKrConfig(r=2, target_modules=["o_proj"])
    )
    with pytest.raises(AdapterError, match=r"of the type 'LOKR'; this library loads LoRA"):
        attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"peft_type": "LORA", "r": ['])
def test_an_unreadable_adapter_configuration_is_refused(
    tiny_phi3: Path, adapter: Path, text: str
) -> None:
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(AdapterError):
        attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")


def test_unreadable_weights_are_refused(tiny_phi3: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors' cannot be read"):
        attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")


def test_targets_that_are_not_in_the_model_are_refused_before_loading(
    tiny_phi3: Path, adapter: Path
) -> None:
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "target_modules": ["o_proj", "q_proj"]}))
    with pytest.raises(TargetModuleError, match=r"\['q_proj'\] are not in this model"):
        attach_adapter(load_base_model(str(tiny_phi3)).model, adapter, internal_name="a")


def test_an_adapter_of_another_prompt_is_refused_unless_the_prompt_is_left_open(
    base: LoadedModel, adapter: Path
) -> None:
    manifest = read_manifest(adapter)
    check_fits(manifest, base, adapter=adapter)
    check_fits(manifest, base, adapter=adapter, prompt_fingerprint="none")
    with pytest.raises(AdapterMismatchError, match=r"the prompt should be the one .* \(none\)"):
        check_fits(manifest, base, adapter=adapter, prompt_fingerprint="other")


def test_a_refused_adapter_leaves_the_model_as_it_was(tiny_phi3: Path, tmp_path: Path) -> None:
    good = save_random_adapter(tmp_path / "good", tiny_phi3)
    bad = save_random_adapter(tmp_path / "bad", tiny_phi3, seed=1)
    rewrite_weights(bad, lambda weights: weights.pop(sorted(weights)[0]))
    model = attach_adapter(load_base_model(str(tiny_phi3)).model, good, internal_name="good")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(AdapterMismatchError):
        attach_adapter(model, bad, internal_name="bad")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
