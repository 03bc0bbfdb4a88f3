"""A durable vector store for LlamaIndex."""

from __future__ import annotations

from phi3_industry.vector_stores.faiss_sqlite import FaissSQLiteVectorStore

__all__ = ["FaissSQLiteVectorStore"]
