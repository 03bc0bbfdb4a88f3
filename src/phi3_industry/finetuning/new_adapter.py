"""How an adapter begins, how it is saved, and how an earlier state of it is taken back.

This module imports PEFT; it is imported when training begins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import set_seed

from phi3_industry.finetuning.preflight import PreflightReport
from phi3_industry.finetuning.sharding import shared_out
from phi3_industry.models.loading import LoadedModel

__all__ = ["attach_new_adapter", "has_finite_weights", "save_adapter", "take_back"]

_NAME = "default"
_WEIGHTS_NAME = "adapter_model.safetensors"
# four rounds of the randomised decomposition; the whole one takes minutes a layer at Phi-3's size
_PISSA = "pissa_niter_4"


def attach_new_adapter(loaded: LoadedModel, report: PreflightReport, *, initial: Path) -> Any:
    """Give a base model an adapter to train.

    Args:
        loaded: The base model; it becomes part of the PEFT model.
        report: What to train.
        initial: A folder for the adapter's first state, which PiSSA needs when it is saved.

    Returns:
        The PEFT model; only the adapter is trained, in float32.
    """
    config, recipe = report.config, report.recipe
    set_seed(config.seed)  # the adapter's first weights are drawn here
    pissa = config.method == "pissa"
    model = get_peft_model(
        loaded.model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=report.target_modules,
            revision=loaded.revision,
            use_rslora=config.method == "rslora",
            use_dora=config.method == "dora",
            init_lora_weights=_PISSA if pissa else True,
        ),
    )
    # PEFT writes where the base was loaded from; an adapter should name it and hold no path
    model.peft_config[_NAME].base_model_name_or_path = loaded.name
    if pissa:
        _save(model, initial)
    return model


def save_adapter(
    model: Any, folder: Path, *, initial: Path, state_dict: dict[str, Any] | None = None
) -> None:
    """Save an adapter as serving reads it.

    Args:
        model: The PEFT model.
        folder: The folder to write into.
        initial: The folder that :func:`attach_new_adapter` was given.
        state_dict: The weights, if the model is shared out among processes.
    """
    options: dict[str, Any] = {} if state_dict is None else {"state_dict": state_dict}
    _save(model, folder, **options)
    if str(model.peft_config[_NAME].init_lora_weights).startswith("pissa"):
        _subtract(initial, folder)


def _subtract(initial: Path, folder: Path) -> None:
    """Turn a PiSSA adapter into one for the untouched base.

    PiSSA has moved ``s B0 A0`` out of the base. What was learned is ``s B A - s B0 A0``, which is
    ``s [B, -B0] [A; A0]``: an adapter of twice the rank. PEFT's own conversion would do the same,
    but asks the hub on the way (``get_peft_model_state_dict`` in PEFT 0.21).
    """
    first, last = load_file(initial / _WEIGHTS_NAME), load_file(folder / _WEIGHTS_NAME)
    joined = {
        name: torch.cat([weight, first[name]], dim=0)
        if ".lora_A." in name
        else torch.cat([weight, -first[name]], dim=1)
        for name, weight in last.items()
    }
    save_file(joined, folder / _WEIGHTS_NAME, metadata={"format": "pt"})
    config = LoraConfig.from_pretrained(str(folder))
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    config.init_lora_weights = True
    config.save_pretrained(str(folder))


def take_back(model: Any, checkpoint: Path) -> None:
    """Give an adapter the weights that it had at a checkpoint."""
    weights = shared_out(load_file(checkpoint / _WEIGHTS_NAME), model)
    set_peft_model_state_dict(model, weights, adapter_name=_NAME)


def has_finite_weights(checkpoint: Path) -> bool:
    """Tell whether every weight of a checkpoint is a number."""
    weights = load_file(checkpoint / _WEIGHTS_NAME)
    return all(bool(weight.isfinite().all()) for weight in weights.values())


def _save(model: Any, folder: Path, **options: Any) -> None:
    # the embedding is never trained here, and asking PEFT to find out would reach the hub
    model.save_pretrained(str(folder), save_embedding_layers=False, **options)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form of empty headings
