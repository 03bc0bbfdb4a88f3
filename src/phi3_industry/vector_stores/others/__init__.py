"""Other LlamaIndex vector stores in the place of ours: Qdrant, PostgreSQL, Chroma."""

from __future__ import annotations

from phi3_industry.vector_stores.others.opening import open_store
from phi3_industry.vector_stores.others.registered import RegisteredVectorStore
from phi3_industry.vector_stores.others.transfer import TransferReport, transfer
from phi3_industry.vector_stores.others.urls import vector_store_from_url

__all__ = [
    "RegisteredVectorStore",
    "TransferReport",
    "open_store",
    "transfer",
    "vector_store_from_url",
]
