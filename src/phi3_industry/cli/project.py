"""The project file ``phi3-industry.toml``: found, checked, and laid under the command line."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from phi3_industry._addresses import holds_secret, moved
from phi3_industry.cli.settings import SETTINGS, TABLES, Setting
from phi3_industry.errors import ConfigurationError

__all__ = ["PROJECT_FILE", "Project", "find_project", "read_project", "resolve", "shown_path"]

PROJECT_FILE = "phi3-industry.toml"

_ADAPTERS = "adapters"
_BY_NAME = {setting.name: setting for setting in SETTINGS.values()}
_TYPES = {
    "text": "a text",
    "model": "a text",
    "adapter": "a text",
    "store": "a text",
    "file": "a path",
    "folder": "a path",
    "paths": "a path or a list of paths",
    "count": "a whole number of at least 1",
    "whole": "a whole number",
    "amount": "a number above 0",
    "switch": "true or false",
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a project file says.

    Attributes:
        path: The file; ``None`` if there is none.
        values: What it sets, by the settings' names; its relative paths are resolved.
        adapters: Adapter folders by name.
    """

    path: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where paths begin that nobody has given."""
        return Path() if self.path is None else self.path.parent


def find_project(start: Path) -> Path | None:
    """Look for a project file in a folder and those above it.

    Args:
        start: The folder to begin in.

    Raises:
        ConfigurationError: The one that is found above belongs to somebody else, who could send
            your questions to a server of their own.
    """
    for folder in (start, *start.parents):
        path = folder / PROJECT_FILE
        if path.is_file():
            if folder != start and _is_of_somebody_else(path):
                raise ConfigurationError(
                    f"The project file '{path}' belongs to another user, so it is not taken "
                    f"unasked. To use it, say --project {path}; to keep it out, put a "
                    f"{PROJECT_FILE} of your own into '{start}' with: phi3-industry init"
                )
            return path
    return None


def _is_of_somebody_else(path: Path) -> bool:
    return hasattr(os, "getuid") and path.stat().st_uid not in (0, os.getuid())


def read_project(path: Path | None) -> Project:
    """Read a project file.

    Args:
        path: The file; ``None`` gives a project that says nothing.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigurationError: It is no TOML, or a key or a value in it cannot be right.
    """
    if path is None:
        return Project()
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"'{path}' is not in UTF-8. Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"'{path}' is not valid TOML: {error}.") from error
    return _Reader(path).read(content)


@dataclass(frozen=True)
class _Reader:
    path: Path

    def read(self, content: dict[str, Any]) -> Project:
        adapters = self._adapters(content.pop(_ADAPTERS, {}))
        values = {}
        for name, value in self._flat(content):
            if name not in _BY_NAME:
                raise self._error(name, f"there is no such key. {_nearest(name)}")
            values[name] = self._value(_BY_NAME[name], value, adapters)
        return Project(path=self.path, values=values, adapters=adapters)

    def _flat(self, content: dict[str, Any]) -> list[tuple[str, Any]]:
        pairs = []
        for key, value in content.items():
            if isinstance(value, dict) and key in TABLES:
                pairs += [(f"{key}.{inner}", item) for inner, item in value.items()]
            else:
                pairs.append((key, value))
        return pairs

    def _adapters(self, table: Any) -> dict[str, str]:
        if not isinstance(table, dict):
            raise self._error(_ADAPTERS, 'it must be a table, such as: [adapters]\nmine = "folder"')
        for name, folder in table.items():
            if not isinstance(folder, str) or not folder:
                raise self._error(f"{_ADAPTERS}.{name}", f"it must be a path, and is {folder!r}.")
        return {name: self._place(folder) for name, folder in table.items()}

    def _value(self, setting: Setting, value: Any, adapters: Mapping[str, str]) -> Any:
        if not _fits(setting, value):
            wanted = _TYPES.get(setting.kind) or f"one of {', '.join(setting.choices)}"
            raise self._error(setting.name, f"it must be {wanted}, and is {value!r}.")
        match setting.kind:
            case "file" | "folder":
                return self._place(value)
            case "paths":
                return [
                    self._place(path) for path in ([value] if isinstance(value, str) else value)
                ]
            case "adapter":
                return value if value in adapters else self._place(value)
            case "store":
                return self._store(setting, value)
            case "model" if (self.path.parent / Path(value).expanduser()).is_dir():
                return self._place(value)
        return value

    def _store(self, setting: Setting, address: str) -> str:
        if holds_secret(address):
            raise self._error(
                setting.name,
                "it holds a password, which a file that is copied and versioned should not. Take "
                "it out there: PostgreSQL's client looks into PGPASSWORD and ~/.pgpass, and a key "
                "of Qdrant is taken from QDRANT_API_KEY.",
            )
        return moved(address, self._place)

    def _place(self, path: str) -> str:
        return shown_path(self.path.parent / Path(path).expanduser())

    def _error(self, name: str, problem: str) -> ConfigurationError:
        return ConfigurationError(f"'{self.path}', key '{name}': {problem}")


def _fits(setting: Setting, value: Any) -> bool:
    match setting.kind:
        case "paths":
            return all(
                isinstance(path, str) and path
                for path in (value if isinstance(value, list) else [value])
            )
        case "choice":
            return value in setting.choices
        case "switch":
            return isinstance(value, bool)
        case "count" | "whole":
            least = 1 if setting.kind == "count" else float("-inf")
            return type(value) is int and value >= least
        case "amount":
            return type(value) in (int, float) and 0 < value < float("inf")
    return isinstance(value, str) and bool(value)


def _nearest(name: str) -> str:
    """Name the known key that was probably meant."""
    key = name.rpartition(".")[2]
    by_key = {setting.key: setting.name for setting in SETTINGS.values()}
    near = get_close_matches(key, by_key, n=1) or get_close_matches(name, _BY_NAME, n=1)
    if not near:
        return f"The keys are: {', '.join(_BY_NAME)}, and a table [{_ADAPTERS}]."
    table, _, found = by_key.get(near[0], near[0]).rpartition(".")
    return f"The nearest is '{found}'" + (f" in [{table}]." if table else " at the top.")


def shown_path(path: Path) -> str:
    """Write a path as the user would: from the working folder if it lies there."""
    absolute = Path(os.path.abspath(path))
    try:
        return str(absolute.relative_to(Path.cwd()))
    except ValueError:
        return str(absolute)


def resolve(arguments: argparse.Namespace, project: Project) -> None:
    """Fill in what the command line leaves open: from the project file, or by default.

    ``arguments.origins`` then says by key where each value is from.

    Args:
        arguments: The command line; changed in place.
        project: The project file.
    """
    arguments.origins = {}
    for setting in arguments.settings:
        value = getattr(arguments, setting.key)
        origin = "command line"
        if value is None or value == []:
            value, origin = project.values.get(setting.name), str(project.path)
        if value is None:
            value, origin = setting.default, "default"
            if setting.kind == "folder" and value is not None:
                value = shown_path(project.folder / value)
        if setting.kind == "adapter":
            arguments.adapter_name = value and _adapter_name(value, project)
            value = project.adapters.get(value, value)
        setattr(arguments, setting.key, value)
        arguments.origins[setting.key] = origin


def _adapter_name(adapter: str, project: Project) -> str:
    return adapter if adapter in project.adapters else Path(adapter).resolve().name
