"""Compare the local engine with a vLLM server on the CPU: the same texts, and how fast.

The server is started from vLLM's own environment and stopped at the end. It is asked through the
library's own engine for servers, and prompts go to both as token ids, so that only those who
compute differ::

    python benchmarks/vllm_server.py --vllm ~/vllm/bin/vllm --prompts 200 --clients 1 4 16

The prompts are the questions of ``examples/plant`` with five retrieved passages each. Both sides
compute in 32 bits and decode greedily. ``--adapter DIR`` sends every second prompt to an adapter.
Times are wall-clock, each round after a warm-up, the two sides in turns; the ratio is that of the
medians. The prefix caches of both are off unless ``--prefix-cache`` is given.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from phi3_industry import KnowledgeBase, load_embedding
from phi3_industry.engines.base import Engine, GenerationRequest, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.engines.remote import RemoteEngine
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.grounding.questions import load_questions
from phi3_industry.models.catalog import resolve_model
from phi3_industry.models.loading import load_base_model

PLANT = Path(__file__).parents[1] / "examples" / "plant"
ADAPTER = "adapter"
_SCORED = 20


@dataclass(frozen=True)
class Prompt:
    """A prompt for both sides."""

    ids: tuple[int, ...]
    adapter: str | None


def main() -> None:
    """Start the server, compare texts, measure, print."""
    options = _options()
    torch.set_num_threads(options.threads)
    loaded = load_base_model(options.model, dtype="float32")
    engine = LocalEngine(loaded, prefix_cache_bytes=None if options.prefix_cache else 0)
    if options.adapter:
        engine.load_adapter(options.adapter, name=ADAPTER)
    prompts = _prompts(loaded.chat_format.encode_messages, options)
    folder, _ = resolve_model(options.model)

    with _server(folder, options) as url:
        remote = RemoteEngine(f"{url}/v1", chat_format=loaded.chat_format)

        def ask(engine: Engine, prompt: Prompt) -> str:
            sampling = SamplingParams(max_new_tokens=options.max_new_tokens)
            request = GenerationRequest(
                prompt_ids=prompt.ids, sampling=sampling, adapter=prompt.adapter
            )
            return "".join(event.text for event in engine.generate(request)).strip()

        ours, theirs = partial(ask, engine), partial(ask, remote)
        same = [ours(prompt) == theirs(prompt) for prompt in prompts]
        print(f"same greedy text: {sum(same)} of {len(same)}")
        apart = [_score_difference(engine, remote, prompt) for prompt in prompts[:_SCORED]]
        print(f"log probabilities of an answer: {max(apart):.1e} nats apart at most")
        for clients in options.clients:
            _compare(ours, theirs, prompts, clients=clients, rounds=options.rounds)


def _score_difference(one: Engine, other: Engine, prompt: Prompt) -> float:
    """Largest difference between two engines' log probabilities of an answer's tokens."""
    answer = prompt.ids[-8:]
    scores = [
        engine.score(prompt.ids, [answer], adapter=prompt.adapter)[0] for engine in (one, other)
    ]
    return max(abs(a - b) for a, b in zip(*scores, strict=True))


def _compare(
    ours: Callable[[Prompt], str],
    theirs: Callable[[Prompt], str],
    prompts: Sequence[Prompt],
    *,
    clients: int,
    rounds: int,
) -> None:
    seconds: dict[str, list[float]] = {"ours": [], "vLLM": []}
    with ThreadPoolExecutor(clients) as pool:
        for _ in range(rounds):
            for name, ask in (("ours", ours), ("vLLM", theirs)):
                began = time.perf_counter()
                list(pool.map(ask, prompts))
                seconds[name].append(time.perf_counter() - began)
    rates = {name: len(prompts) / median(values) for name, values in seconds.items()}
    spread = {name: f"{min(v):.1f}-{max(v):.1f} s" for name, v in seconds.items()}
    print(
        f"{clients:3d} clients: ours {rates['ours']:.1f} answers/s ({spread['ours']}), "
        f"vLLM {rates['vLLM']:.1f} ({spread['vLLM']}), ratio {rates['ours'] / rates['vLLM']:.2f}",
        flush=True,
    )


def _prompts(encode: Callable[[Any], list[int]], options: argparse.Namespace) -> list[Prompt]:
    questions = load_questions(PLANT / "questions.dev.jsonl")
    questions += load_questions(PLANT / "questions.train.jsonl")
    prompts = []
    with (
        tempfile.TemporaryDirectory() as name,
        KnowledgeBase.open(name, embed_model=load_embedding("embedded")) as base,
    ):
        base.add(PLANT / "documents")
        retriever = base.as_retriever(similarity_top_k=options.passages)
        for number, question in enumerate(questions[: options.prompts]):
            passages = [node.get_content() for node in retriever.retrieve(question.question)]
            ids = encode(DEFAULT_PROMPT.grounded(question.question, passages))
            adapted = options.adapter is not None and number % 2 == 1
            prompts.append(Prompt(tuple(ids), ADAPTER if adapted else None))
    return prompts


@contextmanager
def _server(folder: str, options: argparse.Namespace) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [options.vllm, "serve", folder, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", "2048"]
    if not options.prefix_cache:
        command += ["--no-enable-prefix-caching"]
    if options.adapter:
        command += ["--enable-lora", "--max-lora-rank", str(options.max_lora_rank)]
        command += ["--lora-modules", f"{ADAPTER}={options.adapter}"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **settings}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{port}/v1/models", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Any, *, seconds: float = 900) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)  # noqa: S310 - our own loopback address
        except OSError:
            time.sleep(2)
        else:
            return
    log.seek(0)
    sys.exit(f"The server did not start:\n{log.read().decode(errors='replace')[-3000:]}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm", required=True, help="vLLM's command, in its own environment")
    parser.add_argument("--model", default="embedded", help='"embedded" or a checkpoint folder')
    parser.add_argument("--adapter", help="adapter folder that every second prompt goes to")
    parser.add_argument("--max-lora-rank", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--passages", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of our engine")
    parser.add_argument("--prefix-cache", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
