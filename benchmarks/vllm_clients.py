"""One vLLM server on the CPU beside this process: the same texts, and how many clients it bears.

    make .venv-vllm/.installed
    python benchmarks/vllm_clients.py --clients 1 2 4 8 16 32 64

The server is started as ``phi3-industry serve-command`` says and stopped at the end. It is asked
through the library's own engine for servers, and prompts go to both as token ids, so that only
those who compute differ. First both answer every prompt, one after the other, and the texts and
the log probabilities of some answers are compared. Then that many clients ask at a time, each its
next prompt as soon as its last is answered.

The prompts are questions about the plant in ``examples/`` with five retrieved passages each. Both
sides compute in 32 bits, decode greedily, and take the threads they are given here. With
``--adapter DIR`` every second prompt of the comparison goes to an adapter. Rates are of the median
of the rounds, the two sides in turns, after a warm-up; latencies are of all rounds' requests. The
prefix caches of both are off unless ``--prefix-cache`` is given.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import alternate, print_conditions, print_table, spread
from plant_prompts import plant_prompts

from phi3_industry.engines.base import Engine, GenerationRequest, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.engines.remote import RemoteEngine
from phi3_industry.models.loading import load_base_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from vllm_server import VLLM, VllmServer

ADAPTER = "adapter"
OURS, THEIRS = "this process", "vLLM"
_SCORED = 20


@dataclass(frozen=True)
class Prompt:
    """A prompt for both sides."""

    ids: tuple[int, ...]
    adapter: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a side answered."""

    text: str
    tokens: int


def main() -> None:
    """Start the server, compare texts, measure, print."""
    options = _options()
    print_conditions(options)
    torch.set_num_threads(options.threads)
    loaded = load_base_model(options.model, dtype="float32")
    engine = LocalEngine(loaded, prefix_cache_bytes=None if options.prefix_cache else 0)
    if options.adapter:
        engine.load_adapter(options.adapter, name=ADAPTER)
    prompts = [
        Prompt(tuple(loaded.chat_format.encode_messages(messages)))
        for messages in plant_prompts(options.prompts, passages=options.passages)
    ]
    with _server(options) as server:
        remote = RemoteEngine(server.url, chat_format=loaded.chat_format)
        _compare(engine, remote, prompts, adapted=bool(options.adapter), options=options)
        _measure(engine, remote, prompts, options)


def _ask(engine: Engine, prompt: Prompt, *, max_new_tokens: int) -> Answer:
    request = GenerationRequest(
        prompt_ids=prompt.ids,
        sampling=SamplingParams(max_new_tokens=max_new_tokens),
        adapter=prompt.adapter,
    )
    events = list(engine.generate(request))
    text = "".join(event.text for event in events).strip()
    usage = events[-1].usage
    return Answer(text, 0 if usage is None else usage.completion_tokens)


def _compare(
    ours: Engine,
    theirs: Engine,
    prompts: Sequence[Prompt],
    *,
    adapted: bool,
    options: argparse.Namespace,
) -> None:
    """Print for how many prompts both say the same, and how far their probabilities are apart."""
    asked = [
        Prompt(prompt.ids, ADAPTER if adapted and number % 2 else None)
        for number, prompt in enumerate(prompts)
    ]
    ask = partial(_ask, max_new_tokens=options.max_new_tokens)
    same = [ask(ours, prompt).text == ask(theirs, prompt).text for prompt in asked]
    print(f"The same greedy text for {sum(same)} of {len(same)} prompts.")
    apart = []
    for prompt in asked[:_SCORED]:
        scores = [
            engine.score(prompt.ids, [prompt.ids[-8:]], adapter=prompt.adapter)[0]
            for engine in (ours, theirs)
        ]
        apart.append(max(abs(a - b) for a, b in zip(*scores, strict=True)))
    print(f"Log probabilities are {max(apart):.1e} nats apart at most.\n", flush=True)


def _measure(
    ours: Engine, theirs: Engine, prompts: Sequence[Prompt], options: argparse.Namespace
) -> None:
    rows = []
    for clients in options.clients:
        sides = {
            name: Side(engine, prompts, clients, options.max_new_tokens)
            for name, engine in ((OURS, ours), (THEIRS, theirs))
        }
        seconds = alternate(
            {name: side.answer_all for name, side in sides.items()}, rounds=options.rounds
        )
        rows += [[str(clients), name, *side.row(seconds[name])] for name, side in sides.items()]
    print_table(["clients", "side", "answers/s", "tokens/s", "p50 ms", "p95 ms"], rows)


class Side:
    """One side that some clients ask, and what it took it."""

    def __init__(
        self, engine: Engine, prompts: Sequence[Prompt], clients: int, max_new_tokens: int
    ) -> None:
        self._ask = partial(_ask, engine, max_new_tokens=max_new_tokens)
        self._prompts = prompts
        self._clients = clients
        self._latencies: list[float] = []
        self._tokens = 0

    def answer_all(self, number: int) -> float:
        """Let the clients ask all prompts; give the seconds."""
        began = time.perf_counter()
        with ThreadPoolExecutor(self._clients) as pool:
            answered = list(pool.map(self._timed, self._prompts))
        taken = time.perf_counter() - began
        self._tokens = sum(tokens for tokens, _ in answered)
        if number >= 0:
            self._latencies += [seconds for _, seconds in answered]
        return taken

    def row(self, seconds: Sequence[float]) -> list[str]:
        """Show answers and tokens per second, and the latencies in ms."""
        p50, p95 = np.percentile(self._latencies, [50, 95]) * 1000
        counts = (len(self._prompts), self._tokens)
        rates = [spread([count / taken for taken in seconds], digits=1) for count in counts]
        return [*rates, f"{p50:.0f}", f"{p95:.0f}"]

    def _timed(self, prompt: Prompt) -> tuple[int, float]:
        began = time.perf_counter()
        tokens = self._ask(prompt).tokens
        return tokens, time.perf_counter() - began


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[VllmServer]:
    server = VllmServer(
        options.model,
        adapters={ADAPTER: Path(options.adapter)} if options.adapter else None,
        program=Path(options.vllm),
        arguments=() if options.prefix_cache else ("--no-enable-prefix-caching",),
        threads=options.threads,
    )
    try:
        yield server
    finally:
        server.kill()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", default=str(VLLM), help="vLLM's command, in its own environment")
    parser.add_argument("--model", default="embedded", help='"embedded" or a checkpoint folder')
    parser.add_argument("--adapter", help="adapter folder that every second prompt goes to")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--passages", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each side")
    parser.add_argument("--prefix-cache", action="store_true")
    options = parser.parse_args()
    options.clock = "wall"
    return options


if __name__ == "__main__":
    main()
