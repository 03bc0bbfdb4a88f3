"""Fusion of ranked lists; public as :mod:`phi3_industry.retrievers.fusion`.

It lives here because the store's own hybrid mode needs it and a store imports no retriever.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

__all__ = ["reciprocal_rank_fusion"]

_Id = TypeVar("_Id", bound=Hashable)


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[_Id]], *, k: float = 60, weights: Sequence[float] | None = None
) -> list[tuple[_Id, float]]:
    """Fuse ranked lists of node ids into one list, best first.

    A node scores the sum of ``weight / (k + rank)`` over the lists that contain it, with ranks
    counted from 1. Only ranks enter, so BM25 scores and cosine similarities need no common scale.

    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009, which also gives 60 for ``k``.

    Args:
        rankings: One list of node ids per retriever, best first, without repeats.
        k: Damping constant, at least 1. A larger value narrows the lead of the first ranks.
        weights: One weight per list, none below 0; equal weights if ``None``. A list of weight 0
            adds nothing, and its nodes are not in the result unless another list has them.

    Returns:
        ``(node_id, score)`` pairs by falling score; equal scores keep first-met order.

    Raises:
        ValueError: ``k`` is below 1, a list repeats an id, or the weights do not fit the lists.
    """
    if not k >= 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    weights = [1.0] * len(rankings) if weights is None else list(weights)
    if len(weights) != len(rankings):
        raise ValueError(f"There are {len(rankings)} rankings and {len(weights)} weights.")
    if not all(0 <= weight < float("inf") for weight in weights):
        raise ValueError(f"The weights are {weights}; each must be a number of at least 0.")
    scores: dict[_Id, float] = {}
    for number, (ranking, weight) in enumerate(zip(rankings, weights, strict=True), start=1):
        if len(set(ranking)) != len(ranking):
            raise ValueError(f"Ranking {number} names a node more than once.")
        if weight == 0:
            continue
        for rank, node_id in enumerate(ranking, start=1):
            scores[node_id] = scores.get(node_id, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
