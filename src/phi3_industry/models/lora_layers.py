"""Which layers of a model an adapter touches, and which weights that takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi3_industry.errors import AdapterError, AdapterMismatchError, TargetModuleError

__all__ = [
    "check_weights",
    "linear_module_names",
    "read_lora_config",
    "resolve_target_modules",
]

_CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAME = "adapter_model.safetensors"
_REPLACEMENTS = ("modules_to_save", "target_parameters", "trainable_token_indices")
"""Settings of a LoRA that train more than linear layers."""


def linear_module_names(model: Any) -> dict[str, tuple[int, int]]:
    """List the linear layers that an adapter may target, the output head left out.

    Args:
        model: A causal language model, quantised or not, with or without adapters.

    Returns:
        For each full module name ``(out_features, in_features)``.
    """
    head = model.get_output_embeddings()
    layers: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        # an attached adapter wraps each target and keeps the layer itself inside
        parts = [part for part in name.split(".") if part != "base_layer"]
        if "lora_A" in parts or "lora_B" in parts or module is head:
            continue
        if type(module).__module__.startswith("transformers."):
            continue  # a router of experts, say: it does more than multiply
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            layers[".".join(parts)] = (int(module.out_features), int(module.in_features))
    return layers


def resolve_target_modules(model: Any, requested: Sequence[str] | None) -> list[str]:
    """Say which modules an adapter trains, by what the loaded model has.

    PEFT is silent as long as one of several targets is found, and the rest stays untrained.

    Args:
        model: The base model.
        requested: Names of linear layers, such as ``["qkv_proj", "o_proj"]``; ``None`` takes
            all but the output head.

    Returns:
        The names, sorted.

    Raises:
        TargetModuleError: Any of the requested names is in no layer of the model.
    """
    available = sorted({name.rsplit(".", 1)[-1] for name in linear_module_names(model)})
    if requested is None:
        return available
    missing = [name for name in requested if name not in available]
    if missing or not requested:
        raise TargetModuleError(missing, available)
    return sorted(set(requested))


def read_lora_config(folder: Path) -> Any:
    """Read what a LoRA adapter asks for.

    Args:
        folder: The adapter folder.

    Returns:
        PEFT's configuration.

    Raises:
        AdapterError: It is another kind of adapter, or it replaces whole layers.
    """
    from peft import LoraConfig

    path = folder / _CONFIG_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        kind = str(raw["peft_type"]).upper()
        if kind == "LORA":
            config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AdapterError(
            f"The file '{path}' cannot be read ({type(error).__name__}: {error}). Copy the "
            "adapter again, or train it again."
        ) from error
    if kind != "LORA":
        raise AdapterError(
            f"The adapter '{folder}' is of the type '{kind}'; this library loads LoRA adapters. "
            "Train it again with LoraFinetuneEngine."
        )
    for name in _REPLACEMENTS:
        value = getattr(config, name, None)
        if value:
            raise AdapterError(
                f"The adapter '{folder}' sets {name} to {value}, so it replaces parts of the base "
                "model that other requests share. Train it on linear layers alone, or merge it "
                "into the base model with PEFT and load the result as a model."
            )
    if config.bias != "none":
        raise AdapterError(
            f"The adapter '{folder}' changes biases (bias='{config.bias}'), which other requests "
            "share. Train it with bias='none'."
        )
    return config


def check_weights(folder: Path, base: Any, config: Any) -> None:
    """Compare the weights in an adapter file with what its configuration asks of the model.

    PEFT only warns of missing and unexpected weights, and the adapter then computes something
    else than it learned. Source: peft issue 1932.

    Args:
        folder: The adapter folder.
        base: The base model.
        config: The adapter's configuration, from :func:`read_lora_config`.

    Raises:
        AdapterMismatchError: A weight is missing, unexpected, or of another shape.
        TargetModuleError: The adapter targets a module that the model does not have.
    """
    from safetensors import SafetensorError, safe_open

    expected = _expected_weights(base, config)
    path = folder / _WEIGHTS_NAME
    try:
        with safe_open(str(path), framework="numpy") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"The file '{path}' cannot be read ({error}). Copy the adapter again, or train it "
            "again."
        ) from error
    if found == expected:
        return
    differing = sorted(
        key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
    )
    first = differing[0]
    raise AdapterMismatchError(
        str(folder),
        what=f"the weight {first} (and {len(differing) - 1} others)",
        expected=expected.get(first, "absent"),
        found=found.get(first, "absent"),
        advice="Plain LoRA weights on the linear layers of this base model can be loaded.",
    )


def _expected_weights(base: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """Name the weights and shapes that a LoRA configuration asks of a model."""
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    layers = linear_module_names(base)
    targets = config.target_modules
    if not isinstance(targets, str):
        absent = [
            target
            for target in sorted(targets or ())
            if not any(name == target or name.endswith(f".{target}") for name in layers)
        ]
        if absent or not targets:
            raise TargetModuleError(absent, sorted({name.rsplit(".", 1)[-1] for name in layers}))
    expected: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns) in layers.items():
        if not check_target_module_exists(config, name):
            continue
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), name), config.r)
        expected[f"base_model.model.{name}.lora_A.weight"] = (rank, columns)
        expected[f"base_model.model.{name}.lora_B.weight"] = (rows, rank)
        if config.use_dora:
            expected[f"base_model.model.{name}.lora_magnitude_vector"] = (rows,)
    return expected
