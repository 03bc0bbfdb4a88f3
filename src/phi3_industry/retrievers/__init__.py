"""Retrievers: dense and lexical search, fused and reranked."""

from __future__ import annotations

from phi3_industry.retrievers.fusion import reciprocal_rank_fusion
from phi3_industry.retrievers.hybrid import HybridRetriever, RetrievedNode
from phi3_industry.retrievers.rerank import Phi3Rerank, RerankedNode

__all__ = [
    "HybridRetriever",
    "Phi3Rerank",
    "RerankedNode",
    "RetrievedNode",
    "reciprocal_rank_fusion",
]
