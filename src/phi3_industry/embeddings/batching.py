"""Which texts are computed together: those of like length, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from phi3_industry.errors import EngineError

__all__ = ["halved_without_memory", "like_length_batches"]

Vectors = TypeVar("Vectors")


def like_length_batches(lengths: Sequence[int], *, tokens: int) -> list[list[int]]:
    """Part texts into batches of like length, the longest first.

    Args:
        lengths: Tokens of each text.
        tokens: The most tokens of a batch with its padding; a longer text is a batch of its own.

    Returns:
        The positions of the texts of each batch.
    """
    batches: list[list[int]] = []
    width = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        if batches and (len(batches[-1]) + 1) * width <= tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
            width = max(1, lengths[position])
    return batches


def halved_without_memory(
    compute: Callable[[Sequence[str]], list[Vectors]], texts: Sequence[str]
) -> list[Vectors]:
    """Compute a batch, in halves where memory runs out.

    Args:
        compute: Gives one result for each text.
        texts: The batch.

    Returns:
        One result for each text.

    Raises:
        EngineError: There is too little memory for a single text.
    """
    try:
        return compute(texts)
    except RuntimeError as error:
        if not _is_lack_of_memory(error):
            raise
        if len(texts) == 1:
            raise EngineError(
                f"Memory ran out with a single text of {len(texts[0])} characters: {error}. "
                "Lower max_length, or split texts into smaller nodes."
            ) from error
    middle = len(texts) // 2
    return [
        vector
        for half in (texts[:middle], texts[middle:])
        for vector in halved_without_memory(compute, half)
    ]


def _is_lack_of_memory(error: RuntimeError) -> bool:
    import torch

    # on the CPU torch raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
