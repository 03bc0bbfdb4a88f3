"""How fast one answer is decoded on a CPU, beside the time that reading the weights alone takes.

    python benchmarks/decode_speed.py --layers 4 --rounds 5

Arms: the local engine, ``generate`` of transformers over the same weights in the same type, and
LlamaIndex's ``HuggingFaceLLM`` where nothing is quantised; for random weights of Phi-3-mini's true
width and of the embedded model's shape. The engine has a model of its own in memory, the others
share one. All decode greedily, from the same prompt, the same number of tokens.

Decode time is that from the first new token to the last, over the tokens between: seen by a
streamer in ``generate`` (and so inside ``HuggingFaceLLM``), by the events of the engine. "Whole
call" is from the question to the end of the answer; the peers are spared a copy in it (see
``spared_head_copy`` in ``measuring.py``). The engine's prefix cache and prompt lookup are
off: they have benchmarks of their own.

The limit is the bytes of weights, keys and values that a token needs, read at the speed that this
process reaches in the same round over as many bytes: from memory, or a cache if they fit there.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from llama_index.llms.huggingface import HuggingFaceLLM
from measuring import (
    Clock,
    Seconds,
    add_common_options,
    alternate,
    now,
    print_conditions,
    print_table,
    read_seconds,
    spared_head_copy,
    spread,
    times_faster,
)
from random_models import Shape, embedded_shape, mini_shape, random_text, save_random_model

from phi3_industry.engines.base import GenerationRequest, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.models.loading import LoadedModel, load_base_model

Decode = Callable[[], list[float]]
"""Decodes once and gives the clock at the beginning, at each token, and at the end."""

TYPES: dict[str, dict[str, Any]] = {
    "bf16": {"dtype": "bfloat16"},
    "fp32": {"dtype": "float32"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "NF4": {"dtype": "bfloat16", "quantization": "nf4"},
}


@dataclass
class Ticks:
    """A streamer of transformers that notes when tokens come; the prompt comes first."""

    clock: Clock
    times: list[float] = field(default_factory=list)

    def put(self, _: torch.Tensor) -> None:
        """Note the time."""
        self.times.append(now(self.clock))

    def end(self) -> None:
        """Take note of nothing."""


def ours(loaded: LoadedModel, prompt: str, options: argparse.Namespace) -> Decode:
    """Decode with the local engine."""
    engine = LocalEngine(loaded, prefix_cache_bytes=0, prompt_lookup="off")
    request = GenerationRequest(
        prompt_ids=tuple(loaded.tokenizer(prompt).input_ids),
        sampling=SamplingParams(max_new_tokens=options.tokens),
    )

    def decode() -> list[float]:
        times = [now(options.clock)]
        times += [now(options.clock) for _ in engine.generate(request)]
        return [*times, now(options.clock)]

    return decode


def peers(loaded: LoadedModel, prompt: str, options: argparse.Namespace) -> dict[str, Decode]:
    """Decode with transformers and with LlamaIndex's class over it."""
    ticks = Ticks(options.clock)
    settings: dict[str, Any] = {"streamer": ticks, "do_sample": False}
    llm = HuggingFaceLLM(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        model_name=loaded.source,
        tokenizer_name=loaded.source,
        context_window=2048,
        max_new_tokens=options.tokens,
        generate_kwargs=settings,
    )

    def generate() -> None:
        inputs = loaded.tokenizer(prompt, return_tensors="pt")
        loaded.model.generate(**inputs, max_new_tokens=options.tokens, **settings)

    def decode(ask: Callable[[], Any]) -> list[float]:
        ticks.times.clear()
        began = now(options.clock)
        with spared_head_copy(loaded.model):
            ask()
        return [began, *ticks.times[1:], now(options.clock)]

    arms: dict[str, Decode] = {"generate": partial(decode, generate)}
    if loaded.quantization is None:
        arms["HuggingFaceLLM"] = partial(decode, partial(llm.complete, prompt, formatted=True))
    return arms


def bytes_per_token(loaded: LoadedModel, tokens: int) -> int:
    """Bytes that a decode step reads: all but an embedding table of its own, of which a row."""
    weights = dict(loaded.memory.weights)
    if not loaded.model.config.tie_word_embeddings:
        weights.pop("embeddings")
    return sum(weights.values()) + loaded.memory.kv_bytes(tokens)


def measure(shape: Shape, reference: str, options: argparse.Namespace) -> None:
    """Measure one shape and print its table with ratios to ``HuggingFaceLLM`` in one type."""
    decodes: dict[str, Decode] = {}
    sizes: dict[str, int] = {}
    generator = torch.Generator().manual_seed(options.seed)
    prompt = random_text(generator, tokens=options.prompt_tokens)
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), shape, seed=options.seed)
        for kind in options.types:
            load = partial(load_base_model, folder, device="cpu", **TYPES[kind])
            loaded = load()
            sizes[kind] = bytes_per_token(loaded, options.prompt_tokens + options.tokens // 2)
            decodes[f"ours {kind}"] = ours(loaded, prompt, options)
            for name, decode in peers(load(), prompt, options).items():
                decodes[f"{name} {kind}"] = decode
    whole: Seconds = {arm: [] for arm in decodes}
    reading: Seconds = {kind: [] for kind in sizes}

    def run(arm: str, number: int) -> float:
        times = decodes[arm]()
        if len(times) != options.tokens + 2:
            raise SystemExit(f"{arm} gave {len(times) - 2} tokens and not {options.tokens}.")
        if number >= 0:
            whole[arm].append(times[-1] - times[0])
        return (times[-2] - times[1]) / (len(times) - 3)

    def read(number: int) -> float:
        for kind, size in sizes.items():
            taken = read_seconds(size, clock=options.clock)
            if number >= 0:
                reading[kind].append(taken)
        return 0.0

    arms = {arm: partial(run, arm) for arm in decodes}
    per_token = alternate({**arms, "reading": read}, rounds=options.rounds)
    peer = f"HuggingFaceLLM {reference}"
    rows = []
    for arm in decodes:
        kind = arm.split()[-1]
        limit = reading[kind]
        shares = [100 * best / own for best, own in zip(limit, per_token[arm], strict=True)]
        rows.append(
            [
                arm,
                spread([1 / seconds for seconds in per_token[arm]]),
                times_faster(per_token, arm, than=peer),
                times_faster(per_token, arm, than=f"generate {kind}"),
                times_faster(whole, arm, than=peer),
                f"{sizes[kind] / 1e9:.4f}",
                spread([sizes[kind] / seconds / 1e9 for seconds in limit], digits=1),
                spread([1 / seconds for seconds in limit], digits=1),
                spread(shares, digits=0),
            ]
        )
    print(f"{shape.name}; prompt of about {options.prompt_tokens} tokens, {options.tokens} new")
    columns = [
        "arm",
        "decode tokens/s",
        f"x {peer}",
        "x generate of that type",
        f"whole call x {peer}",
        "GB/token",
        "read GB/s",
        "limit tokens/s",
        "% of limit",
    ]
    print_table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser, clock="cpu", rounds=5)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=24, help="tokens to generate")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    options = parser.parse_args()
    if not {"bf16", "fp32"} <= set(options.types):
        parser.error("bf16 and fp32 are what the others are compared with; leave them in --types")
    if options.quick:
        options.rounds, options.tokens, options.prompt_tokens = 2, 8, 32
    torch.set_num_threads(options.threads)
    print_conditions(options)
    measure(mini_shape(layers=options.layers, quick=options.quick), "bf16", options)
    gc.collect()
    measure(embedded_shape(), "fp32", options)


if __name__ == "__main__":
    main()
