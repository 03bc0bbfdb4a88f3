"""Retrievers: dense and lexical search, fused."""

from __future__ import annotations

from phi3_industry.retrievers.fusion import reciprocal_rank_fusion
from phi3_industry.retrievers.hybrid import HybridRetriever, RetrievedNode

__all__ = ["HybridRetriever", "RetrievedNode", "reciprocal_rank_fusion"]
