"""An adapter folder: PEFT's own files and a manifest that says what they were made for.

The manifest, ``phi3_industry.json``, names the base model, the prompt and the data an adapter was
trained with, and holds the SHA-256 of every file. Loading checks all of it before any weight
reaches the model, and refuses with what was expected and what was found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import (
    AdapterError,
    AdapterMismatchError,
    AdapterNotFoundError,
    TargetModuleError,
)
from phi3_industry.models.loading import LoadedModel

__all__ = [
    "MANIFEST_NAME",
    "AdapterManifest",
    "attach_adapter",
    "check_fits",
    "linear_module_names",
    "read_manifest",
    "resolve_target_modules",
    "write_manifest",
]

MANIFEST_NAME = "phi3_industry.json"
_CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAME = "adapter_model.safetensors"
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
        files: SHA-256 of every other file in the folder, by name.
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
            if path.is_file() and path.name != MANIFEST_NAME
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
    manifest: AdapterManifest, loaded: LoadedModel, *, adapter: str | PathLike[str]
) -> None:
    """Check that an adapter was made for a base model.

    Args:
        manifest: The adapter's manifest.
        loaded: The base model.
        adapter: Path or name of the adapter, for the message.

    Raises:
        AdapterMismatchError: It was made for another base model or chat format.
    """
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


def attach_adapter(model: Any, folder: str | PathLike[str], *, internal_name: str) -> Any:
    """Put an adapter's weights into a model beside those it has.

    Args:
        model: The base model, or the PEFT model that it has become.
        folder: The adapter folder, checked before.
        internal_name: The name PEFT is to know it by; letters and digits.

    Returns:
        The PEFT model, in evaluation mode; the adapter computes where it is named.

    Raises:
        AdapterMismatchError: A weight is missing, unexpected, or of another shape.
        TargetModuleError: The adapter targets a module that the model does not have.
    """
    from peft import LoraConfig, PeftModel

    folder = Path(folder)
    config = LoraConfig.from_pretrained(str(folder))
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    _check_weights(folder, base, config)
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), adapter_name=internal_name, is_trainable=False)
    else:
        model = PeftModel.from_pretrained(
            model, str(folder), adapter_name=internal_name, is_trainable=False
        )
    return model.eval()


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


def _check_weights(folder: Path, base: Any, config: Any) -> None:
    """Compare the weights in an adapter file with what its configuration asks of the model."""
    from safetensors import safe_open

    targets = config.target_modules
    targets = [targets] if isinstance(targets, str) else sorted(targets or ())
    layers = linear_module_names(base)
    resolve_target_modules(base, targets)
    expected: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns) in layers.items():
        if name.rsplit(".", 1)[-1] in targets:
            expected[f"base_model.model.{name}.lora_A.weight"] = (config.r, columns)
            expected[f"base_model.model.{name}.lora_B.weight"] = (rows, config.r)
    with safe_open(str(folder / _WEIGHTS_NAME), framework="numpy") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
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
