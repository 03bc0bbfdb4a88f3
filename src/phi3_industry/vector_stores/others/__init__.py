"""Other LlamaIndex vector stores in the place of ours: Qdrant, PostgreSQL, Chroma."""

from __future__ import annotations

from phi3_industry.vector_stores.others.opening import open_store
from phi3_industry.vector_stores.others.registered import RegisteredVectorStore

__all__ = ["RegisteredVectorStore", "open_store"]
