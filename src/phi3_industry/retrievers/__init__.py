"""Retrievers: dense and lexical search, fused by fitted weights and reranked."""

from __future__ import annotations

from phi3_industry.retrievers.fitting import FitReport
from phi3_industry.retrievers.fusion import reciprocal_rank_fusion
from phi3_industry.retrievers.hybrid import HybridRetriever, RetrievedNode
from phi3_industry.retrievers.rerank import Phi3Rerank, RerankedNode
from phi3_industry.retrievers.weights import FusionWeights

__all__ = [
    "FitReport",
    "FusionWeights",
    "HybridRetriever",
    "Phi3Rerank",
    "RerankedNode",
    "RetrievedNode",
    "reciprocal_rank_fusion",
]
