"""Recall without words: keys and values of random tokens, then the keys again.

It sharpens the heads that look for what followed before. Source: Arora et al., "Zoology: Measuring
and improving recall in efficient language models", 2023 (multi-query associative recall).
"""

from __future__ import annotations

from .draw import Draw
from .encoding import Branch, Encoded

__all__ = ["recall_drill"]


def recall_drill(draw: Draw, *, first_id: int, vocab_size: int) -> Encoded:
    """Draw pairs of random keys and values, and ask for each value by its key.

    Args:
        draw: Source of chance.
        first_id: First token id to draw; those below are control tokens.
        vocab_size: Size of the vocabulary.
    """

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(first_id, vocab_size) for _ in range(draw.randint(1, most)))

    pairs = [(tokens(3), tokens(4)) for _ in range(draw.randint(4, 12))]
    context: list[int] = []
    branches = []
    for key, value in pairs:
        place = len(context) + len(key)
        context += [*key, *value]
        branches.append(
            Branch(
                ids=(*key, *value),
                answer_start=len(key),
                weights=(*[0.0] * len(key), *[1.0] * len(value)),
                marker=1,
                pointers=tuple((len(key) + i, (place + i,)) for i in range(len(value))),
            )
        )
    return Encoded(tuple(context), tuple(branches), "recall")
