"""Which dialect a store is spoken to in."""

from __future__ import annotations

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from phi3_industry.vector_stores.others.chroma import ChromaDialect
from phi3_industry.vector_stores.others.dialect import StoreDialect
from phi3_industry.vector_stores.others.pgvector import PgvectorDialect
from phi3_industry.vector_stores.others.qdrant import QdrantDialect

__all__ = ["dialect_of"]

# by name, so that none of their packages is needed
_DIALECTS: dict[str, type[StoreDialect]] = {
    "ChromaVectorStore": ChromaDialect,
    "PGVectorStore": PgvectorDialect,
    "QdrantVectorStore": QdrantDialect,
}


def dialect_of(store: BasePydanticVectorStore) -> StoreDialect:
    """Return what is known of a store's ways, by its class or a class that it derives from."""
    for kind in type(store).__mro__:
        if kind.__name__ in _DIALECTS:
            return _DIALECTS[kind.__name__](store)
    return StoreDialect(store)
