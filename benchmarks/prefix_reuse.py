"""How soon an answer begins when the beginning of its prompt was read before.

    python benchmarks/prefix_reuse.py --layers 2 --rounds 5

In each round the engine is asked about 1,500 tokens that it has never seen ("without"), and about
1,500 others that it was asked about just before ("reused"). LlamaIndex's ``HuggingFaceLLM``, which
keeps nothing, is given the latter prompt too (and spared a copy, see ``spared_head_copy`` in
``measuring.py``). One token is generated, so the time is that to the
first token. Models have random weights: Phi-3-mini's true width in bfloat16, the embedded model's
shape in float32.

The limit is the share of the tokens that must be computed: (prefix + question) / question.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
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
from random_models import Shape, embedded_shape, mini_shape, random_text, save_random_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from phi3_industry.engines.base import GenerationRequest, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.models.loading import load_base_model

HEADER = ("arm", "seconds to the first token", "x faster than without", "x faster than the peer")
PEER = "HuggingFaceLLM"


def measure(
    shape: Shape, dtype: Literal["bfloat16", "float32"], options: argparse.Namespace
) -> None:
    """Measure one shape and print its table."""
    generator = torch.Generator().manual_seed(options.seed)
    texts: dict[int, list[str]] = {}  # by round: one of its own, and two that begin alike
    for number in range(-1, options.rounds):
        alone, shared = (random_text(generator, tokens=options.prefix_tokens) for _ in range(2))
        texts[number] = [
            f"{prefix} {random_text(generator, tokens=options.question_tokens)}"
            for prefix in (alone, shared, shared)
        ]

    with tempfile.TemporaryDirectory() as name:
        save_random_model(Path(name), shape, seed=options.seed)
        loaded = load_base_model(name, dtype=dtype, device="cpu")
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
    engine = LocalEngine(loaded)
    llm = HuggingFaceLLM(
        model=model.eval(),
        tokenizer=tokenizer,
        model_name=name,
        tokenizer_name=name,
        context_window=2048,
        max_new_tokens=1,
        generate_kwargs={"do_sample": False},
    )
    reused: dict[str, int] = {}

    def ask(prompt: str, *, arm: str) -> float:
        request = GenerationRequest(
            prompt_ids=tuple(tokenizer(prompt).input_ids),
            sampling=SamplingParams(max_new_tokens=1),
        )
        before = engine.prefix_statistics.tokens_reused
        began = now(options.clock)
        list(engine.generate(request))
        taken = now(options.clock) - began
        reused[arm] = engine.prefix_statistics.tokens_reused - before
        return taken

    def without(number: int) -> float:
        return ask(texts[number][0], arm="without")

    def with_reuse(number: int) -> float:
        ask(texts[number][1], arm="first")
        return ask(texts[number][2], arm="reused")

    def peer(number: int) -> float:
        with spared_head_copy(model):
            began = now(options.clock)
            llm.complete(texts[number][2], formatted=True)
            return now(options.clock) - began

    arms = {"without": without, "reused": with_reuse, PEER: peer}
    seconds = alternate(arms, rounds=options.rounds)
    length = len(tokenizer(texts[0][2]).input_ids)
    if reused["without"]:
        raise SystemExit("The arm without reuse has reused something; its figure would be wrong.")
    print(f"{shape.name}, {dtype}; prompts of {length} tokens, {reused['reused']} of them reused")
    print_table(
        HEADER,
        [
            [
                arm,
                spread(seconds[arm], digits=3),
                times_faster(seconds, arm, than="without"),
                times_faster(seconds, arm, than=PEER),
            ]
            for arm in arms
        ],
    )
    print(f"limit by tokens: {length / (length - reused['reused']):.1f} x\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser, clock="cpu", rounds=5)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--prefix-tokens", type=int, default=1500)
    parser.add_argument("--question-tokens", type=int, default=40)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.prefix_tokens = 2, 200
    torch.set_num_threads(options.threads)
    print_conditions(options)
    measure(mini_shape(layers=options.layers, quick=options.quick), "bfloat16", options)
    measure(embedded_shape(), "float32", options)


if __name__ == "__main__":
    main()
