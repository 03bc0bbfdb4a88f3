"""Chroma, as LlamaIndex's package speaks to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.others.dialect import StoreDialect
from phi3_industry.vector_stores.others.filters import (
    Filter,
    is_among,
    is_not_among,
    one,
    refuse_not,
    rewritten,
    unsupported,
)

__all__ = ["ChromaDialect"]

_COMPARISONS = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
_RESERVED = ("#", "$")


class ChromaDialect(StoreDialect):
    """A ``ChromaVectorStore``: a server, or a folder or the memory of this process."""

    lost_connection: ClassVar[frozenset[str]] = frozenset({"TransportError"})

    @property
    def place(self) -> str:
        """The collection."""
        return f"the collection '{self.store.client.name}' of Chroma"

    @property
    def _space(self) -> str:
        configuration: Any = self.store.client.configuration_json
        index = configuration.get("hnsw") or configuration.get("spann") or {}
        return str(index.get("space", "l2"))

    def check(self) -> None:
        """Refuse a collection that does not compare by direction."""
        if self._space not in ("l2", "cosine", "ip"):
            raise StoreError(
                f"{self.place} compares by '{self._space}'. Make one that compares by 'cosine'."
            )

    def check_node(self, node: BaseNode) -> None:
        """Refuse metadata that Chroma has no place for."""
        for key, value in node.metadata.items():
            if key.startswith(_RESERVED) or not isinstance(value, str | int | float | None):
                raise ValueError(
                    f"The node '{node.node_id}' has metadata {key!r}: {value!r}, which Chroma "
                    "cannot keep: a key may not begin with '#' or '$', and a value has to be a "
                    "text or a number. Change it in the document."
                )

    def similarity(self, score: float) -> float:
        """Turn ``exp(-distance)`` of vectors of length 1 back into their cosine."""
        distance = -math.log(max(score, 1e-300))
        return 1.0 - (distance / 2.0 if self._space == "l2" else distance)

    def nodes(self, store_ids: Sequence[str]) -> list[BaseNode]:
        """Read nodes; LlamaIndex's package leaves their vectors out."""
        found = self.store.client.get(
            ids=list(store_ids), include=["embeddings", "metadatas", "documents"]
        )
        nodes = []
        for vector, metadata, text in zip(
            found["embeddings"], found["metadatas"], found["documents"], strict=True
        ):
            node = metadata_dict_to_node(metadata, text=text)
            node.embedding = [float(number) for number in vector]
            nodes.append(node)
        return nodes

    def matching(self, filters: MetadataFilters, *, most: int) -> list[BaseNode]:  # noqa: ARG002
        """Read nodes."""
        nodes: list[BaseNode] = self.store.get_nodes(None, filters)
        return nodes

    def filters(self, filters: MetadataFilters) -> MetadataFilters | None:
        """Write filters for Chroma."""
        refuse_not(filters, store="Chroma")
        return rewritten(filters, self._rewritten, store="Chroma")

    def _rewritten(self, entry: MetadataFilter) -> Filter:
        key, operator = entry.key, entry.operator
        if "" in (entry.value if isinstance(entry.value, list) else [entry.value]):
            reason = "LlamaIndex's package writes a value of None as an empty text"
            raise unsupported(entry, store="Chroma", reason=reason)
        if operator in (FilterOperator.EQ, FilterOperator.IN):
            return is_among(key, entry)
        if operator in (FilterOperator.NE, FilterOperator.NIN):
            return is_not_among(key, entry)
        if operator in _COMPARISONS and not isinstance(entry.value, str):
            return one(key, operator, entry.value)
        raise unsupported(entry, store="Chroma", reason="it has no such filter")
