"""What a check of a whole store found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phi3_industry.vector_stores.similarity import Metric

__all__ = ["IndexFileState", "StoreReport"]

IndexFileState = Literal["none", "intact", "damaged"]


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """A store whose every row is as it was written.

    Attributes:
        count: The number of nodes.
        generation: How many transactions have changed them.
        metric: How vectors are compared.
        index_kind: ``"flat"``, which compares with every vector, or ``"pq_fastscan"``.
        index_recall: The share of the 10 nearest that it finds, measured when it was built on
            vectors of the store itself; 1 if it is flat.
        index_file: ``"none"`` if there is none, which costs time at the first query;
            ``"damaged"`` if it is not what was written: it is never used, and ``rebuild()``
            writes it anew.
    """

    count: int
    generation: int
    metric: Metric
    index_kind: str
    index_recall: float
    index_file: IndexFileState
