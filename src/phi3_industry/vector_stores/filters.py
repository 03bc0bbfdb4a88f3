"""LlamaIndex's metadata filters as SQL conditions.

The meaning is that of LlamaIndex's own in-memory filters (``build_metadata_filter_fn``): a key
that is missing or null satisfies only ``!=``, ``nin`` and ``is_empty``, and ``not`` means that none
of the filters match. Two things differ on purpose: nested filters work, and a value that cannot be
compared with the filter's (a text with a number) is neither equal to it, greater, less nor in it,
instead of raising, since one odd row must not break every query. Keys and values reach SQLite as
parameters only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

__all__ = ["LOWER_FUNCTION", "Condition", "filters_to_sql", "is_among"]

#: The SQL function that must be registered as Python's ``str.lower``; SQLite's knows only ASCII.
LOWER_FUNCTION = "unicode_lower"

#: An SQL condition and its parameters.
Condition = tuple[str, list[object]]

_COMPARISONS = {
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}
# A filter with more values is answered by reading each node's metadata.
_MOST_LOOKS = 20
_NUMBERS = "('integer', 'real', 'true', 'false')"
# Conditions on one key's entry `m` of json_each: m.type is its JSON type, m.value its value.
_IN_ARRAY = "(m.type = 'array' AND EXISTS (SELECT 1 FROM json_each(m.value) AS e WHERE {test}))"


def filters_to_sql(filters: MetadataFilters) -> Condition:
    """Write filters as a condition on the column ``metadata`` of the table ``nodes``.

    Args:
        filters: Any filters, nested ones included.

    Returns:
        An SQL expression that is 0 or 1, and its parameters. Filters without entries match all.

    Raises:
        ValueError: An operator is given a value of a kind that it cannot work with.
    """
    if not filters.filters:
        return "1", []
    parts: list[str] = []
    parameters: list[object] = []
    for entry in filters.filters:
        if isinstance(entry, MetadataFilters):
            sql, values = filters_to_sql(entry)
        else:
            sql, values = _filter_to_sql(entry)
        parts.append(sql)
        parameters += values
    condition = filters.condition or FilterCondition.AND
    if condition == FilterCondition.AND:
        return f"({' AND '.join(parts)})", parameters
    joined = f"({' OR '.join(parts)})"
    return (f"(NOT {joined})" if condition == FilterCondition.NOT else joined), parameters


def is_among(column: str, values: Sequence[str]) -> Condition:
    """Return the condition that a column holds one of any number of values."""
    sql = column + " IN (SELECT value FROM json_each(?))"  # noqa: S608 - a name of ours
    return sql, [json.dumps(list(values))]


def _filter_to_sql(entry: MetadataFilter) -> Condition:
    operator = entry.operator
    if operator == FilterOperator.IS_EMPTY:
        filled = (
            "m.type != 'null' AND NOT (m.type = 'text' AND m.value = '') "
            "AND NOT (m.type = 'array' AND json_array_length(m.value) = 0)"
        )
        return _exists(entry.key, (filled, []), negated=True)
    if operator in (FilterOperator.NE, FilterOperator.NIN):
        positive = FilterOperator.EQ if operator == FilterOperator.NE else FilterOperator.IN
        sql, values = _filter_to_sql(entry.model_copy(update={"operator": positive}))
        return f"NOT {sql}", values
    sql, values = _exists(entry.key, _TESTS[operator](entry), negated=False)
    if operator in (FilterOperator.EQ, FilterOperator.IN) and (written := _as_written(entry)):
        looks = " OR ".join(["instr(nodes.metadata, ?)"] * len(written))
        return f"(({looks}) AND {sql})", [*written, *values]
    return sql, values


def _as_written(entry: MetadataFilter) -> list[object]:
    """Return what the text of matching metadata contains, or nothing if that may vary.

    Looking for a text takes a tenth of the time of reading JSON. Beyond printable ASCII, and for
    0, 1 and numbers that are not whole, one value can be written in several ways.
    """
    values = entry.value if isinstance(entry.value, list) else [entry.value]
    if entry.operator == FilterOperator.EQ and values is entry.value:
        return []
    if entry.operator == FilterOperator.IN and values is not entry.value:
        return []
    if not 0 < len(values) <= _MOST_LOOKS or not all(map(_is_plain, [entry.key, *values])):
        return []
    return [f"{json.dumps(entry.key)}: {json.dumps(value)}" for value in values]


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isprintable()
    return type(value) is int and 1 < abs(value) < 10**15


def _exists(key: str, test: Condition, *, negated: bool) -> Condition:
    # EXISTS is 0 or 1 and never NULL, so that NOT works on missing keys
    entry = "SELECT 1 FROM json_each(nodes.metadata) AS m WHERE m.key = ?"
    sql = f"EXISTS ({entry} AND {test[0]})"
    return ("NOT " if negated else "") + sql, [key, *test[1]]


def _equals(entry: MetadataFilter) -> Condition:
    if isinstance(entry.value, list):
        same = (
            "(m.type = 'array' AND json_array_length(m.value) = ? AND NOT EXISTS ("
            "SELECT 1 FROM json_each(m.value) AS e JOIN json_each(?) AS w ON e.key = w.key "
            "WHERE e.value IS NOT w.value))"
        )
        return same, [len(entry.value), _as_json(entry.value, entry)]
    return "(m.type NOT IN ('array', 'object') AND m.value = ?)", [_scalar(entry.value)]


def _compares(entry: MetadataFilter) -> Condition:
    if isinstance(entry.value, str):
        kind = "= 'text'"
    elif isinstance(entry.value, (int, float)):
        kind = f"IN {_NUMBERS}"
    else:
        raise _wrong_value(entry, "a number or a text")
    return f"(m.type {kind} AND m.value {_COMPARISONS[entry.operator]} ?)", [_scalar(entry.value)]


def _is_in(entry: MetadataFilter) -> Condition:
    if isinstance(entry.value, str):
        return "(m.type = 'text' AND instr(?, m.value) > 0)", [entry.value]
    if not isinstance(entry.value, list):
        raise _wrong_value(entry, "a list, or a text to look into")
    among = "(m.type NOT IN ('array', 'object') AND m.value IN (SELECT value FROM json_each(?)))"
    return among, [_as_json(entry.value, entry)]


def _contains(entry: MetadataFilter) -> Condition:
    if entry.value is None or isinstance(entry.value, list):
        raise _wrong_value(entry, "a number or a text")
    return _holds(entry.value)


def _holds_all(entry: MetadataFilter) -> Condition:
    return _joined([_holds(value) for value in _values(entry)], " AND ", empty="m.type != 'null'")


def _holds_any(entry: MetadataFilter) -> Condition:
    return _joined([_holds(value) for value in _values(entry)], " OR ", empty="0")


def _values(entry: MetadataFilter) -> Sequence[object]:
    if isinstance(entry.value, (list, str)):
        return entry.value
    raise _wrong_value(entry, "a list")


def _holds(value: object) -> Condition:
    in_array = _IN_ARRAY.format(test="e.value = ?")
    if not isinstance(value, str):
        return in_array, [_scalar(value)]
    in_object = "(m.type = 'object' AND EXISTS (SELECT 1 FROM json_each(m.value) WHERE key = ?))"
    in_text = "(m.type = 'text' AND instr(m.value, ?) > 0)"
    return f"({in_array} OR {in_text} OR {in_object})", [value, value, value]


def _matches_text(entry: MetadataFilter) -> Condition:
    if not isinstance(entry.value, str):
        raise _wrong_value(entry, "a text")
    if entry.operator == FilterOperator.TEXT_MATCH:
        return "(m.type = 'text' AND instr(m.value, ?) > 0)", [entry.value]
    lowered = f"(m.type = 'text' AND instr({LOWER_FUNCTION}(m.value), ?) > 0)"
    return lowered, [entry.value.lower()]


_TESTS: dict[FilterOperator, Callable[[MetadataFilter], Condition]] = {
    FilterOperator.EQ: _equals,
    FilterOperator.IN: _is_in,
    FilterOperator.CONTAINS: _contains,
    FilterOperator.ALL: _holds_all,
    FilterOperator.ANY: _holds_any,
    FilterOperator.TEXT_MATCH: _matches_text,
    FilterOperator.TEXT_MATCH_INSENSITIVE: _matches_text,
    **dict.fromkeys(_COMPARISONS, _compares),
}


def _joined(parts: Iterable[Condition], joint: str, *, empty: str) -> Condition:
    parts = list(parts)
    sql = joint.join(part for part, _ in parts) or empty
    return f"({sql})", [value for _, values in parts for value in values]


def _scalar(value: object) -> object:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)  # as SQLite reads such a number from JSON
    return value


def _as_json(values: Sequence[object], entry: MetadataFilter) -> str:
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise _wrong_value(entry, "a list of finite numbers or texts")
    return json.dumps(values)


def _wrong_value(entry: MetadataFilter, wanted: str) -> ValueError:
    return ValueError(
        f"The filter on '{entry.key}' with operator '{entry.operator.value}' has the value "
        f"{entry.value!r}; give it {wanted}."
    )
