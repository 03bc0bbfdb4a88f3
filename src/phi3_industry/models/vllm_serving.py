"""The command that lets vLLM serve a base model and its adapters, each checked before.

Source of the flags: https://docs.vllm.ai/en/latest/cli/serve.html
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from phi3_industry.errors import ConfigurationError
from phi3_industry.models.catalog import checkpoint_from_config, resolve_model
from phi3_industry.models.formats import load_config, stored_quantization
from phi3_industry.models.manifest import read_manifest
from phi3_industry.models.vllm_export import VllmAdapter, check_for_vllm, lora_module

__all__ = ["API_KEY_VARIABLE", "ServeCommand", "plan_serving"]

API_KEY_VARIABLE = "VLLM_API_KEY"
"""Where ``vllm serve`` and :class:`~phi3_industry.llms.Phi3LLM` look for the key."""

ServedType = Literal["float32", "bfloat16", "float16"]

_IMAGE = "vllm/vllm-openai:latest"
_MOUNTED = "/models"
_MOST_AT_ONCE = 8
_PORT = 8000

# Without the second a grammar lets white space go on without end. vLLM takes it only where the
# backend is named.
_GRAMMARS = {"backend": "xgrammar", "disable_any_whitespace": True}


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """How vLLM is to be started.

    Attributes:
        name: What requests call the base model.
        model: The base model, a folder or a hub id.
        adapters: What was checked, by the names that requests use.
        options: Arguments for base and adapters together, without their paths.
        host: Address that it listens on.
        port: Port that it listens on.
        notes: What is worth knowing before it is started.
    """

    name: str
    model: str
    adapters: Mapping[str, VllmAdapter]
    options: tuple[str, ...]
    host: str
    port: int
    notes: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """The command with its arguments, none of them quoted."""
        paths = {name: str(adapter.path.resolve()) for name, adapter in self.adapters.items()}
        return ["vllm", "serve", *self._arguments(self.model, paths, host=self.host)]

    def shell(self) -> str:
        """Write the command as a line for a POSIX shell."""
        return shlex.join(self.command)

    def compose(self, image: str = _IMAGE) -> str:
        """Write a Docker Compose file, in JSON, which is YAML, too.

        Folders are mounted read-only. The key comes from the environment in which compose runs,
        and without one nothing is started.

        Args:
            image: The image, with a tag.
        """
        inside = {name: f"{_MOUNTED}/adapter-{i}" for i, name in enumerate(self.adapters)}
        volumes = [
            _read_only(self.adapters[name].path.resolve(), target)
            for name, target in inside.items()
        ]
        base = self.model
        if Path(base).is_dir():
            base = f"{_MOUNTED}/base"
            volumes.append(_read_only(Path(self.model).resolve(), base))
        device = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
        key = f"${{{API_KEY_VARIABLE}:?set {API_KEY_VARIABLE}}}"
        service = {
            "image": _literal(image),
            "entrypoint": ["vllm", "serve"],
            "command": [_literal(a) for a in self._arguments(base, inside, host="0.0.0.0")],  # noqa: S104 - of the container; compose publishes it on self.host alone
            "environment": {API_KEY_VARIABLE: key},
            "ports": [f"{self.host}:{self.port}:{self.port}"],
            "volumes": volumes,
            "ipc": "host",
            "deploy": {"resources": {"reservations": {"devices": [device]}}},
        }
        return json.dumps({"services": {"vllm": service}}, indent=2, ensure_ascii=False)

    def to_json(self) -> dict[str, Any]:
        """Say everything as JSON values."""
        return {
            "command": self.command,
            "shell": self.shell(),
            "served_model": self.name,
            "api_key_env": API_KEY_VARIABLE,
            "adapters": {
                name: {
                    "path": str(adapter.path.resolve()),
                    "rank": adapter.rank,
                    "target_modules": list(adapter.target_modules),
                }
                for name, adapter in self.adapters.items()
            },
            "notes": list(self.notes),
        }

    def _arguments(self, model: str, paths: Mapping[str, str], *, host: str) -> list[str]:
        modules = [lora_module(name, path) for name, path in paths.items()]
        return [
            model,
            *("--host", host, "--port", str(self.port)),
            *self.options,
            *(["--lora-modules", *modules] if modules else []),
        ]


def plan_serving(
    model: str,
    *,
    adapters: Mapping[str, str | PathLike[str]] | None = None,
    revision: str | None = None,
    dtype: ServedType | None = None,
    max_model_len: int | None = None,
    host: str = "127.0.0.1",
    port: int = _PORT,
    local_files_only: bool = False,
) -> ServeCommand:
    """Check a base model and its adapters, and say how vLLM is started for them.

    Args:
        model: ``"embedded"``, a folder, or a hub id.
        adapters: Adapter folders by the names that requests will use.
        revision: Revision of the model on the hub.
        dtype: The type to compute in; ``None`` is the one that the weights are stored in.
        max_model_len: Tokens of prompt and answer together; ``None`` is what the model holds
            before its behaviour changes.
        host: Address to listen on; others than this machine reach ``"0.0.0.0"``.
        port: Port to listen on.
        local_files_only: Whether to keep off the network.

    Raises:
        ModelLoadError: There is no such model.
        AdapterError: An adapter is damaged, or has what vLLM does not serve; names it and says
            what to do.
        AdapterMismatchError: An adapter was made for another base model.
        AdapterNotFoundError: A folder holds no adapter.
        ConfigurationError: A name cannot be served, or the model does not hold so many tokens.
    """
    config = load_config(model, revision=revision, local_files_only=local_files_only)
    source, name = resolve_model(model)
    checked: dict[str, VllmAdapter] = {}
    for own, folder in (adapters or {}).items():
        _check_name(own, base=name)
        checked[own] = check_for_vllm(folder, config, model=model)
    layout = config.to_dict()
    checkpoint = checkpoint_from_config(name, layout)
    length = max_model_len or checkpoint.prompt_budget
    if not 0 < length <= checkpoint.context_window:
        raise ConfigurationError(
            f"max_model_len is {length} and '{name}' holds {checkpoint.context_window} tokens. "
            "Lower it, or leave it out."
        )
    chosen = dtype or _stored_type(layout)
    options = ["--served-model-name", name, "--dtype", chosen, "--max-model-len", str(length)]
    if revision is not None:
        options += ["--revision", revision]
    options += ["--structured-outputs-config", json.dumps(_GRAMMARS)]
    if checked:
        count = len(checked)
        options += ["--enable-lora", "--max-loras", str(min(count, _MOST_AT_ONCE))]
        options += ["--max-cpu-loras", str(count)]
        options += ["--max-lora-rank", str(max(a.max_lora_rank for a in checked.values()))]
    return ServeCommand(
        name=name,
        model=source,
        adapters=checked,
        options=tuple(options),
        host=host,
        port=port,
        notes=tuple(_notes(checked, layout, host=host)),
    )


def _check_name(name: str, *, base: str) -> None:
    if name == base:
        raise ConfigurationError(
            f"The adapter '{name}' has the name of the base model, so that requests could not "
            "tell them apart. Give it another: --adapter NAME=FOLDER."
        )
    if not name or name != name.strip() or re.search(r"[\x00-\x1f\x7f]", name):
        raise ConfigurationError(
            f"An adapter cannot be called {name!r}: a name has characters that can be seen, and "
            "no space at its ends. Give it another: --adapter NAME=FOLDER."
        )


def _stored_type(layout: Mapping[str, Any]) -> str:
    stored = str(layout.get("dtype") or layout.get("torch_dtype") or "bfloat16")
    return stored.removeprefix("torch.")


def _notes(
    adapters: Mapping[str, VllmAdapter], layout: Mapping[str, Any], *, host: str
) -> list[str]:
    notes = [
        f"Set {API_KEY_VARIABLE} for the server and for those who ask it; without one it answers "
        "everybody who reaches it."
    ]
    if host not in ("127.0.0.1", "localhost", "::1"):
        notes.append("It speaks plain HTTP: put a server with TLS before it.")
    quantised = [n for n, a in adapters.items() if read_manifest(a.path).method == "qlora"]
    if quantised and stored_quantization(layout) is None:
        notes.append(
            f"Trained on the base in 4 bits and served on it in full: {', '.join(quantised)}. "
            "Measure them there before you rely on it."
        )
    if len(adapters) > _MOST_AT_ONCE:
        notes.append(
            f"{_MOST_AT_ONCE} of the {len(adapters)} adapters answer at a time; requests for the "
            "others wait. Raise --max-loras if memory allows."
        )
    if adapters:
        notes.append(
            "On a CPU vLLM 0.32 answers the base's requests with an adapter while one is in use: "
            "there, serve each by a server of its own."
        )
    return notes


def _read_only(source: Path, target: str) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": _literal(str(source)),
        "target": target,
        "read_only": True,
    }


def _literal(text: str) -> str:
    """Keep compose from replacing what looks like a variable."""
    return text.replace("$", "$$")
