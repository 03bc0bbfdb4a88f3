"""Load a base model with its tokenizer: embedded, from a folder, or from the hub by its id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from phi3_industry.errors import ConfigurationError, ModelLoadError
from phi3_industry.models.catalog import (
    EMBEDDED,
    KNOWN_CHECKPOINTS,
    SUPPORTED_MODEL_TYPES,
    Checkpoint,
    checkpoint_from_config,
    resolve_model,
)
from phi3_industry.models.chat_format import ChatFormat

__all__ = [
    "DType",
    "LoadedModel",
    "Quantization",
    "load_base_model",
    "load_checkpoint",
    "no_progress_bar",
    "weights_fingerprint",
]

DType = Literal["auto", "float32", "bfloat16"]
Quantization = Literal["nf4", "int8"]

_UNSTABLE_CONFIG_KEYS = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
"""Keys of a configuration that do not change what the model computes."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A base model in memory, ready to compute.

    Attributes:
        model: The transformers model, in evaluation mode.
        tokenizer: Its tokenizer.
        chat_format: How messages become its token ids.
        checkpoint: What it can hold.
        source: Where it was loaded from: ``"embedded"``, a folder or a hub id.
        revision: The revision that was asked for, if any.
        device: The device it is on.
        dtype: The type it computes in.
        quantization: How its linear layers are stored; ``None`` if as they are.
        config_hash: SHA-256 of the configuration, as hexadecimal text.
        weights_fingerprint: See :func:`weights_fingerprint`.
    """

    model: Any
    tokenizer: Any
    chat_format: ChatFormat
    checkpoint: Checkpoint
    source: str
    revision: str | None
    device: str
    dtype: str
    quantization: Quantization | None
    config_hash: str
    weights_fingerprint: str

    @property
    def name(self) -> str:
        """The checkpoint's name, without any path."""
        return self.checkpoint.name


def load_checkpoint(
    model: str, *, revision: str | None = None, local_files_only: bool = False
) -> Checkpoint:
    """Read what a model can hold without loading its weights.

    Args:
        model: ``"embedded"``, a folder, or a hub id.
        revision: Revision on the hub; ``None`` is its main branch.
        local_files_only: Whether to keep off the network.

    Raises:
        ModelLoadError: There is no such model, or it is of another kind.
    """
    source, name = resolve_model(model)
    config = _load_config(source, model, revision=revision, local_files_only=local_files_only)
    return checkpoint_from_config(name, config.to_dict())


def load_base_model(
    model: str,
    *,
    revision: str | None = None,
    dtype: DType = "auto",
    quantization: Quantization | None = None,
    device: str = "auto",
    local_files_only: bool = False,
) -> LoadedModel:
    """Load a base model.

    Weights are read from safetensors files alone, and no code from the checkpoint is run.

    Args:
        model: ``"embedded"``, a folder, or a hub id.
        revision: Revision on the hub; ``None`` is its main branch.
        dtype: The type to compute in. ``"auto"`` is float32 for the embedded model and the
            checkpoint's own type for others.
        quantization: ``"nf4"`` (4 bits, double quantisation) or ``"int8"`` through bitsandbytes.
        device: A torch device; ``"auto"`` is the first CUDA device, else the CPU.
        local_files_only: Whether to keep off the network.

    Returns:
        The model with its tokenizer.

    Raises:
        ModelLoadError: There is no such model, it is of another kind, or it does not load.
        ConfigurationError: The tokenizer lacks what chat needs.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = resolve_model(model)
    config = _load_config(source, model, revision=revision, local_files_only=local_files_only)
    device = _resolve_device(device)
    compute = _resolve_dtype(dtype, name=name, config=config)
    options: dict[str, Any] = {
        "revision": revision,
        "local_files_only": local_files_only,
        "trust_remote_code": False,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        with no_progress_bar(name == EMBEDDED):
            network = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=getattr(torch, compute),
                use_safetensors=True,
                attn_implementation="sdpa",
                **_quantization_options(quantization, compute=compute, device=device),
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelLoadError(f"The model '{model}' does not load: {error}") from error
    if quantization is None:
        network.to(device)
    network.eval()
    network.requires_grad_(False)
    stops = network.generation_config.eos_token_id
    return LoadedModel(
        model=network,
        tokenizer=tokenizer,
        chat_format=ChatFormat(
            tokenizer,
            stop_token_ids=[stops] if isinstance(stops, int) else stops or (),
        ),
        checkpoint=checkpoint_from_config(name, config.to_dict()),
        source=model,
        revision=revision,
        device=device,
        dtype=compute,
        quantization=quantization,
        config_hash=_config_hash(config),
        weights_fingerprint=weights_fingerprint(network),
    )


@contextmanager
def no_progress_bar(small: bool) -> Iterator[None]:
    """Keep transformers' progress bar back where there is no progress worth showing.

    Args:
        small: Whether what is loaded is small enough for that.
    """
    from transformers.utils import logging

    if not small or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def weights_fingerprint(model: Any) -> str:
    """Tell base models apart by their weights, however they were loaded.

    Two checkpoints can share a configuration and still be different models. The normalisation
    weights and 64 rows of the embedding are hashed, rounded to bfloat16: quantisation touches
    neither, and every change in training touches both.

    Args:
        model: A causal language model of transformers.

    Returns:
        SHA-256 as hexadecimal text.
    """
    import torch

    digest = hashlib.sha256()
    embedding = model.get_input_embeddings().weight
    step = max(1, embedding.shape[0] // 64)
    sampled = [("embedding", embedding[::step])]
    norms = [(name, weight) for name, weight in model.named_parameters() if "norm" in name]
    for name, weight in sampled + sorted(norms, key=lambda item: item[0]):
        digest.update(name.encode())
        rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _load_config(source: str, model: str, *, revision: str | None, local_files_only: bool) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            source,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        known = ", ".join(KNOWN_CHECKPOINTS)
        raise ModelLoadError(
            f"There is no model '{model}': it is neither '{EMBEDDED}', nor a folder with a "
            f"config.json of a known kind, nor a hub id that can be reached ({error}). Known "
            f"checkpoints: {known}."
        ) from error
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        raise ModelLoadError(
            f"The model '{model}' is of the type '{config.model_type}'; this library loads the "
            f"types {list(SUPPORTED_MODEL_TYPES)}. Use an instruct checkpoint of the Phi-3 "
            "family, such as 'microsoft/Phi-3-mini-4k-instruct'."
        )
    return config


def _resolve_device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"The device '{device}' was asked for and torch sees no CUDA device. Use "
            "device='cpu', or install a CUDA build of torch."
        )
    return device


def _resolve_dtype(dtype: DType, *, name: str, config: Any) -> str:
    if dtype != "auto":
        return dtype
    stored = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return "bfloat16" if name != EMBEDDED and stored in ("bfloat16", "float16") else "float32"


def _quantization_options(
    quantization: Quantization | None, *, compute: str, device: str
) -> dict[str, Any]:
    if quantization is None:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, compute),
        )
    elif quantization == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        raise ConfigurationError(
            f"quantization is {quantization!r}; it must be None, 'nf4' or 'int8'."
        )
    return {"quantization_config": config, "device_map": {"": device}}


def _config_hash(config: Any) -> str:
    layout = {
        key: value for key, value in config.to_dict().items() if key not in _UNSTABLE_CONFIG_KEYS
    }
    return hashlib.sha256(json.dumps(layout, sort_keys=True, default=str).encode()).hexdigest()
