"""Training rows of an embedding: a question, a passage that answers it, passages that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index.core.base.base_retriever import BaseRetriever

from phi3_industry.finetuning.embedding_config import EmbeddingFinetuneConfig
from phi3_industry.finetuning.embedding_corpus import Labelled, holds_answer
from phi3_industry.finetuning.evidence import Passage
from phi3_industry.finetuning.splits import random_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Pair", "found_by", "mine_pairs"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One training row.

    Attributes:
        question: The question's text.
        positive: Text of a passage that answers it.
        negatives: Texts of passages that look as if they did and do not.
    """

    question: str
    positive: str
    negatives: tuple[str, ...]


def found_by(
    retriever: BaseRetriever, labelled: Sequence[Labelled], passages: Sequence[Passage]
) -> list[list[int]]:
    """Ask a retriever each question.

    Returns:
        For each question the positions of what it finds, best first; what is not in the corpus
        is left out.
    """
    places = {passage.node_id: place for place, passage in enumerate(passages)}
    return [
        [
            places[hit.node.node_id]
            for hit in retriever.retrieve(item.question.question)
            if hit.node.node_id in places
        ]
        for item in labelled
    ]


def mine_pairs(
    labelled: Sequence[Labelled],
    passages: Sequence[Passage],
    *,
    question_vectors: NDArray[np.float32],
    passage_vectors: NDArray[np.float32],
    also_found: Mapping[int, Sequence[int]] | Sequence[Sequence[int]] = (),
    config: EmbeddingFinetuneConfig,
) -> list[Pair]:
    """Give each gold passage of each question a row with hard negatives.

    A hard negative is drawn from the passages that the embedding, or a retriever, ranks highest
    for the question. A passage is no negative if it is gold for the question, if the whole of an
    answer stands in it, or if it is as near to a gold passage as a copy would be.

    Args:
        labelled: The questions.
        passages: The corpus.
        question_vectors: Vectors of length 1, ``(questions, dimensions)``.
        passage_vectors: Vectors of length 1, ``(passages, dimensions)``.
        also_found: For each question what a retriever finds, best first.
        config: ``num_negatives``, ``mined_ranks``, ``near_positive`` and ``seed``.

    Returns:
        The rows; each has the same number of negatives. A question for which nothing in the
        corpus can be a negative is left out, unless that is so of all.
    """
    import numpy as np

    pairs: list[Pair] = []
    for row, item in enumerate(labelled):
        ranked = np.argsort(-(passage_vectors @ question_vectors[row]), kind="stable")
        near = _nearness(passage_vectors, passage_vectors[list(item.gold)])
        refused = {*item.gold, *np.flatnonzero(near >= config.near_positive).tolist()}
        candidates: list[int] = []
        for source in (ranked.tolist(), also_found[row] if also_found else ()):
            usable = 0
            for place in source:
                if usable == config.mined_ranks:
                    break
                if place in refused or holds_answer(item.question, passages[place].text):
                    continue
                usable += 1
                if place not in candidates:
                    candidates.append(place)
        random = random_for(config.seed, "negatives", item.question.id)
        for gold in item.gold:
            drawn = random.sample(candidates, min(config.num_negatives, len(candidates)))
            if candidates:  # sentence-transformers takes rows of one width
                drawn += random.choices(candidates, k=config.num_negatives - len(drawn))
            pairs.append(
                Pair(
                    question=item.question.question,
                    positive=passages[gold].text,
                    negatives=tuple(passages[place].text for place in drawn),
                )
            )
    # what has no rival at all teaches little; without any rivals the other questions' remain
    return [pair for pair in pairs if pair.negatives] or pairs


def _nearness(
    passage_vectors: NDArray[np.float32], gold_vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Say of each passage how far it is on the way from an ordinary passage to a gold one's copy.

    Some models give any two texts a cosine of 0.9, others of 0.1; this compares to neither.
    """
    cosines = passage_vectors @ gold_vectors.T
    ordinary = cosines.mean(axis=0)
    near: NDArray[np.float32] = ((cosines - ordinary) / (1 - ordinary + 1e-6)).max(axis=1)
    return near
