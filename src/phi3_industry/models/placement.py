"""Where and in which type a model computes, and whether it fits there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from phi3_industry.errors import ConfigurationError, ModelLoadError
from phi3_industry.models.catalog import EMBEDDED, checkpoint_from_config
from phi3_industry.models.memory import (
    ComputeDType,
    MemoryEstimate,
    Quantization,
    available_memory,
    estimate_memory,
)

__all__ = [
    "check_fits_memory",
    "choose_device",
    "choose_dtype",
    "cpu_multiplies_bfloat16",
    "quantization_options",
]

_GIB = 2**30


def choose_device(device: str) -> str:
    """Give the first CUDA device or else the CPU for ``"auto"``, and any other as it is.

    Raises:
        ConfigurationError: A CUDA device is asked for and there is none.
    """
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"The device '{device}' was asked for and torch sees no CUDA device. Use "
            "device='cpu', or install a CUDA build of torch."
        )
    return device


def choose_dtype(
    asked: str,
    *,
    name: str,
    config: Mapping[str, Any],
    device: str,
    quantization: Quantization | None = None,
) -> tuple[ComputeDType, str]:
    """Choose the type to compute in.

    Args:
        asked: ``"auto"`` or a type.
        name: Name of the checkpoint.
        config: Its configuration.
        device: The device it is to compute on.
        quantization: How its linear layers are to be stored.

    Returns:
        The type, and why it was chosen, as words that end a sentence.

    Raises:
        ConfigurationError: There is no such type.
    """
    import torch

    if asked in get_args(ComputeDType):
        return asked, "as asked"  # type: ignore[return-value]  # one of the literals, just checked
    if asked != "auto":
        raise ConfigurationError(
            f"dtype is {asked!r}; it must be 'auto' or one of {list(get_args(ComputeDType))}."
        )
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if name == EMBEDDED or stored.removeprefix("torch.") == "float32":
        return "float32", "its weights are stored so"
    if device.startswith("cuda"):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "this GPU computes in it"
        return "float16", "this GPU does not compute in bfloat16"
    if cpu_multiplies_bfloat16():
        return "bfloat16", "this CPU multiplies it"
    full = estimate_memory(config, dtype="float32", quantization=quantization)
    if full.weights_bytes < available_memory(device):
        return "float32", "this CPU does not multiply bfloat16"
    return "bfloat16", "float32 does not fit into memory"


def check_fits_memory(
    model: str,
    config: Mapping[str, Any],
    *,
    dtype: ComputeDType,
    quantization: Quantization | None,
    device: str,
) -> MemoryEstimate:
    """Refuse a model that cannot fit, before any of it is loaded.

    What is needed are the weights and the KV cache of one request of the default prompt budget.

    Args:
        model: What was asked for, for the message.
        config: Its configuration.
        dtype: The type to compute in.
        quantization: How its linear layers are to be stored.
        device: The device it is to compute on.

    Returns:
        The estimate.

    Raises:
        ModelLoadError: It does not fit; the message has the numbers and what would fit.
    """
    estimate = estimate_memory(config, dtype=dtype, quantization=quantization)
    tokens = checkpoint_from_config("", config).prompt_budget
    needed, free = estimate.total_bytes(tokens), available_memory(device)
    if needed <= free:
        return estimate
    others: list[tuple[str, int]] = []
    half: ComputeDType = "bfloat16" if dtype == "float32" else dtype
    for label, kind in (
        (f"dtype='{half}'", None),
        ("quantization='int8'", "int8"),
        ("quantization='nf4'", "nf4"),
    ):
        other = estimate_memory(config, dtype=half, quantization=kind)  # type: ignore[arg-type]  # literals
        others.append((label, other.total_bytes(tokens)))
    fitting = [f"{label} ({size / _GIB:.1f} GiB)" for label, size in others if size <= free]
    advice = (
        f"It fits with {' or '.join(fitting)}."
        if fitting
        else f"With quantization='nf4' it still needs {others[-1][1] / _GIB:.1f} GiB: choose a "
        "smaller checkpoint, or let a server compute and give its address as base_url=."
    )
    stored = quantization or dtype
    raise ModelLoadError(
        f"The model '{model}' needs {needed / _GIB:.1f} GiB in {stored} "
        f"({estimate.weights_bytes / _GIB:.1f} GiB of weights, "
        f"{estimate.kv_bytes(tokens) / _GIB:.1f} GiB for the keys and values of {tokens} tokens), "
        f"and {free / _GIB:.1f} GiB are free on '{device}'. {advice}"
    )


def quantization_options(
    quantization: Quantization | None, *, dtype: ComputeDType, device: str, shareable: bool = False
) -> dict[str, Any]:
    """Give the arguments with which transformers quantises a model while it loads.

    Args:
        quantization: How linear layers are stored.
        dtype: The type to compute in.
        device: The device to load onto.
        shareable: Whether processes will share the weights out (FSDP), which takes tensors of
            floating point alone: 4-bit weights are then kept in the bytes of such numbers.

    Raises:
        ConfigurationError: There is no such quantisation.
    """
    if quantization is None:
        return {}
    if quantization not in get_args(Quantization):
        raise ConfigurationError(
            f"quantization is {quantization!r}; it must be None, 'nf4' or 'int8'."
        )
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
            bnb_4bit_quant_storage=getattr(torch, dtype) if shareable else torch.uint8,
        )
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": device}}


def cpu_multiplies_bfloat16() -> bool:
    """Say whether this machine's CPU has instructions that multiply bfloat16."""
    import torch

    # older versions of torch do not tell; they multiply bfloat16 on every CPU, if slowly
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is None:
        return True
    found = ask()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
