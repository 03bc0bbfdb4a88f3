"""The asynchronous half of LlamaIndex's contract: the same calls in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

__all__ = ["AsyncCalls"]


class AsyncCalls(BasePydanticVectorStore):
    """A vector store whose asynchronous calls leave the event loop free.

    LlamaIndex's own versions block it, or are not there.
    """

    async def async_add(self, nodes: Iterable[BaseNode], **kwargs: Any) -> list[str]:
        """Do :meth:`add` without blocking the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)  # type: ignore[arg-type]  # ours takes any iterable

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Do :meth:`delete` without blocking the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Do :meth:`delete_nodes` without blocking the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """Do :meth:`clear` without blocking the event loop."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Do :meth:`get_nodes` without blocking the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Do :meth:`query` without blocking the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    async def aquery_many(
        self, queries: Sequence[VectorStoreQuery], **kwargs: Any
    ) -> list[VectorStoreQueryResult]:
        """Do :meth:`query_many` without blocking the event loop."""
        return await asyncio.to_thread(self.query_many, queries, **kwargs)

    def query_many(
        self, queries: Sequence[VectorStoreQuery], **kwargs: Any
    ) -> list[VectorStoreQueryResult]:
        """Answer several queries."""
        return [self.query(query, **kwargs) for query in queries]
