"""What all tests share: one thread, and real tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phi3_industry import Phi3LLM


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny models run ten times faster on one thread."""
    import torch

    torch.set_num_threads(1)


def save_tiny_phi3(folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Save a real Phi-3 of about 130,000 random parameters with the embedded tokenizer."""
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    from phi3_industry.models.catalog import resolve_model

    settings: dict[str, Any] = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "pad_token_id": 2,
        "eos_token_id": 6,
        **overrides,
    }
    torch.manual_seed(seed)
    model = Phi3ForCausalLM(Phi3Config(**settings))
    # larger than the usual initialisation, so that greedy text depends on the prompt
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_model("embedded")[0]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Phi-3."""
    return save_tiny_phi3(tmp_path_factory.mktemp("tiny-phi3"))


@pytest.fixture(scope="session")
def embedded_llm() -> Phi3LLM:
    """The embedded model, loaded once. Do not load adapters into it: use ``tiny_llm``."""
    return Phi3LLM(model="embedded").load()


@pytest.fixture
def tiny_llm(tiny_phi3: Path) -> Phi3LLM:
    """A tiny random Phi-3 of a test's own."""
    return Phi3LLM(model=str(tiny_phi3), max_new_tokens=16)


def save_random_adapter(
    folder: Path,
    base: Path | str,
    *,
    seed: int = 0,
    rank: int = 4,
    prompt_fingerprint: str = "none",
) -> Path:
    """Save a LoRA adapter with random weights that changes what the base says."""
    import torch
    from peft import LoraConfig, get_peft_model

    from phi3_industry.models.adapter import resolve_target_modules, write_manifest
    from phi3_industry.models.loading import load_base_model

    loaded = load_base_model(str(base))
    targets = resolve_target_modules(loaded.model, None)
    model = get_peft_model(
        loaded.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    )
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    write_manifest(
        folder,
        loaded,
        prompt_fingerprint=prompt_fingerprint,
        method="lora",
        data_fingerprint="none",
        metrics={},
    )
    return folder
