"""How vectors are compared: by cosine, inner product or L2, and always higher is better.

======== =============================== ==========================================
metric   vectors in the store            similarity of ``a`` and ``b``
======== =============================== ==========================================
cosine   brought to length 1; no zeros   ``a · b / (|a| |b|)``, from -1 to 1
ip       as given                        ``a · b``, of any size
l2       as given                        ``1 / (1 + |a - b|)``, above 0, 1 if equal
======== =============================== ==========================================

The map of L2 is monotone: the order is that of the distances, and a cut-off of 0.5 lets through
what is nearer than 1. The distance of a similarity ``s`` is ``1 / s - 1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = ["METRICS", "Metric", "Vector", "from_faiss", "prepared", "similarities"]

Metric = Literal["cosine", "ip", "l2"]
METRICS: tuple[Metric, ...] = get_args(Metric)

#: A vector as the store keeps it, or a matrix of them: ``(dimensions,)``, ``(count, dimensions)``.
Vector = npt.NDArray[np.float32]

# Beyond this length the squares of differences leave the range of float32.
_LONGEST = 1e18


def prepared(
    vector: Sequence[float], *, metric: Metric, dimensions: int | None, what: str
) -> Vector:
    """Return a vector as the store compares it, in float32; of length 1 for cosine.

    Args:
        vector: Shape ``(dimensions,)``.
        metric: How it will be compared.
        dimensions: The shape that is wanted; ``None`` if any will do.
        what: What the vector is, to begin a message with.

    Raises:
        ValueError: The vector has another shape, holds NaN or infinity, is zero although it is
            compared by its direction, or is too long to be compared by inner product or L2.
    """
    array = np.asarray(vector, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what} has the shape {array.shape}; it must be one row of numbers.")
    if dimensions is not None and array.size != dimensions:
        raise ValueError(
            f"{what} has {array.size} dimensions and the store's vectors have {dimensions}. Use "
            "the embedding model that the store was built with."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinity, which no similarity can be computed of.")
    largest = float(np.abs(array).max())
    if metric != "cosine":
        if largest * np.sqrt(array.size) > _LONGEST:
            raise ValueError(
                f"{what} holds numbers as large as {largest:g}, whose squares 32 bits cannot "
                "hold. Scale the vectors, or use the metric 'cosine'."
            )
        return array.astype(np.float32)
    if largest == 0.0:
        raise ValueError(f"{what} is all zeros, which has no direction to compare.")
    array = array / largest  # keeps the squares of very large and very small numbers in range
    return (array / np.linalg.norm(array)).astype(np.float32)


def similarities(vectors: Vector, vector: Vector, *, metric: Metric) -> Vector:
    """Compare vectors ``(count, dimensions)`` with one ``(dimensions,)``; returns ``(count,)``."""
    if metric == "l2":
        apart = vectors - vector
        return from_faiss(np.einsum("ij,ij->i", apart, apart), metric=metric)
    return vectors @ vector


def from_faiss(values: Vector, *, metric: Metric) -> Vector:
    """Turn what FAISS returns, squared distances or inner products, into similarities."""
    if metric == "l2":
        return (1.0 / (1.0 + np.sqrt(np.maximum(values, 0.0)))).astype(np.float32)
    return values
