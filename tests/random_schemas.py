"""Random JSON schemas, drawn from a seed: what an industry asks for, and what it does not."""

from __future__ import annotations

import random
from typing import Any

_NAMES = (
    "tag", "pressure_bar", "Größe", "名称", "naïve key", "with \"quotes\"", "a/b", "x",
    "température", "Ключ", "réf.", "back\\slash", "emoji 🔧", "serial_no", "Ω", "tab\tbed",
)  # fmt: skip
_WORDS = ("open", "closed", "läuft", "停止", "ещё", "🔧", 'a "b"', "c\\d", "", "line\nbreak")
_PATTERNS = (
    r"^[A-Z]{2}-\d{4}$",
    r"^(DN|PN)\d{1,3}$",
    r"^[a-zäöüß]{3,12}$",
    r"^\d{4}-(0[1-9]|1[0-2])$",
    r"^(ab)*cd$",
    r"^[一-龥]{1,4}$",
    r"^[^@\s]+@[a-z]+\.(com|org)$",
)
_FORMATS = ("date", "time", "date-time", "uuid", "email", "ipv4")


def random_schema(seed: int) -> dict[str, Any]:
    """Draw an object schema: nested, with enums, arrays, optional fields, patterns, unicode."""
    draw = random.Random(seed)
    schema = _object(draw, depth=0)
    if draw.random() < 0.3:
        schema["$defs"] = {"part": _object(draw, depth=2)}
        schema["properties"]["shared"] = {"$ref": "#/$defs/part"}
        schema["properties"]["again"] = {"type": "array", "items": {"$ref": "#/$defs/part"}}
        schema["required"].append("shared")
    return schema


def _object(draw: random.Random, *, depth: int) -> dict[str, Any]:
    names = draw.sample(_NAMES, draw.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: _any(draw, depth=depth + 1) for name in names},
        "required": [name for name in names if draw.random() < 0.6],
        "additionalProperties": False,
    }


def _any(draw: random.Random, *, depth: int) -> dict[str, Any]:
    kinds = [_text, _number, _choice, _flag, _nullable]
    if depth < 3:
        kinds += [_nested, _list, _list]
    return draw.choice(kinds)(draw, depth)


def _text(draw: random.Random, depth: int) -> dict[str, Any]:
    kind = draw.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": draw.choice(_PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": draw.choice(_FORMATS)}
    if kind == 2:
        shortest = draw.randint(0, 6)
        return {
            "type": "string",
            "minLength": shortest,
            "maxLength": shortest + draw.randint(0, 20),
        }
    return {"type": "string"}


def _number(draw: random.Random, depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": draw.choice(["integer", "number"])}
    kind = draw.randrange(4)
    if kind == 0:
        low = draw.randint(-50, 500)
        schema.update(minimum=low, maximum=low + draw.randint(0, 400))
    elif kind == 1:
        schema.update(exclusiveMinimum=draw.randint(-9, 99))
    elif kind == 2:
        schema.update(type="integer", minimum=0, multipleOf=draw.choice([2, 5, 7, 12]))
    return schema


def _choice(draw: random.Random, depth: int) -> dict[str, Any]:
    if draw.random() < 0.3:
        return {"const": draw.choice([*_WORDS, 4, True, None, {"a": ["ü"]}])}
    return {"enum": [*draw.sample(_WORDS, draw.randint(1, 4)), draw.randint(0, 9), None]}


def _flag(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "boolean"}


def _nullable(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_text(draw, depth), {"type": "null"}]}


def _nested(draw: random.Random, depth: int) -> dict[str, Any]:
    return _object(draw, depth=depth)


def _list(draw: random.Random, depth: int) -> dict[str, Any]:
    fewest = draw.randint(0, 2)
    schema = {"type": "array", "items": _any(draw, depth=depth + 1), "minItems": fewest}
    if draw.random() < 0.5:
        schema["maxItems"] = fewest + draw.randint(0, 3)
    return schema
