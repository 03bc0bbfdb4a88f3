"""Embedding models by name, and what identifies them."""

from __future__ import annotations

from phi3_industry.embeddings.loading import embedding_identity, load_embedding

__all__ = ["embedding_identity", "load_embedding"]
