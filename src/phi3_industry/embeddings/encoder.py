"""An embedding model as training takes it, and the adapters that training makes.

An adapter is refused on another model than its own, and with other prompts than its own.
This module imports torch and sentence-transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from phi3_industry.embeddings.adapters import (
    EMBEDDING_METHOD,
    check_reading,
    reading_fingerprint,
)
from phi3_industry.models.adapter import attach_adapter, check_fits
from phi3_industry.models.fingerprints import config_hash
from phi3_industry.models.manifest import AdapterManifest

__all__ = [
    "Encoder",
    "EncoderFacts",
    "encoder_facts",
    "merge_adapter",
]

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
        reading: How a text becomes a vector: ``query_prompt`` and ``text_prompt``, and
            ``pooling`` where it can be chosen.
    """

    model: SentenceTransformer
    body: Any
    targets: list[str]
    task_type: str
    bfloat16: bool
    base: Any
    reading: dict[str, str]

    @property
    def reading_fingerprint(self) -> str:
        """Fingerprint of ``reading``."""
        return reading_fingerprint(self.reading)

    @property
    def method(self) -> str:
        """The method that the manifest of an adapter for it names."""
        return EMBEDDING_METHOD


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


def merge_adapter(
    model: SentenceTransformer,
    folder: str | PathLike[str],
    manifest: AdapterManifest,
    *,
    facts: EncoderFacts,
    reading: Mapping[str, str],
) -> None:
    """Check an adapter and add its weights to those of a model, which then costs what it did.

    Args:
        model: The model in the type that it is stored in; changed in place.
        folder: The adapter folder.
        manifest: Its manifest, with every file checked.
        facts: What the model is.
        reading: How it is to read texts.

    Raises:
        AdapterError: It is no LoRA adapter.
        AdapterMismatchError: It was trained on another model or with other prompts.
    """
    folder = Path(folder)
    check_reading(manifest, reading, adapter=folder)
    # of an encoder these are the facts that a LoadedModel has of a language model
    check_fits(manifest, facts, adapter=folder)  # type: ignore[arg-type]
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
