"""What tells how well a question can be answered: retrieval scores, sufficiency, certainty.

Nothing here reads words: all of it is scores of the retriever and probabilities of the model, so
that it means the same in every language.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from llama_index.core.schema import NodeWithScore

__all__ = [
    "Signals",
    "SupportsScores",
    "certainty",
    "citing_probabilities",
    "retrieval_signals",
    "scorer",
]

Messages = Sequence[Mapping[str, str]]


@runtime_checkable
class SupportsScores(Protocol):
    """An LLM that scores given answers; :class:`~phi3_industry.llms.Phi3LLM` is one.

    One that has ``score_batch(prompts, continuations)`` is asked for many prompts together.
    """

    def score(self, prompt: Messages, continuations: Sequence[str]) -> list[list[float]]:
        """Give the natural log probability of each token of possible answers to messages."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known of a question before it is answered.

    Attributes:
        passages: How many passages may be shown.
        best_score: The best retrieval score, higher is better; ``None`` if there is none.
        score_margin: How far the best score is ahead of the next, as a share of the best; 1 if
            there is no other; ``None`` without scores.
        sufficiency: Probability with which the model cites a passage and does not abstain, from
            0 to 1; with the adapter if there is one. ``None`` if it cannot be measured or was
            not.
        rival: Probability with which it cites a passage of another document than the one it cites
            most probably; a high one says that documents compete, agreeing or not.
        certainty: Geometric mean of the token probabilities that the base model gives to the
            closed-book draft, from 0 to 1; ``None`` as above.
        expert_certainty: The same of the adapter.
        draft_abstains: Whether the closed-book draft says that it does not know; ``None`` if
            there is no draft.
    """

    passages: int
    best_score: float | None = None
    score_margin: float | None = None
    sufficiency: float | None = None
    rival: float | None = None
    certainty: float | None = None
    expert_certainty: float | None = None
    draft_abstains: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Give what is known as plain JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def scorer(llm: object) -> SupportsScores | None:
    """Give an LLM as one that scores; ``None`` if it does not."""
    return llm if isinstance(llm, SupportsScores) else None


def retrieval_signals(nodes: Sequence[NodeWithScore]) -> Signals:
    """Read the signals of retrieval: how many passages, the best score and its lead."""
    scores = sorted((node.score for node in nodes if node.score is not None), reverse=True)
    if not scores:
        return Signals(passages=len(nodes))
    margin = 1.0
    if len(scores) > 1:
        margin = (scores[0] - scores[1]) / (abs(scores[0]) or 1.0)
    return Signals(passages=len(nodes), best_score=scores[0], score_margin=margin)


def citing_probabilities(llm: SupportsScores, messages: Messages, passages: int) -> list[float]:
    """Ask which passage a model would cite, without letting it answer.

    Args:
        llm: The model.
        messages: The grounded prompt, whose answers begin with a number.
        passages: How many passages are in it.

    Returns:
        For zero, which abstains, and for each passage the probability that the answer begins
        with its number, among these; they sum to 1.
    """
    markers = [f"[{number}]" for number in range(passages + 1)]
    totals = [math.fsum(tokens) for tokens in llm.score(messages, markers)]
    best = max(totals)
    weights = [math.exp(total - best) for total in totals]
    return [weight / math.fsum(weights) for weight in weights]


def certainty(llm: SupportsScores, messages: Messages, answer: str) -> float:
    """Give the geometric mean of the token probabilities of an answer, from 0 to 1."""
    tokens = llm.score(messages, [answer])[0]
    return math.exp(math.fsum(tokens) / len(tokens)) if tokens else 0.0
