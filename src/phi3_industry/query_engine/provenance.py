"""What an answer came from: how much from which passage, and how much from the weights.

An answer is scored again as it was given, each time with something taken away. Let ``L(S)`` be
the natural log probability of the answer when only the passages of the set ``S`` can be read (the
others keep their numbers and are empty), with the weights that answered, ``P`` all passages:

- passage ``i`` gave ``((L(P) - L(P without i)) + (L(i alone) - L(none))) / 2`` nats. The first
  part is what is lost without it, the second what it does alone; of two passages that say the
  same each gets half. For one or two passages these are their Shapley values, and they sum to
  ``L(P) - L(none)``.
- the share of the weights is ``exp((L(none) - L(P)) / tokens)``, at most 1: how probable a token
  of the answer is without any passage, against with them (geometric means). The rest is divided
  among the passages in proportion to the nats they gave; one that gave none has share 0.
- of the share of the weights, the base model has ``exp((L_base(none) - L(none)) / tokens)``, at
  most all, and the adapter the rest.

Shares sum to 1. They say what made the answer probable, not whether it is true.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from phi3_industry.grounding.prompt import GroundingPrompt
from phi3_industry.query_engine.signals import SupportsScores

__all__ = ["trace_answer"]

Prompt = list[dict[str, str]]


def trace_answer(
    answer: str,
    *,
    question: str,
    passages: Sequence[str],
    node_ids: Sequence[str],
    prompt: GroundingPrompt,
    llm: SupportsScores,
    base_llm: SupportsScores | None = None,
) -> dict[str, Any]:
    """Trace an answer to its passages and the weights.

    Args:
        answer: The answer as the model gave it, its citation included.
        question: The question.
        passages: The passages as they were shown, in the order of their numbers; none for an
            answer from weights.
        node_ids: Ids of their nodes.
        prompt: The prompt it was asked with.
        llm: The LLM that answered, as it did. All prompts are scored in one batch if it has
            ``score_batch``.
        base_llm: The same weights without the adapter; ``None`` if there was no adapter.

    Returns:
        Plain JSON: ``unit`` (``"nats per answer"``), ``tokens`` of the answer,
        ``log_probability`` ``L(P)``, ``without_passages`` ``L(none)``, ``without_adapter``
        ``L_base(P)`` or ``None``, ``passages`` (``marker``, ``node_id``, ``nats``, ``share``
        each), ``weights`` (``share``, ``base_share``, ``adapter_share``).
    """
    count = len(passages)
    whole, none = frozenset(range(count)), frozenset[int]()
    if count:
        ablated = [
            *(whole - {index} for index in range(count)),
            *(frozenset({index}) for index in range(count)),
        ]
        wanted = list(dict.fromkeys([whole, none, *ablated]))
    else:
        wanted = [whole]
    prompts = [_prompt(prompt, question, passages, kept) for kept in wanted]
    scores = _score(llm, prompts, answer)
    tokens = len(scores[0])
    known = {kept: math.fsum(score) for kept, score in zip(wanted, scores, strict=True)}
    nats = [
        ((known[whole] - known[whole - {i}]) + (known[frozenset({i})] - known[none])) / 2
        for i in range(count)
    ]
    weights = _ratio(known[none], known[whole], tokens) if count else 1.0
    base_part, without_adapter = 1.0, None
    if base_llm is not None:
        first, last = prompts[0], prompts[wanted.index(none)]
        both = [math.fsum(score) for score in _score(base_llm, [first, last], answer)]
        without_adapter = both[0]
        base_part = _ratio(both[1], known[none], tokens)
    gained = [max(0.0, value) for value in nats]
    if math.fsum(gained) == 0.0:
        weights = 1.0
    rest = (1.0 - weights) / (math.fsum(gained) or 1.0)
    return {
        "unit": "nats per answer",
        "tokens": tokens,
        "log_probability": known[whole],
        "without_passages": known[none],
        "without_adapter": without_adapter,
        "passages": [
            {"marker": i + 1, "node_id": node_ids[i], "nats": nats[i], "share": gained[i] * rest}
            for i in range(count)
        ],
        "weights": {
            "share": weights,
            "base_share": weights * base_part,
            "adapter_share": weights * (1.0 - base_part),
        },
    }


def _prompt(
    prompt: GroundingPrompt, question: str, passages: Sequence[str], kept: frozenset[int]
) -> Prompt:
    if not passages:
        return prompt.closed_book(question)
    shown = [passage if index in kept else "" for index, passage in enumerate(passages)]
    return prompt.grounded(question, shown)


def _score(
    llm: SupportsScores, prompts: Sequence[Sequence[Mapping[str, str]]], answer: str
) -> list[list[float]]:
    batch: Any = getattr(llm, "score_batch", None)
    if batch is not None:
        return [scores[0] for scores in batch(prompts, [answer])]
    return [llm.score(prompt, [answer])[0] for prompt in prompts]


def _ratio(without: float, with_: float, tokens: int) -> float:
    """Ratio of two geometric mean token probabilities, at most 1, from log probabilities."""
    return math.exp(min(0.0, without - with_) / max(1, tokens))
