"""Embedding models by name, and what identifies them."""

from __future__ import annotations

from phi3_industry.embeddings.loading import embedding_identity, load_embedding
from phi3_industry.embeddings.phi3 import Phi3Embedding

__all__ = ["Phi3Embedding", "embedding_identity", "load_embedding"]
