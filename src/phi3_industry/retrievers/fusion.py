"""Reciprocal rank fusion: ranked lists of several retrievers into one."""

from __future__ import annotations

from phi3_industry.vector_stores.fusion import reciprocal_rank_fusion

__all__ = ["reciprocal_rank_fusion"]
