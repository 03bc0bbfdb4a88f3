"""Qdrant, as LlamaIndex's package speaks to it."""

from __future__ import annotations

import re
import uuid
from typing import ClassVar

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.others.dialect import StoreDialect
from phi3_industry.vector_stores.others.filters import (
    Filter,
    all_of,
    any_of,
    none_of,
    numbers_and_texts,
    one,
    rewritten,
    unsupported,
)

__all__ = ["QdrantDialect"]

# Names of points are made in this namespace; Qdrant takes nothing but UUIDs and numbers.
_POINTS = uuid.UUID("5b1e7a52-6f0c-4c62-9d1b-3a8f0d5c7e11")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_COMPARISONS = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)


class QdrantDialect(StoreDialect):
    """A ``QdrantVectorStore``: a server, or a folder or the memory in local mode."""

    upserts: ClassVar[bool] = True
    lost_connection: ClassVar[frozenset[str]] = frozenset(
        {"ResponseHandlingException", "TransportError"}
    )

    @property
    def place(self) -> str:
        """The collection."""
        return f"the collection '{self.store.collection_name}' of Qdrant"

    @property
    def searches_words(self) -> bool:
        """Whether it keeps sparse vectors."""
        return bool(self.store.enable_hybrid)

    def exists(self) -> bool:
        """Whether the collection was made; the first node makes it."""
        return bool(self.store.client.collection_exists(self.store.collection_name))

    def check(self) -> None:
        """Refuse a collection whose scores are distances."""
        if not self.exists():
            return
        collection = self.store.collection_name
        vectors = self.store.client.get_collection(collection).config.params.vectors
        each = vectors.values() if isinstance(vectors, dict) else [vectors]
        kinds = {str(getattr(vector.distance, "value", vector.distance)) for vector in each}
        if odd := kinds - {"Cosine", "Dot"}:
            raise StoreError(
                f"The collection '{collection}' compares by {min(odd)}, by which less is nearer. "
                "Make one that compares by Cosine."
            )

    def store_id(self, node_id: str) -> str:
        """Return a UUID."""
        return str(uuid.uuid5(_POINTS, node_id))

    def filters(self, filters: MetadataFilters) -> MetadataFilters | None:
        """Write filters for Qdrant."""
        return rewritten(filters, self._rewritten, store="Qdrant")

    def matching(self, filters: MetadataFilters, *, most: int) -> list[BaseNode]:
        """Read nodes; without a limit LlamaIndex's package stops at 9,999."""
        nodes: list[BaseNode] = self.store.get_nodes(filters=filters, limit=max(most, 1))
        return nodes

    def _rewritten(self, entry: MetadataFilter) -> Filter:
        key, operator = _path(entry.key), entry.operator
        if operator in (FilterOperator.EQ, FilterOperator.IN):
            return _is_among(key, entry)
        if operator in (FilterOperator.NE, FilterOperator.NIN):
            return none_of([_is_among(key, entry)])  # MatchExcept passes over missing keys
        if operator == FilterOperator.IS_EMPTY:
            return any_of([one(key, operator, None), one(key, FilterOperator.EQ, "")])
        if operator in _COMPARISONS:
            if isinstance(entry.value, str):
                reason = "LlamaIndex's package compares numbers alone with it"
                raise unsupported(entry, store="Qdrant", reason=reason)
            return one(key, operator, entry.value)
        reason = "LlamaIndex's package has no filter that means just this"
        raise unsupported(entry, store="Qdrant", reason=reason)


def _is_among(key: str, entry: MetadataFilter) -> Filter:
    numbers, texts = numbers_and_texts(entry)
    # an exact match tells 3 from 3.0; a range does not
    parts: list[Filter] = [
        all_of([one(key, FilterOperator.GTE, n), one(key, FilterOperator.LTE, n)]) for n in numbers
    ]
    if texts:
        parts.append(one(key, FilterOperator.IN, texts))
    return any_of(parts)


def _path(key: str) -> str:
    """Write a key so that dots and brackets in it are no path."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    if '"' in key:
        raise ValueError(f"The key {key!r} holds a quotation mark, which Qdrant cannot filter by.")
    return f'"{key}"'
