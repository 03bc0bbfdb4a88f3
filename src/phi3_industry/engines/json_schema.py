"""JSON schemas on their way into a grammar: read, bounded, and searched for what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from phi3_industry.engines.base import Grammar
from phi3_industry.errors import ConfigurationError

__all__ = ["bound_numbers", "enforceable", "read_schema", "subschemas", "text_or_json"]

_SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps. Source: RFC 8259, section 6."""

# keywords whose values are schemas: by name, in a row, or one
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The layout of ``json.dumps``: a model that may put white space anywhere can do so for ever."""


def read_schema(text: str) -> dict[str, Any]:
    """Read a JSON schema.

    Raises:
        ConfigurationError: The text is no JSON, or neither an object nor ``true``.
    """
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"The JSON schema is no JSON: {error}.") from error
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise ConfigurationError(
            f"The JSON schema is {text[:40]!r}; it must be an object, or true for any JSON."
        )
    return schema


def bound_numbers(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Keep numbers that a schema leaves open within what a double holds.

    Otherwise a model may write digits for ever, or ``1e999``, which readers take for infinity.
    The answers still obey the schema as it was given.

    Returns:
        A new schema.
    """
    bounded = {key: _in_parts(key, value) for key, value in schema.items()}
    types = schema.get("type")
    if {"number", "integer"} & set([types] if isinstance(types, str) else types or ()):
        given = [abs(schema[key]) for key in _BOUNDS if key in schema]
        reach = max([_SAFE_INTEGER, *(2 * bound for bound in given)])
        if not {"minimum", "exclusiveMinimum"} & set(schema):
            bounded["minimum"] = -reach
        if not {"maximum", "exclusiveMaximum"} & set(schema):
            bounded["maximum"] = reach
    return bounded


def enforceable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Make a schema ready for llguidance: numbers bounded, our layout, its strict mode."""
    return {**bound_numbers(schema), "x-guidance": _LAYOUT}


def text_or_json(schema: Mapping[str, Any]) -> Grammar:
    """Build the grammar of answers that are plain text or, if they begin with a brace, JSON.

    Args:
        schema: Schema of an object.
    """
    rules = r"start: TEXT | json" "\n" r"TEXT: /[^{\s](.|\n)*/" "\n" "json: %json "
    return Grammar(kind="ebnf", text=rules + json.dumps(enforceable(schema)))


def subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the direct parts of a schema that are schemas, with their steps of a JSON pointer."""
    for key in _MAPS:
        for name, child in dict(schema.get(key) or {}).items():
            if isinstance(child, dict):
                yield f"{key}/{name}", child
    for key in _LISTS:
        for position, child in enumerate(schema.get(key) or ()):
            if isinstance(child, dict):
                yield f"{key}/{position}", child
    for key in _SINGLES:
        if isinstance(schema.get(key), dict):
            yield key, schema[key]


def _in_parts(key: str, value: Any) -> Any:
    """Bound the numbers in the value of one keyword."""
    if key in _MAPS and isinstance(value, dict):
        return {name: _if_schema(child) for name, child in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [_if_schema(child) for child in value]
    return _if_schema(value) if key in _SINGLES else value


def _if_schema(value: Any) -> Any:
    return bound_numbers(value) if isinstance(value, dict) else value
