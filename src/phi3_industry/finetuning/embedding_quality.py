"""How well an embedding finds the passages of questions it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from phi3_industry.finetuning.embedding_corpus import Labelled
from phi3_industry.finetuning.evidence import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["compare_ranks", "embed_passages", "embed_questions", "ndcg_of_each"]

_CUT = 10
_BLOCK = 256


def embed_questions(
    embed_model: BaseEmbedding, labelled: Sequence[Labelled]
) -> NDArray[np.float32]:
    """Embed questions as serving does; ``(questions, dimensions)``, of length 1."""
    return _units([embed_model.get_query_embedding(item.question.question) for item in labelled])


def embed_passages(
    embed_model: BaseEmbedding, passages: Sequence[Passage], *, show_progress: bool
) -> NDArray[np.float32]:
    """Embed passages as serving does; ``(passages, dimensions)``, of length 1."""
    texts = [passage.text for passage in passages]
    return _units(embed_model.get_text_embedding_batch(texts, show_progress=show_progress))


def ndcg_of_each(
    labelled: Sequence[Labelled],
    *,
    question_vectors: NDArray[np.float32],
    passage_vectors: NDArray[np.float32],
) -> list[float]:
    """Give nDCG@10 of each question over the whole corpus, where each gold passage counts one."""
    import numpy as np
    from sklearn.metrics import ndcg_score

    scores: list[float] = []
    for start in range(0, len(labelled), _BLOCK):
        similarities = question_vectors[start : start + _BLOCK] @ passage_vectors.T
        for item, row in zip(labelled[start : start + _BLOCK], similarities, strict=True):
            relevant = np.zeros((1, len(row)))
            relevant[0, list(item.gold)] = 1
            scores.append(float(ndcg_score(relevant, row[None], k=_CUT)))
    return scores


def compare_ranks(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Say what training did to held-out questions, as JSON values.

    Args:
        before: nDCG@10 of each before.
        after: nDCG@10 of each after.

    Returns:
        Both means, how many questions rose and fell, and the verdict: ``"better"``, ``"worse"``,
        ``"same"``, or ``"not measured"`` without questions.
    """
    if not before:
        return {"verdict": "not measured", "validation_questions": 0}
    means = [sum(values) / len(values) for values in (before, after)]
    rose = sum(new > old for old, new in zip(before, after, strict=True))
    fell = sum(new < old for old, new in zip(before, after, strict=True))
    gain = means[1] - means[0]
    return {
        "verdict": "better" if gain > 0 else "worse" if gain < 0 else "same",
        "validation_questions": len(before),
        "ndcg_at_10_before": round(means[0], 4),
        "ndcg_at_10_after": round(means[1], 4),
        "questions_better": rose,
        "questions_worse": fell,
    }


def _units(vectors: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    import numpy as np

    array = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    units: NDArray[np.float32] = array / np.maximum(lengths, 1e-12)
    return units
