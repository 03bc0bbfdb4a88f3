"""Load a base model with its tokenizer: embedded, from a folder, or from the hub by its id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from phi3_industry.errors import ConfigurationError, ModelLoadError
from phi3_industry.models.catalog import (
    EMBEDDED,
    Checkpoint,
    checkpoint_from_config,
    resolve_model,
)
from phi3_industry.models.chat_format import ChatFormat
from phi3_industry.models.fingerprints import config_hash, weights_fingerprint
from phi3_industry.models.formats import load_config, stored_quantization
from phi3_industry.models.memory import MemoryEstimate, Quantization, estimate_memory
from phi3_industry.models.placement import (
    check_fits_memory,
    choose_device,
    choose_dtype,
    quantization_options,
)

__all__ = [
    "DType",
    "LoadedModel",
    "Quantization",
    "load_base_model",
    "load_chat_format",
    "load_checkpoint",
    "no_progress_bar",
    "weights_fingerprint",
]

_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError)

DType = Literal["auto", "float32", "bfloat16", "float16"]


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
        dtype_reason: Why it computes in that type, as words that end a sentence.
        attention: The attention implementation of transformers that it computes with.
        quantization: How its linear layers are stored; ``None`` if as they are.
        memory: What it takes in memory, by its configuration.
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
    quantization: str | None
    config_hash: str
    weights_fingerprint: str
    memory: MemoryEstimate
    dtype_reason: str = "as asked"
    attention: str = "sdpa"

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
    config = load_config(model, revision=revision, local_files_only=local_files_only)
    return checkpoint_from_config(resolve_model(model)[1], config.to_dict())


def load_chat_format(
    model: str, *, revision: str | None = None, local_files_only: bool = False
) -> ChatFormat:
    """Load what turns messages into token ids, without the weights.

    Args:
        model: ``"embedded"``, a folder, or a hub id.
        revision: Revision on the hub; ``None`` is its main branch.
        local_files_only: Whether to keep off the network.

    Raises:
        ModelLoadError: There is no such model, or it is of another kind.
        ConfigurationError: The tokenizer lacks what chat needs.
    """
    from transformers import GenerationConfig

    load_config(model, revision=revision, local_files_only=local_files_only)
    source, _ = resolve_model(model)
    options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    tokenizer = _load_tokenizer(model, options)
    try:
        stops = GenerationConfig.from_pretrained(source, **options).eos_token_id
    except OSError:  # the file is optional
        stops = None
    return _chat_format(tokenizer, stops)


def load_base_model(
    model: str,
    *,
    revision: str | None = None,
    dtype: DType = "auto",
    quantization: Quantization | None = None,
    device: str = "auto",
    local_files_only: bool = False,
    check_memory: bool = True,
    shareable: bool = False,
) -> LoadedModel:
    """Load a base model.

    Weights are read from safetensors files alone, and no code from the checkpoint is run.

    Args:
        model: ``"embedded"``, a folder, or a hub id.
        revision: Revision on the hub; ``None`` is its main branch.
        dtype: The type to compute in. ``"auto"`` is float32 where the weights are stored so, and
            otherwise bfloat16 if the device multiplies it, else float16 on a GPU and float32 on a
            CPU.
        quantization: ``"nf4"`` (4 bits, double quantisation) or ``"int8"`` through bitsandbytes.
            A checkpoint that is stored quantised stays as it is.
        device: A torch device; ``"auto"`` is the first CUDA device, else the CPU.
        local_files_only: Whether to keep off the network.
        check_memory: Whether to refuse a model that does not fit into the free memory.
        shareable: Whether processes will share the weights out among them (FSDP).

    Returns:
        The model with its tokenizer.

    Raises:
        ModelLoadError: There is no such model, it is of another kind, it does not fit into
            memory, or it does not load.
        MissingDependencyError: Its quantisation needs a package that is not installed.
        ConfigurationError: The tokenizer lacks what chat needs, there is no such device, dtype or
            quantisation, or the checkpoint is stored in another quantisation than asked for.
    """
    config = load_config(model, revision=revision, local_files_only=local_files_only)
    name = resolve_model(model)[1]
    layout = config.to_dict()
    device = choose_device(device)
    stored = stored_quantization(layout)
    if stored and quantization not in (None, stored):
        raise ConfigurationError(
            f"quantization is '{quantization}' and the weights of '{model}' are stored as "
            f"'{stored}'. Leave quantization out, or use the original checkpoint."
        )
    # GPTQ, which is the third way to store weights, takes four bits as NF4 does
    held: Any = "nf4" if stored == "gptq" else stored or quantization
    compute, reason = choose_dtype(
        dtype, name=name, config=layout, device=device, quantization=held
    )
    placing = quantization_options(
        None if stored else quantization, dtype=compute, device=device, shareable=shareable
    )
    if stored or device != "cpu":  # read onto the device, not by way of the machine's memory
        placing["device_map"] = {"": device}
    if check_memory:
        memory = check_fits_memory(model, layout, dtype=compute, quantization=held, device=device)
    else:
        memory = estimate_memory(layout, dtype=compute, quantization=held)
    tokenizer, network = _load_parts(
        model,
        config,
        small=name == EMBEDDED,
        dtype=compute,
        placing=placing,
        revision=revision,
        local_files_only=local_files_only,
    )
    _check_rotary_precision(network, model)
    network.eval()
    network.requires_grad_(False)
    return LoadedModel(
        model=network,
        tokenizer=tokenizer,
        chat_format=_chat_format(tokenizer, network.generation_config.eos_token_id),
        checkpoint=checkpoint_from_config(name, layout),
        source=model,
        revision=revision,
        device=device,
        dtype=compute,
        dtype_reason=reason,
        attention=str(network.config._attn_implementation),
        quantization=stored or quantization,
        memory=memory,
        config_hash=config_hash(config),
        weights_fingerprint=weights_fingerprint(network),
    )


def _load_parts(
    model: str,
    config: Any,
    *,
    small: bool,
    dtype: str,
    placing: Mapping[str, Any],
    revision: str | None,
    local_files_only: bool,
) -> tuple[Any, Any]:
    """Load the tokenizer and the network of a model that has passed every check."""
    import torch
    from transformers import AutoModelForCausalLM

    source, _ = resolve_model(model)
    options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    tokenizer = _load_tokenizer(model, options)
    try:
        with no_progress_bar(small):
            network = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                # the one implementation that takes left-padded rows, every dtype and both devices
                attn_implementation="sdpa",
                trust_remote_code=False,
                **placing,
                **options,
            )
    except _LOADING_ERRORS as error:
        raise ModelLoadError(f"The model '{model}' does not load: {error}") from error
    return tokenizer, network


def _load_tokenizer(model: str, options: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    source, _ = resolve_model(model)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except _LOADING_ERRORS as error:
        raise ModelLoadError(f"The model '{model}' does not load: {error}") from error


def _chat_format(tokenizer: Any, stops: int | Sequence[int] | None) -> ChatFormat:
    ids = [stops] if isinstance(stops, int) else stops or ()
    return ChatFormat(tokenizer, stop_token_ids=ids)


def _check_rotary_precision(network: Any, model: str) -> None:
    """Check that the rotary frequencies are float32: in 16 bits, far positions run together.

    Source: candle issue 3698.
    """
    import torch

    for name, buffer in network.named_buffers():
        if "inv_freq" in name and buffer.dtype != torch.float32:
            raise ModelLoadError(
                f"The rotary frequencies of '{model}' ({name}) are {buffer.dtype}; in less than "
                "float32 long prompts degrade. Use a version of transformers that keeps them in "
                "float32."
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
