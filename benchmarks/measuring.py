"""What the speed benchmarks share: alternating rounds, medians with spread, what was measured on.

On a shared machine the time of one thing varies by a factor of two from minute to minute. So all
arms run in turns in one process, and ratios are taken within a round before their median is.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from phi3_industry.engines.cpu_kernels import single_token_kernels

Clock = Literal["cpu", "wall"]
Seconds = dict[str, list[float]]

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "llama-index-core")
_SETTLE_S = 0.1
_MOST_READ_BYTES = 2**29


def now(clock: Clock) -> float:
    """CPU seconds of all threads of this process, or seconds on the wall."""
    return time.process_time() if clock == "cpu" else time.perf_counter()


def alternate(
    arms: Mapping[str, Callable[[int], float]], *, rounds: int, warm_up: bool = True
) -> Seconds:
    """Measure all arms once in each round, each round beginning with another arm.

    Args:
        arms: Take the number of the round, which is -1 in the warm-up, and give seconds.
        rounds: How many rounds count.
        warm_up: Whether a round that does not count comes first.
    """
    seconds: Seconds = {name: [] for name in arms}
    names = list(arms)
    for number in range(-1 if warm_up else 0, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken = arms[name](number)
            time.sleep(_SETTLE_S)  # an engine's thread may still be keeping what it read
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def spread(values: Sequence[float], *, digits: int = 2) -> str:
    """Median and range, as ``1.89 [1.47..2.02]``."""
    middle, least, most = (f"{f(values):.{digits}f}" for f in (median, min, max))
    return f"{middle} [{least}..{most}]"


def times_faster(seconds: Seconds, name: str, *, than: str) -> str:
    """How many times faster one arm was than another in the same round, with its spread."""
    return spread([other / own for other, own in zip(seconds[than], seconds[name], strict=True)])


def read_seconds(nbytes: int, *, clock: Clock) -> float:
    """Seconds to read some bytes once from where a model of that size lies: memory or cache.

    The best of three readings in each of three ways, for no single one is the fastest on every
    processor: a sum, and products of a matrix with a vector in 32 bits and, without oneDNN, in 16.
    Larger models are scaled from half a GiB.
    """
    size = min(nbytes, _MOST_READ_BYTES)
    columns = 1024
    rows = max(1, size // (4 * columns))
    wide = torch.ones((rows, columns))
    narrow = torch.ones((2 * rows, columns), dtype=torch.bfloat16)
    flat, vector = wide.view(-1), torch.ones(columns)

    def narrow_product() -> torch.Tensor:
        with single_token_kernels():
            return torch.mv(narrow, vector.bfloat16())

    ways: tuple[Callable[[], torch.Tensor], ...] = (
        flat.sum,
        lambda: torch.mv(wide, vector),
        narrow_product,
    )
    repeats = max(1, _MOST_READ_BYTES // (8 * wide.nbytes))
    best = float("inf")
    for read in ways * 3:
        began = now(clock)
        for _ in range(repeats):
            read()
        best = min(best, (now(clock) - began) / repeats)
    return best * nbytes / wide.nbytes


@contextmanager
def spared_head_copy(model: Any) -> Iterator[None]:
    """Keep transformers' own generation from copying the output head for each prompt.

    It multiplies a slice of the hidden states whose strides make torch (2.13) expand and copy the
    whole head, 0.2 GB and 0.6 s of one core at Phi-3-mini's width in bfloat16, however many layers
    there are. Our engine is spared it. In a model with few layers it would flatter our ratio.
    """

    def with_plain_strides(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0].clone(memory_format=torch.contiguous_format),)

    handle = model.lm_head.register_forward_pre_hook(with_plain_strides)
    try:
        yield
    finally:
        handle.remove()


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that Markdown understands."""
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def print_conditions(options: argparse.Namespace) -> None:
    """Print hardware, versions and all settings of a run."""
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} is missing")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"Hardware: {_processor()}, {len(os.sched_getaffinity(0))} cores, load {load}, "
        f"{platform.system()}, Python {platform.python_version()}"
    )
    print("Versions: " + ", ".join(versions))
    print("Settings: " + ", ".join(f"{name} {value}" for name, value in vars(options).items()))
    clock = "CPU seconds of the whole process" if options.clock == "cpu" else "wall-clock seconds"
    print(f"Times are {clock}; figures are median [least..most] of the rounds.\n", flush=True)


def add_common_options(parser: argparse.ArgumentParser, *, clock: Clock, rounds: int) -> None:
    """Add the options that every speed benchmark has."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and texts")
    parser.add_argument(
        "--clock",
        choices=("cpu", "wall"),
        default=clock,
        help="CPU time suffers less from other programs; take wall with more threads than one",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only see that it runs")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    found = [flag for flag in known if f" {flag} " in f"{flags} "]
    return f"{next(names, platform.machine())} ({' '.join(found)})"
