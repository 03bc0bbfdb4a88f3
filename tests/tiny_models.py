"""Real tiny models and adapters, built in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_tiny_phi3(folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Save a real Phi-3 of about 130,000 random parameters with the embedded tokenizer."""
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    from phi3_industry.models.catalog import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded")[0])
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
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
    tokenizer.save_pretrained(folder)
    return folder


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
