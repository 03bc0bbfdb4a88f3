"""What tells an adapter for embedding from others, and the way of reading it was trained with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_industry.errors import AdapterMismatchError
from phi3_industry.models.manifest import AdapterManifest

__all__ = ["EMBEDDING_METHOD", "adapter_hash", "check_reading", "reading_fingerprint"]

EMBEDDING_METHOD = "embedding-lora"
"""The method in the manifest of an adapter that was trained to embed."""

_COMPUTING_FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapter_hash(manifest: AdapterManifest) -> str:
    """Tell adapters apart by what computes, for a store's identity."""
    files = [manifest.files[name] for name in _COMPUTING_FILES]
    return hashlib.sha256(" ".join(files).encode()).hexdigest()[:16]


def reading_fingerprint(reading: Mapping[str, str]) -> str:
    """Tell apart the ways in which a text becomes a vector: its prompts, and its pooling.

    Args:
        reading: ``query_prompt`` and ``text_prompt``, and ``pooling`` where it can be chosen.
    """
    return hashlib.sha256(json.dumps(dict(reading), sort_keys=True).encode()).hexdigest()


def check_reading(manifest: AdapterManifest, reading: Mapping[str, str], *, adapter: Path) -> None:
    """Refuse to read otherwise than an adapter was trained to; other adapters may be read anyhow.

    Args:
        manifest: The adapter's manifest.
        reading: What :func:`reading_fingerprint` takes.
        adapter: The adapter's folder, for the message.

    Raises:
        AdapterMismatchError: It was trained with another prompt or pooling.
    """
    if manifest.method != EMBEDDING_METHOD:
        return
    if manifest.prompt_fingerprint == reading_fingerprint(reading):
        return
    trained: dict[str, Any] = {name: manifest.metrics.get(name) for name in reading}
    raise AdapterMismatchError(
        str(adapter),
        what="prompts and pooling",
        expected=trained,
        found=dict(reading),
        advice="Pass query_instruction= and text_instruction= (and pooling=) as it was trained.",
    )
