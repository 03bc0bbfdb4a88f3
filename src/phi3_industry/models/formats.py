"""Which published forms of a checkpoint can be loaded, and what to use instead of the others.

A configuration is read as plain JSON first. So a checkpoint that brings its own code, or one in a
format for another runtime, is refused with a sentence before anything of it is run or loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from phi3_industry.errors import MissingDependencyError, ModelLoadError
from phi3_industry.models.catalog import EMBEDDED, SUPPORTED_MODEL_TYPES, resolve_model
from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.quiet import quiet_known_noise

__all__ = ["load_config", "stored_quantization"]

_INSTEAD_OF: Mapping[str, str] = {
    "phi3small": "Phi-3-small computes with code of its own that runs on some GPUs alone. Use "
    "'microsoft/Phi-3-medium-4k-instruct' or 'microsoft/Phi-3.5-mini-instruct' instead.",
    "phi3_v": "It reads pictures, and this library reads text. Use "
    "'microsoft/Phi-3.5-mini-instruct' instead.",
    "phi4mm": "It reads pictures and sound, and this library reads text. Use "
    "'microsoft/Phi-4-mini-instruct' instead.",
    "phi4_multimodal": "It reads pictures and sound, and this library reads text. Use "
    "'microsoft/Phi-4-mini-instruct' instead.",
}
"""What to use instead of relatives of Phi-3, by ``model_type``."""

# transformers 5.23 reads a GGUF file of Phi-3, but leaves out its sliding window and the factors of
# its longrope, so that the model would compute something else, and unpacked it is no smaller
_OTHER_RUNTIMES: Mapping[str, str] = {"gguf": "llama.cpp", "onnx": "ONNX Runtime"}
_GPTQ_PACKAGES = ("optimum", "gptqmodel")


def load_config(model: str, *, revision: str | None = None, local_files_only: bool = False) -> Any:
    """Read a model's configuration, or say why it cannot be loaded and what can.

    Args:
        model: ``"embedded"``, a folder, or a hub id.
        revision: Revision on the hub; ``None`` is its main branch.
        local_files_only: Whether to keep off the network.

    Returns:
        The configuration as an object of transformers' own class.

    Raises:
        ModelLoadError: There is no such model, or it is of another kind or format.
        MissingDependencyError: Its quantisation needs a package that is not installed.
    """
    from transformers import AutoConfig, PretrainedConfig

    quiet_known_noise()
    _refuse_other_formats(model)
    source, _ = resolve_model(model)
    options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    try:
        raw, _ = PretrainedConfig.get_config_dict(source, **options)
        if not raw:
            raise OSError("it has no config.json")
        _refuse_other_kinds(model, raw)
        _refuse_other_quantisations(model, raw)
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        known = ", ".join(KNOWN_CHECKPOINTS)
        raise ModelLoadError(
            f"There is no model '{model}': it is neither '{EMBEDDED}', nor a folder with a "
            f"config.json of a known kind, nor a hub id that can be reached ({error}). Known "
            f"checkpoints: {known}."
        ) from error


def stored_quantization(config: Any) -> str | None:
    """Say how a checkpoint's weights are quantised on disk: ``nf4``, ``int8``, ``gptq`` or not.

    Args:
        config: The configuration object or a mapping.
    """
    raw = config if isinstance(config, Mapping) else config.to_dict()
    stored = raw.get("quantization_config")
    if not stored:
        return None
    stored = stored if isinstance(stored, Mapping) else stored.to_dict()
    if stored.get("load_in_4bit"):
        return str(stored.get("bnb_4bit_quant_type", "fp4"))
    if stored.get("load_in_8bit"):
        return "int8"
    return str(stored.get("quant_method"))


def _refuse_other_formats(model: str) -> None:
    """Refuse files for other runtimes: by their names in a folder, by the name of a hub id."""
    path = Path(model).expanduser()
    if path.is_dir():
        # transformers would load the base model that the adapter names, whatever else is there
        if (path / "adapter_config.json").exists():
            raise ModelLoadError(
                f"The folder '{model}' holds an adapter. Load its base model, then the adapter "
                "with llm.load_adapter(path, name=...)."
            )
        if next(path.glob("*.safetensors"), None):
            return
        endings = {file.suffix.lower().lstrip(".") for file in path.rglob("*") if file.is_file()}
    else:
        # hub ids say so at their end, as in Phi-3-mini-4k-instruct-gguf
        endings = {re.split(r"[-.]", model.lower())[-1]}
    for ending, runtime in _OTHER_RUNTIMES.items():
        if ending in endings:
            raise ModelLoadError(
                f"The model '{model}' is made for {runtime} ({ending.upper()}); this library "
                "loads the safetensors files of the original checkpoint. Use the original, such "
                "as 'microsoft/Phi-3-mini-4k-instruct', with quantization='nf4' to make it as "
                f"small, or let {runtime} serve the file and give its address as base_url=."
            )


def _refuse_other_kinds(model: str, raw: Mapping[str, Any]) -> None:
    kind = str(raw.get("model_type"))
    if kind in SUPPORTED_MODEL_TYPES:
        return
    if kind in _INSTEAD_OF:
        raise ModelLoadError(f"The model '{model}' is of the type '{kind}'. {_INSTEAD_OF[kind]}")
    if raw.get("auto_map"):
        raise ModelLoadError(
            f"The model '{model}' is of the type '{kind}' and demands that code from the "
            "checkpoint is run, which this library never does. Use a checkpoint that "
            "transformers has a class of its own for, such as "
            "'microsoft/Phi-3-mini-4k-instruct'."
        )
    raise ModelLoadError(
        f"The model '{model}' is of the type '{kind}'; this library loads the "
        f"types {list(SUPPORTED_MODEL_TYPES)}. Use an instruct checkpoint of the Phi-3 "
        "family, such as 'microsoft/Phi-3-mini-4k-instruct'."
    )


def _refuse_other_quantisations(model: str, raw: Mapping[str, Any]) -> None:
    kind = stored_quantization(raw)
    if kind in (None, "nf4", "int8"):
        return
    if kind == "gptq":
        for package in _GPTQ_PACKAGES:
            if find_spec(package) is None:
                raise MissingDependencyError(
                    package,
                    purpose=f"load '{model}', whose weights are quantised with GPTQ (the "
                    "original checkpoint with quantization='nf4' needs no such package)",
                )
        return
    raise ModelLoadError(
        f"The weights of '{model}' are quantised with '{kind}'; this library reads 16- and 32-bit "
        "weights, bitsandbytes nf4 and int8, and GPTQ. Use the original checkpoint with "
        "quantization='nf4'."
    )
