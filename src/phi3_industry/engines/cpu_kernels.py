"""The faster of two kernels for a step of one token in bfloat16 on a CPU."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from phi3_industry.models.loading import LoadedModel

__all__ = ["single_token_kernels", "wants_single_token_kernels"]

_lock = threading.Lock()
_users = 0
_before = True


def wants_single_token_kernels(loaded: LoadedModel) -> bool:
    """Say whether a model gains: bfloat16 weights as they are, on an x86 processor.

    Weights in 4 bits have kernels of their own, but the model's head stays in bfloat16; those in
    8 bits go through oneDNN, and float32 is as fast either way.
    """
    return (
        loaded.device == "cpu"
        and loaded.dtype == "bfloat16"
        and loaded.quantization in (None, "nf4")
        and platform.machine().lower() in ("x86_64", "amd64")
    )


@contextmanager
def single_token_kernels() -> Iterator[None]:
    """Multiply by torch's own kernels and not by oneDNN's.

    For one row of bfloat16, oneDNN reaches about half of the memory's bandwidth and torch's own
    kernel nearly all of it; from two rows on oneDNN is the faster. Measured with torch 2.13 on
    one core with AVX-512.

    The switch is one for the whole process. Others that compute meanwhile get right results,
    perhaps more slowly; the switch stands as it was when the last user has left.
    """
    import torch

    global _users, _before
    switch: Any = torch.backends.mkldnn
    with _lock:
        if _users == 0:
            _before = switch.enabled
            switch.enabled = False
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                switch.enabled = _before
