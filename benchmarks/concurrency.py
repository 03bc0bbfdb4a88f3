"""Sixteen requests at once: independent ones, about the same passages, and over four adapters.

    python benchmarks/concurrency.py --layers 2 --rounds 3

Everything goes through the LlamaIndex classes: ``gather(achat)`` on LlamaIndex's
``HuggingFaceLLM``, the same and threads that call ``chat`` on ``Phi3LLM``. Each arm has a model of
its own in memory, in the same type.

First with random weights of Phi-3-mini's true width in bfloat16, where every answer has the same
length. Each round and arm has texts of its own, alike in length, so that nothing is reused but what
the requests of one round share. The peer is measured as it is, and spared a copy that weighs less
in the whole model (see ``spared_head_copy`` in ``measuring.py``). Adapters are compared with a base
that has none loaded.

Then with the embedded model in float32 and real questions about the plant in ``examples/``,
answered to their natural end; Phi3LLM is made anew for each round there, so that it has read
nothing before, and the answers are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from llama_index.core.llms import LLM, ChatMessage
from llama_index.llms.huggingface import HuggingFaceLLM
from measuring import (
    add_common_options,
    alternate,
    now,
    print_conditions,
    print_table,
    spared_head_copy,
    spread,
    times_faster,
)
from plant_prompts import plant_prompts
from random_models import mini_shape, random_text, save_random_adapter, save_random_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from phi3_industry import Phi3LLM
from phi3_industry.models.catalog import resolve_model

Messages = list[ChatMessage]
Ask = Callable[[Sequence[LLM], Sequence[Messages]], list[str]]

PEER = "HuggingFaceLLM, gather"
SPARED = "HuggingFaceLLM, head not copied"
ADAPTERS = 4


def in_threads(llms: Sequence[LLM], prompts: Sequence[Messages]) -> list[str]:
    """Ask in as many threads as there are prompts."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        replies = pool.map(lambda llm, prompt: llm.chat(prompt), llms, prompts)
        return [str(reply.message.content).strip() for reply in replies]


def gathered(llms: Sequence[LLM], prompts: Sequence[Messages]) -> list[str]:
    """Ask in one event loop."""

    async def ask() -> list[str]:
        asked = [llm.achat(prompt) for llm, prompt in zip(llms, prompts, strict=True)]
        return [str(reply.message.content).strip() for reply in await asyncio.gather(*asked)]

    return asyncio.run(ask())


def gathered_spared(llms: Sequence[LLM], prompts: Sequence[Messages]) -> list[str]:
    """As :func:`gathered`, of a peer that is spared the copies of its output head."""
    peer: Any = llms[0]
    with spared_head_copy(peer._model):
        return gathered(llms, prompts)


def hugging_face(model: str, dtype: str, tokens: int) -> HuggingFaceLLM:
    """LlamaIndex's own class over a model."""
    folder, _ = resolve_model(model)
    weights: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return HuggingFaceLLM(
        model=weights.eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        model_name=folder,
        tokenizer_name=folder,
        context_window=2048,
        max_new_tokens=tokens,
        generate_kwargs={"do_sample": False},
    )


def compare(
    title: str,
    arms: dict[str, tuple[Ask, Callable[[], Sequence[LLM]]]],
    prompts: Callable[[int, str], Sequence[Messages]],
    options: argparse.Namespace,
    *,
    than: Sequence[str],
    answers: bool = False,
) -> None:
    """Measure some ways to ask, and print their table."""
    said: dict[str, list[str]] = {}

    def run(name: str, number: int) -> float:
        ask, make = arms[name]
        llms, given = make(), prompts(number, name)
        began = now(options.clock)
        said[name] = ask(llms, given)
        return now(options.clock) - began

    seconds = alternate({name: partial(run, name) for name in arms}, rounds=options.rounds)
    print(title)
    rows = []
    for name in arms:
        row = [name, spread(seconds[name])]
        row += [times_faster(seconds, name, than=other) for other in than]
        if answers:
            same = sum(a == b for a, b in zip(said[name], said[than[0]], strict=True))
            row.append(f"{same} of {len(said[name])}")
        rows.append(row)
    header = ["arm", "seconds for all", *(f"x {other}" for other in than)]
    print_table([*header, "same answers"] if answers else header, rows)


def random_prompts(
    number: int, arm: str, *, shared: int, own: int, options: argparse.Namespace
) -> list[Messages]:
    """Prompts of a round and an arm that begin alike for some tokens, or not at all."""
    generator = torch.Generator().manual_seed(hash_seed(options.seed, number, arm))
    passages = random_text(generator, tokens=shared)
    texts = (random_text(generator, tokens=own) for _ in range(options.requests))
    return [[ChatMessage(role="user", content=f"{passages} {text}".strip())] for text in texts]


def hash_seed(seed: int, number: int, arm: str) -> int:
    """A seed for a round and an arm, the same in every run."""
    return seed * 1_000_003 + (number + 1) * 1009 + sum(arm.encode())


def measure_random(options: argparse.Namespace) -> None:
    """Random weights: equal lengths, nothing known from the round before."""
    shape = mini_shape(layers=options.layers, quick=options.quick)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        save_random_model(base, shape, seed=options.seed)
        load = partial(
            Phi3LLM,
            dtype="bfloat16",
            device="cpu",
            max_new_tokens=options.tokens,
            prompt_lookup="off",
        )
        own = load(model=str(base))
        peer = hugging_face(str(base), "bfloat16", options.tokens)
        everybody = [own] * options.requests
        arms: dict[str, tuple[Ask, Callable[[], Sequence[LLM]]]] = {
            PEER: (gathered, lambda: [peer] * options.requests),
            SPARED: (gathered_spared, lambda: [peer] * options.requests),
            "Phi3LLM, gather": (gathered, lambda: everybody),
            "Phi3LLM, threads": (in_threads, lambda: everybody),
        }
        what = f"{shape.name}: {options.requests} requests, {options.tokens} new tokens each, "
        independent = partial(random_prompts, shared=0, own=options.prompt_tokens, options=options)
        compare(
            f"{what}{options.prompt_tokens} tokens of their own",
            arms,
            independent,
            options,
            than=(PEER, SPARED),
        )
        compare(
            f"{what}{options.shared_tokens} tokens of passages in common, 24 of their own",
            arms,
            partial(random_prompts, shared=options.shared_tokens, own=24, options=options),
            options,
            than=(PEER, SPARED),
        )
        for number in range(ADAPTERS):
            adapter = save_random_adapter(base.with_name(f"{number}"), str(base), seed=number)
            own.load_adapter(adapter, name=f"adapter {number}")
        bare = load(model=str(base))
        views = [own.with_adapter(f"adapter {n % ADAPTERS}") for n in range(options.requests)]
        mixed: dict[str, tuple[Ask, Callable[[], Sequence[LLM]]]] = {
            "base": (gathered, lambda: [bare] * options.requests),
            f"base, {ADAPTERS} adapters loaded": (gathered, lambda: everybody),
            "one adapter": (gathered, lambda: [views[0]] * options.requests),
            f"{ADAPTERS} adapters": (gathered, lambda: views),
        }
        title = f"{what}LoRA of rank 16 on all linear layers"
        compare(title, mixed, independent, options, than=("base",))


def measure_embedded(options: argparse.Namespace) -> None:
    """The embedded model and real questions: independent ones, and about one set of passages."""

    def fresh() -> Sequence[LLM]:
        llm = Phi3LLM(dtype="float32", device="cpu", max_new_tokens=options.tokens).load()
        return [llm] * options.requests

    peer = hugging_face("embedded", "float32", options.tokens)
    arms: dict[str, tuple[Ask, Callable[[], Sequence[LLM]]]] = {
        PEER: (gathered, lambda: [peer] * options.requests),
        "Phi3LLM, gather": (gathered, fresh),
        "Phi3LLM, threads": (in_threads, fresh),
    }
    for same, title in ((False, "each with its own passages"), (True, "about the same passages")):
        found = plant_prompts(options.requests, passages=options.passages, same_passages=same)
        prompts = [[ChatMessage(**turn) for turn in messages] for messages in found]
        compare(
            f"embedded model: {options.requests} questions {title}, {options.passages} each",
            arms,
            lambda _number, _arm, prompts=prompts: prompts,  # type: ignore[misc]
            options,
            than=(PEER,),
            answers=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser, clock="cpu", rounds=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of an answer at the most")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--shared-tokens", type=int, default=1000)
    parser.add_argument("--passages", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.tokens, options.shared_tokens, options.requests = 1, 6, 200, 8
    torch.set_num_threads(options.threads)
    print_conditions(options)
    measure_random(options)
    measure_embedded(options)


if __name__ == "__main__":
    main()
