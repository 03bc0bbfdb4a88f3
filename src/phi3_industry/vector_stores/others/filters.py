"""Filters that another store is to understand as they are meant here.

What they mean stands in :mod:`phi3_industry.vector_stores.filters`. A dialect turns each filter
into one or several that its store understands in that way, or refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

__all__ = [
    "Filter",
    "all_of",
    "any_of",
    "is_among",
    "is_not_among",
    "none_of",
    "numbers_and_texts",
    "one",
    "refuse_not",
    "rewritten",
    "unsupported",
]

Filter = MetadataFilter | MetadataFilters

_ONE_VALUE = (
    FilterOperator.EQ,
    FilterOperator.NE,
    FilterOperator.GT,
    FilterOperator.GTE,
    FilterOperator.LT,
    FilterOperator.LTE,
    FilterOperator.CONTAINS,
    FilterOperator.TEXT_MATCH,
    FilterOperator.TEXT_MATCH_INSENSITIVE,
)
_TEXT_ALONE = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)
_LISTS = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)


def rewritten(
    filters: MetadataFilters, rewrite: Callable[[MetadataFilter], Filter], *, store: str
) -> MetadataFilters | None:
    """Rewrite every filter of a tree.

    Args:
        filters: Any filters, nested ones included.
        rewrite: Gives the filter or filters to take in the place of one.
        store: The store's name, for messages.

    Returns:
        The new tree; ``None`` if there is no filter in it.

    Raises:
        ValueError: A filter has a value of a kind that it cannot work with, or is refused.
    """
    condition = filters.condition or FilterCondition.AND
    parts: list[Filter] = []
    for entry in filters.filters:
        if isinstance(entry, MetadataFilter):
            _check_value(entry)
            parts.append(rewrite(entry))
            continue
        inner = rewritten(entry, rewrite, store=store)
        if inner is not None:
            parts.append(inner)
        elif condition != FilterCondition.AND:
            raise ValueError(
                f"A group of filters inside '{condition.value}' is empty, for which {store} has "
                "no words. Leave it out."
            )
    return MetadataFilters(filters=parts, condition=condition) if parts else None


def one(key: str, operator: FilterOperator, value: Any) -> MetadataFilter:
    """Make a filter."""
    return MetadataFilter(key=key, operator=operator, value=value)


def all_of(parts: Sequence[Filter]) -> Filter:
    """Let through what passes all of some filters."""
    return _joined(parts, FilterCondition.AND)


def any_of(parts: Sequence[Filter]) -> Filter:
    """Let through what passes one of some filters."""
    return _joined(parts, FilterCondition.OR)


def none_of(parts: Sequence[Filter]) -> MetadataFilters:
    """Let through what passes none of some filters."""
    return MetadataFilters(filters=list(parts), condition=FilterCondition.NOT)


def numbers_and_texts(entry: MetadataFilter) -> tuple[list[int | float], list[str]]:
    """Part the values of a filter by their kind."""
    values = entry.value if isinstance(entry.value, list) else [entry.value]
    texts = [value for value in values if isinstance(value, str)]
    return [value for value in values if not isinstance(value, str | None)], texts


def is_among(key: str, entry: MetadataFilter, *, escape: Callable[[str], str] = str) -> Filter:
    """Let through what is one of the values of a filter, by as many filters as that takes.

    Args:
        key: The key as the store is to be given it.
        entry: The filter, with one value or a list of them.
        escape: Writes a text as the store is to be given it.
    """
    numbers, texts = numbers_and_texts(entry)
    parts: list[Filter] = [one(key, FilterOperator.EQ, number) for number in numbers]
    if texts:
        parts.append(one(key, FilterOperator.IN, [escape(text) for text in texts]))
    return any_of(parts)


def is_not_among(key: str, entry: MetadataFilter, *, escape: Callable[[str], str] = str) -> Filter:
    """Let through what is none of the values of a filter; see :func:`is_among`."""
    numbers, texts = numbers_and_texts(entry)
    parts: list[Filter] = [one(key, FilterOperator.NE, number) for number in numbers]
    if texts:
        parts.append(one(key, FilterOperator.NIN, [escape(text) for text in texts]))
    return all_of(parts)


def refuse_not(filters: MetadataFilters, *, store: str) -> None:
    """Refuse filters that are joined by 'not', for a store that cannot join them so.

    Raises:
        ValueError: There are some.
    """
    if filters.condition == FilterCondition.NOT:
        raise ValueError(f"{store} cannot join filters by 'not'. Use the operators '!=' and 'nin'.")
    for entry in filters.filters:
        if isinstance(entry, MetadataFilters):
            refuse_not(entry, store=store)


def unsupported(entry: MetadataFilter, *, store: str, reason: str) -> ValueError:
    """Word the refusal of a filter."""
    return ValueError(
        f"The filter on '{entry.key}' with operator '{entry.operator.value}' and value "
        f"{entry.value!r} cannot be answered by {store}: {reason}."
    )


def _joined(parts: Sequence[Filter], condition: FilterCondition) -> Filter:
    if len(parts) == 1:
        return parts[0]
    return MetadataFilters(filters=list(parts), condition=condition)


def _check_value(entry: MetadataFilter) -> None:
    """Refuse values that no store should be asked about."""
    value, operator = entry.value, entry.operator
    listed = value if isinstance(value, list) else [value]
    wanted = ""
    if operator in _LISTS and (not isinstance(value, list) or not value):
        wanted = "a list of at least one text or number"
    elif operator in _TEXT_ALONE and not isinstance(value, str):
        wanted = "a text"
    elif operator in _ONE_VALUE and (value is None or isinstance(value, list)):
        wanted = "a number or a text"
    elif any(isinstance(each, float) and not math.isfinite(each) for each in listed):
        wanted = "finite numbers"
    if wanted:
        raise ValueError(
            f"The filter on '{entry.key}' with operator '{operator.value}' has the value "
            f"{value!r}; give it {wanted}."
        )
