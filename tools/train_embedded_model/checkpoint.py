"""Write a checkpoint folder: bf16 safetensors, tokenizer, configuration, chat template."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Phi3ForCausalLM

__all__ = ["export_checkpoint"]


def export_checkpoint(
    model: Phi3ForCausalLM,
    tokenizer: Any,
    folder: Path,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a model that ``from_pretrained`` reads, replacing the folder in one move.

    Args:
        model: The model; it is not changed.
        tokenizer: Its tokenizer, with a chat template.
        folder: Target folder.
        weights: Parameters by name to write in place of the model's own.
    """
    copy = Phi3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    for name, parameter in copy.named_parameters():
        if weights is not None:
            parameter.data.copy_(weights[name])
    copy = copy.to(torch.bfloat16)
    copy.config.use_cache = True
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    copy.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    temporary = folder.with_name(folder.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    copy.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    _tidy(temporary / "tokenizer_config.json")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def _tidy(path: Path) -> None:
    """Drop what describes the loading, not the tokenizer."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    for name in ("is_local", "local_files_only"):
        settings.pop(name, None)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
