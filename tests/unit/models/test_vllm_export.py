from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from phi3_industry.errors import AdapterError, AdapterMismatchError
from phi3_industry.models.adapter import attach_adapter, write_manifest
from phi3_industry.models.fused_layers import split_fused_weights
from phi3_industry.models.loading import LoadedModel, load_base_model
from phi3_industry.models.vllm_export import VLLM_RANKS, export_for_vllm
from tiny_models import save_random_adapter, save_tiny_phi3

FUSED = ("down_proj", "gate_up_proj", "o_proj", "qkv_proj")
SPLIT = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def save_adapter(folder: Path, base: Path, **settings: Any) -> Path:
    """An adapter with settings of its own."""
    from peft import LoraConfig, get_peft_model

    loaded = load_base_model(str(base))
    config = LoraConfig(**{"r": 4, "target_modules": list(FUSED), **settings})
    get_peft_model(loaded.model, config).save_pretrained(folder)
    write_manifest(
        folder,
        load_base_model(str(base)),
        prompt_fingerprint="none",
        method="lora",
        data_fingerprint="none",
        metrics={},
    )
    return folder


def as_llama(loaded: LoadedModel) -> Any:
    """The same model with separate layers: Phi-3 without longrope is a Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    own = loaded.model.config
    names = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads"
    names += " num_key_value_heads max_position_embeddings rms_norm_eps tie_word_embeddings"
    llama = LlamaForCausalLM(
        LlamaConfig(**{name: getattr(own, name) for name in names.split()}, bos_token_id=1)
    )
    # the rows of a fused matrix are split as those of its lora_B
    llama.load_state_dict(split_fused_weights(loaded.model.state_dict(), own.to_dict()))
    return llama.eval()


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(10, 40)[None]).logits


def test_an_export_holds_what_vllm_reads(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3, rank=4)
    exported = export_for_vllm(adapter, tmp_path / "out", model=str(tiny_phi3))
    settings = json.loads((exported.path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tiny_phi3)
    assert tuple(settings["target_modules"]) == exported.target_modules == FUSED
    assert settings["r"] == exported.rank == 4
    weights, original = (
        load_file(folder / "adapter_model.safetensors") for folder in (exported.path, adapter)
    )
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[name], original[name]) for name in weights)


@pytest.mark.parametrize(("rank", "allowed"), [(1, 1), (2, 8), (8, 8), (9, 16), (300, 320)])
def test_the_served_rank_is_one_that_vllm_allows(
    tiny_phi3: Path, tmp_path: Path, rank: int, allowed: int
) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3, rank=rank)
    exported = export_for_vllm(adapter, tmp_path / "out", model=str(tiny_phi3))
    assert exported.max_lora_rank == allowed
    assert allowed in VLLM_RANKS
    arguments = exported.serve_arguments("pumps")
    assert arguments[:3] == ["--enable-lora", "--max-lora-rank", str(allowed)]
    assert arguments[3:] == ["--lora-modules", f"pumps={exported.path}"]


def test_split_layers_compute_the_same_logits(tiny_phi3: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    fused = load_base_model(str(tiny_phi3))
    llama = as_llama(fused)
    assert torch.allclose(logits_of(llama), logits_of(fused.model), atol=1e-4)
    exported = export_for_vllm(adapter, tmp_path / "out", model=str(tiny_phi3), split_fused=True)
    assert exported.target_modules == SPLIT
    separate = logits_of(PeftModel.from_pretrained(llama, str(exported.path)).eval())
    together = logits_of(attach_adapter(fused.model, adapter, internal_name="a"))
    assert torch.allclose(separate, together, atol=1e-3)
    assert not torch.allclose(together, logits_of(load_base_model(str(tiny_phi3)).model), atol=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, r"is a DoRA, which vLLM does not serve\. Merge it into the base"),
        ({"rank_pattern": {"o_proj": 2}}, "takes one rank and one scale for all"),
        ({"alpha_pattern": {"o_proj": 2}}, "takes one rank and one scale for all"),
        ({"r": 513, "target_modules": ["o_proj"]}, "has the rank 513, and vLLM serves up to 512"),
        ({"modules_to_save": ["norm"]}, r"sets modules_to_save to \['norm'\]"),
    ],
)
def test_what_vllm_does_not_serve_is_refused(
    tiny_phi3: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    adapter = save_adapter(tmp_path / "adapter", tiny_phi3, **settings)
    with pytest.raises(AdapterError, match=message):
        export_for_vllm(adapter, tmp_path / "out", model=str(tiny_phi3))
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    other = save_tiny_phi3(tmp_path / "other", intermediate_size=128)
    with pytest.raises(AdapterMismatchError, match="Let vLLM serve the base it was trained on"):
        export_for_vllm(adapter, tmp_path / "out", model=str(other))


def test_a_folder_in_the_way_is_kept(tiny_phi3: Path, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", tiny_phi3)
    with pytest.raises(FileExistsError, match="holds something already"):
        export_for_vllm(adapter, adapter, model=str(tiny_phi3))
