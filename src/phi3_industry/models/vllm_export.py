"""Write an adapter as vLLM serves it, or say why vLLM cannot.

vLLM takes PEFT's own files. Since its pull request 8571 of September 2024 it takes Phi-3's fused
layer names, and only those; for older ones, and for other programs, the layers can be split.
Source: ``packed_modules_mapping`` in vllm/model_executor/models/phi3.py, vllm issues 4715 and 4915.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import AdapterError, AdapterMismatchError
from phi3_industry.models.adapter import read_manifest
from phi3_industry.models.fingerprints import config_hash
from phi3_industry.models.formats import load_config
from phi3_industry.models.fused_layers import split_fused_weights
from phi3_industry.models.lora_layers import (
    check_weights,
    linear_module_names,
    read_lora_config,
)

__all__ = ["VLLM_RANKS", "VllmAdapter", "check_for_vllm", "export_for_vllm", "lora_module"]

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of ``--max-lora-rank``. Source: ``MaxLoRARanks`` in vllm/config/lora.py."""

_WEIGHTS_NAME = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class VllmAdapter:
    """An adapter folder that vLLM serves.

    Attributes:
        path: The folder.
        rank: Rank of its matrices.
        max_lora_rank: The smallest ``--max-lora-rank`` that holds it.
        target_modules: The layers it touches.
    """

    path: Path
    rank: int
    max_lora_rank: int
    target_modules: tuple[str, ...]

    def serve_arguments(self, name: str) -> list[str]:
        """Give the arguments of ``vllm serve`` that serve it under a name."""
        return [
            "--enable-lora",
            "--max-lora-rank",
            str(self.max_lora_rank),
            "--lora-modules",
            lora_module(name, self.path),
        ]


def export_for_vllm(
    adapter: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    model: str,
    revision: str | None = None,
    split_fused: bool = False,
    local_files_only: bool = False,
) -> VllmAdapter:
    """Check an adapter against what vLLM serves, and write it for vLLM.

    No weights of the base model are read.

    Args:
        adapter: The adapter folder.
        output_dir: Where to write; it must not exist or be empty.
        model: The base model that vLLM serves: a folder or a hub id.
        revision: Its revision on the hub.
        split_fused: Whether to write separate query, key, value, gate and up layers, for
            versions of vLLM before September 2024 and for programs that split Phi-3 themselves.
        local_files_only: Whether to keep off the network.

    Returns:
        The exported adapter, with the arguments to serve it.

    Raises:
        FileExistsError: ``output_dir`` holds something.
        AdapterMismatchError: The adapter was made for another base model.
        AdapterError: The adapter is damaged, or has what vLLM does not serve.
    """
    from safetensors.torch import load_file, save_file

    folder, target = Path(adapter), Path(output_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"'{target}' holds something already. Choose another output_dir.")
    config = load_config(model, revision=revision, local_files_only=local_files_only)
    checked = check_for_vllm(folder, config, model=model)
    weights = load_file(folder / _WEIGHTS_NAME)
    if split_fused:
        weights = split_fused_weights(weights, config.to_dict())
    targets = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights})
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    settings.update(base_model_name_or_path=model, revision=revision, target_modules=targets)
    target.mkdir(parents=True, exist_ok=True)
    save_file(weights, target / _WEIGHTS_NAME, metadata={"format": "pt"})
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
    (target / "adapter_config.json").write_text(text + "\n", encoding="utf-8")
    return replace(checked, path=target, target_modules=tuple(targets))


def check_for_vllm(adapter: str | PathLike[str], config: Any, *, model: str) -> VllmAdapter:
    """Check an adapter against its base model and against what vLLM serves, without any weights.

    Args:
        adapter: The adapter folder.
        config: The configuration of the base model that vLLM serves.
        model: Its name, for messages.

    Returns:
        The adapter as it lies there.

    Raises:
        AdapterMismatchError: The adapter was made for another base model.
        AdapterError: The adapter is damaged, or has what vLLM does not serve.
    """
    folder = Path(adapter)
    manifest = read_manifest(folder)
    if config_hash(config) != manifest.base_config_hash:
        raise AdapterMismatchError(
            str(adapter),
            what="the base model's configuration",
            expected=f"that of '{manifest.base_model}' ({manifest.base_config_hash[:12]})",
            found=f"that of '{model}' ({config_hash(config)[:12]})",
            advice=f"Let vLLM serve the base it was trained on, '{manifest.base_model}'.",
        )
    lora = read_lora_config(folder)
    _refuse_what_vllm_does_not_serve(folder, lora)
    network = _empty_model(config)
    check_weights(folder, network, lora)
    return VllmAdapter(
        path=folder,
        rank=lora.r,
        max_lora_rank=next(rank for rank in VLLM_RANKS if rank >= lora.r),
        target_modules=tuple(sorted(_targets(network, lora))),
    )


def lora_module(name: str, path: str | PathLike[str]) -> str:
    """Write one value of vLLM's ``--lora-modules``.

    vLLM splits ``NAME=PATH`` at every ``=`` and takes what holds a comma for JSON.
    Source: ``LoRAParserAction`` in vllm/entrypoints/openai/cli_args.py.
    """
    if not {"=", ","} & {*name, *str(path)}:
        return f"{name}={path}"
    return json.dumps({"name": name, "path": str(path)}, ensure_ascii=False)


def _targets(network: Any, lora: Any) -> set[str]:
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = linear_module_names(network)
    return {name.rsplit(".", 1)[-1] for name in layers if check_target_module_exists(lora, name)}


def _refuse_what_vllm_does_not_serve(folder: Path, lora: Any) -> None:
    """Refuse an adapter that vLLM would refuse, or would serve with other results."""
    merge = (
        "Merge it into the base model with phi3_industry.models.merge.merge_adapter() and serve "
        "the result."
    )
    if lora.use_dora:
        raise AdapterError(f"The adapter '{folder}' is a DoRA, which vLLM does not serve. {merge}")
    if lora.rank_pattern or lora.alpha_pattern or getattr(lora, "lora_bias", False):
        raise AdapterError(
            f"The adapter '{folder}' has ranks, scales or biases of its own for some layers, and "
            f"vLLM takes one rank and one scale for all. {merge}"
        )
    if lora.r > VLLM_RANKS[-1]:
        raise AdapterError(
            f"The adapter '{folder}' has the rank {lora.r}, and vLLM serves up to "
            f"{VLLM_RANKS[-1]}. {merge}"
        )


def _empty_model(config: Any) -> Any:
    """Build a model without weights, to ask for the names and shapes of its layers."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
