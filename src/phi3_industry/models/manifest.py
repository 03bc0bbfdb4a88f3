"""The manifest of an adapter folder: what it was made for, and what its files hash to.

The manifest, ``phi3_industry.json``, names the base model, the prompt and the data an adapter was
trained with, and holds the SHA-256 of every file. Loading checks all of it before any weight
reaches the model, and refuses with what was expected and what was found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import AdapterError, AdapterMismatchError, AdapterNotFoundError
from phi3_industry.models.loading import LoadedModel

__all__ = [
    "MANIFEST_NAME",
    "AdapterManifest",
    "check_fits",
    "read_manifest",
    "write_manifest",
]

MANIFEST_NAME = "phi3_industry.json"
_CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAME = "adapter_model.safetensors"
_CARD_NAME = "README.md"  # for people, who may change it
_FORMAT_VERSION = 1
_REPORTED_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "phi3-industry")


@dataclass(frozen=True, kw_only=True)
class AdapterManifest:
    """What an adapter was made for, and how.

    Attributes:
        format_version: Version of this layout.
        base_model: Name or hub id of the base model.
        base_revision: Its revision, if one was asked for.
        base_config_hash: SHA-256 of the base model's configuration.
        base_weights_fingerprint: Fingerprint of the base model's weights.
        chat_format_fingerprint: Fingerprint of the tokenizer and its chat template.
        prompt_fingerprint: Fingerprint of the grounding prompt of the training rows.
        method: ``"lora"`` or ``"qlora"``.
        data_fingerprint: SHA-256 of the training rows.
        metrics: What was measured in training.
        versions: Versions of the libraries that made it.
        files: SHA-256 of every other file in the folder but the card, by name.
    """

    base_model: str
    base_revision: str | None
    base_config_hash: str
    base_weights_fingerprint: str
    chat_format_fingerprint: str
    prompt_fingerprint: str
    method: str
    data_fingerprint: str
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, str]
    format_version: int = field(default=_FORMAT_VERSION)


def write_manifest(
    folder: str | PathLike[str],
    loaded: LoadedModel,
    *,
    prompt_fingerprint: str,
    method: str,
    data_fingerprint: str,
    metrics: Mapping[str, Any],
) -> AdapterManifest:
    """Write the manifest of a finished adapter folder.

    Args:
        folder: The folder, with PEFT's files and any others already in it.
        loaded: The base model that the adapter was trained on.
        prompt_fingerprint: Fingerprint of the grounding prompt of the training rows.
        method: ``"lora"`` or ``"qlora"``.
        data_fingerprint: SHA-256 of the training rows.
        metrics: What was measured in training, as JSON values.

    Returns:
        The manifest as written.

    Raises:
        AdapterError: PEFT's files are not in the folder.
    """
    folder = Path(folder)
    for name in (_CONFIG_NAME, _WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise AdapterError(
                f"The folder '{folder}' holds no {name}. Save the adapter with save_pretrained() "
                "first."
            )
    manifest = AdapterManifest(
        base_model=loaded.name,
        base_revision=loaded.revision,
        base_config_hash=loaded.config_hash,
        base_weights_fingerprint=loaded.weights_fingerprint,
        chat_format_fingerprint=loaded.chat_format.fingerprint,
        prompt_fingerprint=prompt_fingerprint,
        method=method,
        data_fingerprint=data_fingerprint,
        metrics=dict(metrics),
        versions=_library_versions(),
        files={
            str(path.relative_to(folder).as_posix()): _sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in (MANIFEST_NAME, _CARD_NAME)
        },
    )
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: str | PathLike[str]) -> AdapterManifest:
    """Read an adapter's manifest and check every file it names.

    Args:
        folder: The adapter folder.

    Returns:
        The manifest.

    Raises:
        AdapterNotFoundError: The folder is missing or holds no adapter.
        AdapterError: The manifest is missing or unreadable, or a file is missing or changed.
    """
    folder = Path(folder)
    if not (folder / _CONFIG_NAME).is_file():
        raise AdapterNotFoundError(str(folder))
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise AdapterError(
            f"The adapter '{folder}' has no {MANIFEST_NAME}, so nothing says which base model "
            "and prompt it was made for. Train it with LoraFinetuneEngine, or write its manifest "
            "with phi3_industry.models.adapter.write_manifest()."
        )
    manifest = _parse_manifest(path)
    for name, expected in manifest.files.items():
        if name == _CARD_NAME:
            continue  # older manifests name it
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise AdapterError(
                f"'{path}' names the file '{name}' outside of its folder. Do not use this adapter."
            )
        found = _sha256(file) if file.is_file() else "missing"
        if found != expected:
            raise AdapterMismatchError(
                str(folder),
                what=f"the SHA-256 of {name}",
                expected=expected,
                found=found,
                advice="The file is damaged or was changed: copy the adapter again.",
            )
    if _WEIGHTS_NAME not in manifest.files:
        raise AdapterError(
            f"'{path}' does not name {_WEIGHTS_NAME}, so its weights cannot be checked. Train "
            "the adapter again."
        )
    return manifest


def check_fits(
    manifest: AdapterManifest,
    loaded: LoadedModel,
    *,
    adapter: str | PathLike[str],
    prompt_fingerprint: str | None = None,
) -> None:
    """Check that an adapter was made for a base model, and for a prompt if one is named.

    Args:
        manifest: The adapter's manifest.
        loaded: The base model.
        adapter: Path or name of the adapter, for the message.
        prompt_fingerprint: Fingerprint of the grounding prompt it is to be asked with; ``None``
            leaves the prompt unchecked.

    Raises:
        AdapterMismatchError: It was made for another base model, chat format or prompt.
    """
    if prompt_fingerprint not in (None, manifest.prompt_fingerprint):
        raise AdapterMismatchError(
            str(adapter),
            what="the prompt",
            expected=f"the one it was trained with ({manifest.prompt_fingerprint[:12]})",
            found=f"another ({str(prompt_fingerprint)[:12]})",
            advice="Ask with the prompt of its training, or train it again with this one.",
        )
    advice = f"Load it on the base model it was trained on, '{manifest.base_model}'."
    for what, expected, found in (
        ("the base model's configuration", manifest.base_config_hash, loaded.config_hash),
        (
            "the base model's weights",
            manifest.base_weights_fingerprint,
            loaded.weights_fingerprint,
        ),
        (
            "the tokenizer with its chat template",
            manifest.chat_format_fingerprint,
            loaded.chat_format.fingerprint,
        ),
    ):
        if expected != found:
            raise AdapterMismatchError(
                str(adapter),
                what=what,
                expected=f"that of '{manifest.base_model}' ({expected[:12]})",
                found=f"that of '{loaded.name}' ({found[:12]})",
                advice=advice,
            )


def _parse_manifest(path: Path) -> AdapterManifest:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = {item.name for item in fields(AdapterManifest)}
        manifest = AdapterManifest(**{key: raw[key] for key in names})
        if not all(isinstance(value, str) for value in manifest.files.values()):
            raise TypeError("files must map names to hashes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterError(
            f"The manifest '{path}' cannot be read ({type(error).__name__}: {error}). Copy the "
            "adapter again, or train it again."
        ) from error
    if manifest.format_version != _FORMAT_VERSION:
        raise AdapterError(
            f"The manifest '{path}' has the format version {manifest.format_version}; this "
            f"library reads version {_FORMAT_VERSION}. Use the library that wrote it."
        )
    return manifest


def _library_versions() -> dict[str, str]:
    found = {}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
