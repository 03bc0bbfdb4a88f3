"""What speaks for a passage: numbers that can be compared within one question.

One row of evidence for each candidate, in the order of the weights in
:class:`~phi3_industry.retrievers.weights.FusionWeights`:

- *dense*: the similarity of the vectors, 1 for the best and 0 for the last that dense search
  brought; a candidate that is known to be farther away is below 0. This makes the scales of
  embedding models alike, some of which call everything similar.
- *lexical*: the store's score of the words as a share of the best one's. A passage with none of the
  words has 0.
- *letters*: BM25 over pieces of four letters of the question's words (pairs, in scripts without
  spaces), counted among the candidates alone and as a share of the best one's. Other inflections,
  compounds and misspellings share pieces. It needs no index, so that it also serves stores
  without search by words.
- *document_dense*, *document_lexical*: the greatest dense and lexical evidence of any candidate of
  the same document. A question often names its document in one place and its matter in another.

Scores and not ranks are added up, because how far the best is ahead of the others is evidence, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from phi3_industry.vector_stores.lexical import folded, letter_pieces

__all__ = ["Evidence", "evidence"]

#: Shape ``(candidates, 5)``.
Evidence = npt.NDArray[np.float64]

_K1, _B = 1.2, 0.75  # BM25's usual parameters


def evidence(
    question: str,
    *,
    texts: Sequence[str],
    documents: Sequence[str],
    dense: Sequence[float | None],
    lexical: Sequence[float | None],
    dense_floor: float | None = None,
    lexical_floor: float = 0.0,
) -> Evidence:
    """Compute the evidence for each candidate.

    Args:
        question: The question.
        texts: The candidates' texts, headers included.
        documents: The ids of their documents.
        dense: The similarities of their vectors; ``None`` where it is not known, as the search
            did not bring the candidate.
        lexical: The scores of their words; ``None`` where not known.
        dense_floor: The last similarity that the search brought; the least one if ``None``.
        lexical_floor: The last score that the search brought if it could not bring all, else 0.

    Returns:
        Shape ``(candidates, 5)``.
    """
    meaning = _spread(dense, floor=dense_floor)
    words = _shares(
        np.array([lexical_floor if score is None else score for score in lexical], dtype=np.float64)
    )
    columns = [
        meaning,
        words,
        _letters(question, texts),
        _best_of_document(meaning, documents),
        _best_of_document(words, documents),
    ]
    return np.stack(columns, axis=1) if texts else np.zeros((0, len(columns)))


def _spread(scores: Sequence[float | None], *, floor: float | None) -> npt.NDArray[np.float64]:
    known = [score for score in scores if score is not None]
    if not known:
        return np.zeros(len(scores))
    least = min(known) if floor is None else floor
    width = max(known) - least
    filled = np.array([least if score is None else score for score in scores], dtype=np.float64)
    return (filled - least) / width if width > 0 else np.zeros(len(scores))


def _shares(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    best = scores.max(initial=0.0)
    return scores / best if best > 0 else np.zeros(len(scores))


def _best_of_document(
    scores: npt.NDArray[np.float64], documents: Sequence[str]
) -> npt.NDArray[np.float64]:
    best: dict[str, float] = {}
    for document, score in zip(documents, scores.tolist(), strict=True):
        best[document] = max(score, best.get(document, score))
    return np.array([best[document] for document in documents], dtype=np.float64)


def _letters(question: str, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    pieces = letter_pieces(question)
    if not pieces or not texts:
        return np.zeros(len(texts))
    plain = [folded(text) for text in texts]
    counts = np.array([[text.count(piece) for piece in pieces] for text in plain], dtype=np.float64)
    lengths = np.array([len(text) for text in plain], dtype=np.float64)
    having = (counts > 0).sum(axis=0)
    rarity = np.log1p((len(texts) - having + 0.5) / (having + 0.5))
    damping = _K1 * (1 - _B + _B * lengths / max(lengths.mean(), 1.0))
    return _shares((counts * (_K1 + 1) / (counts + damping[:, None])) @ rarity)
