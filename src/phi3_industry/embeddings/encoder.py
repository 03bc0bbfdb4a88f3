"""An embedding model as training takes it, and the adapters that training makes.

An adapter is refused on another model than its own, and with other prompts than its own.
This module imports torch and sentence-transformers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from phi3_industry.models.adapter import attach_adapter, check_fits
from phi3_industry.models.fingerprints import config_hash
from phi3_industry.models.manifest import AdapterManifest

__all__ = [
    "EMBEDDING_METHOD",
    "Encoder",
    "EncoderFacts",
    "adapter_hash",
    "encoder_facts",
    "merge_adapter",
    "prompts_fingerprint",
]

EMBEDDING_METHOD = "embedding-lora"
"""The method in the manifest of an adapter that was trained to embed."""

_COMPUTING_FILES = ("adapter_config.json", "adapter_model.safetensors")
_SAMPLED_NUMBERS = 64


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts:
    """What tells a tokenizer from another.

    Attributes:
        fingerprint: SHA-256 of its files' content.
    """

    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """What an adapter's manifest says of the model that it was trained on.

    Attributes:
        name: The model's name, without any path.
        revision: Its revision, if one was asked for.
        config_hash: SHA-256 of its configuration.
        weights_fingerprint: SHA-256 of a sample of all its weights.
        chat_format: Its tokenizer; an encoder has no chat.
    """

    name: str
    revision: str | None
    config_hash: str
    weights_fingerprint: str
    chat_format: TokenizerFacts


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model to train, of its own and in 32 bits.

    Attributes:
        model: What sentence-transformers trains.
        body: The part that gets LoRA layers.
        targets: Names of its linear layers.
        task_type: What PEFT calls the kind of model.
        bfloat16: Whether it may compute in bfloat16, its LoRA layers apart.
        base: What the adapter's manifest says of the model.
        query_prompt: Text put before each query.
        text_prompt: Text put before each passage.
        prompt_fingerprint: Fingerprint of prompts and pooling.
    """

    model: SentenceTransformer
    body: Any
    targets: list[str]
    task_type: str
    bfloat16: bool
    base: Any
    query_prompt: str
    text_prompt: str
    prompt_fingerprint: str


def encoder_facts(model: SentenceTransformer, *, name: str, revision: str | None) -> EncoderFacts:
    """Say what a model is, so that an adapter of another is refused.

    Args:
        model: In the type that it is stored in, without an adapter.
        name: Its name, without any path.
        revision: Its revision, if one was asked for.
    """
    modules = [str(module) for module in list(model)[1:]]  # pooling and what follows
    layout = json.dumps([config_hash(model[0].auto_model.config), modules])
    return EncoderFacts(
        name=name,
        revision=revision,
        config_hash=hashlib.sha256(layout.encode()).hexdigest(),
        weights_fingerprint=_weights_fingerprint(model),
        chat_format=TokenizerFacts(fingerprint=_tokenizer_fingerprint(model.tokenizer)),
    )


def prompts_fingerprint(*, query_prompt: str, text_prompt: str, pooling: str | None = None) -> str:
    """Tell apart the ways in which a text becomes a model's input and its states a vector."""
    text = json.dumps([query_prompt, text_prompt, pooling])
    return hashlib.sha256(text.encode()).hexdigest()


def adapter_hash(manifest: AdapterManifest) -> str:
    """Tell adapters apart by what computes, for a store's identity."""
    files = [manifest.files[name] for name in _COMPUTING_FILES]
    return hashlib.sha256(" ".join(files).encode()).hexdigest()[:16]


def merge_adapter(
    model: SentenceTransformer,
    folder: str | PathLike[str],
    manifest: AdapterManifest,
    *,
    facts: EncoderFacts,
    query_prompt: str,
    text_prompt: str,
) -> None:
    """Check an adapter and add its weights to those of a model, which then costs what it did.

    Args:
        model: The model in the type that it is stored in; changed in place.
        folder: The adapter folder.
        manifest: Its manifest, with every file checked.
        facts: What the model is.
        query_prompt: The text that it is to put before each query.
        text_prompt: The text that it is to put before each passage.

    Raises:
        AdapterError: It is no LoRA adapter.
        AdapterMismatchError: It was trained on another model or with other prompts.
    """
    folder = Path(folder)
    check_fits(
        manifest,
        facts,  # type: ignore[arg-type]  # of an encoder the same facts as of a LoadedModel
        adapter=folder,
        prompt_fingerprint=prompts_fingerprint(query_prompt=query_prompt, text_prompt=text_prompt),
    )
    attached = attach_adapter(model[0].auto_model, folder, internal_name="default")
    attached.merge_and_unload()


def _weights_fingerprint(model: SentenceTransformer) -> str:
    """Hash some numbers of each weight: quick, and every training shows."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if not weight.is_floating_point():
            continue
        flat = weight.detach().flatten()
        sample = flat[:: max(1, flat.numel() // _SAMPLED_NUMBERS)].to("cpu", torch.bfloat16)
        digest.update(f"{name}:{tuple(weight.shape)};".encode())
        digest.update(sample.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _tokenizer_fingerprint(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        text = json.dumps(sorted(tokenizer.get_vocab().items()))
    else:
        state = json.loads(backend.to_str())
        # set anew at each call
        text = json.dumps({k: v for k, v in state.items() if k not in ("padding", "truncation")})
    return hashlib.sha256(text.encode()).hexdigest()
