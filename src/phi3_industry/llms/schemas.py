"""JSON schemas of output classes and tools, made ready to be enforced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["closed", "hoist_definitions"]


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Allow no property that an object of a schema does not name, unless it says that it does.

    JSON schema lets every object have further properties. A model would invent some.
    """

    def close(part: dict[str, Any]) -> dict[str, Any]:
        if "properties" in part and isinstance(part["properties"], dict):
            return {"additionalProperties": False, **part}
        return part

    return dict(_mapped(schema, close))


def hoist_definitions(
    schema: Mapping[str, Any], *, prefix: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the definitions out of a schema, so that several schemas can share one document.

    Args:
        schema: A schema with references to its own ``$defs``.
        prefix: Put before the names of its definitions, to keep those of others apart.

    Returns:
        The schema without definitions, and the definitions by their new names.
    """
    old = "#/$defs/"

    def rename(part: dict[str, Any]) -> dict[str, Any]:
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith(old):
            return {**part, "$ref": f"{old}{prefix}{reference.removeprefix(old)}"}
        return part

    renamed = dict(_mapped(schema, rename))
    definitions = renamed.pop("$defs", {})
    return renamed, {f"{prefix}{name}": part for name, part in definitions.items()}


def _mapped(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Copy JSON with each of its objects changed, the innermost first."""
    if isinstance(value, Mapping):
        return change({key: _mapped(item, change) for key, item in value.items()})
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return value
