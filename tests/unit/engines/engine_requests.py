"""Random requests, and the answers that a model computes to each alone."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from phi3_industry.engines.base import GenerationRequest, SamplingParams, TokenEvent
from phi3_industry.engines.local import LocalEngine


def random_request(rng: random.Random, adapters: Iterable[str | None]) -> GenerationRequest:
    """A request of random length for a random adapter."""
    return GenerationRequest(
        prompt_ids=tuple(rng.randrange(10, 2000) for _ in range(rng.randrange(1, 60))),
        sampling=SamplingParams(max_new_tokens=rng.randrange(1, 12)),
        adapter=rng.choice(list(adapters)),
    )


def tokens_of(events: Iterable[TokenEvent]) -> list[int | None]:
    return [event.token_id for event in events]


async def async_tokens(engine: LocalEngine, request: GenerationRequest) -> list[int | None]:
    return [event.token_id async for event in engine.agenerate(request)]


def plain_tokens(model: Any, prompt: Iterable[int], count: int) -> list[int]:
    """What transformers' own generation answers."""
    import torch

    ids = torch.tensor([list(prompt)])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )
    return [int(token) for token in output[0, ids.shape[1] :]]
