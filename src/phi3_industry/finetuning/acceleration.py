"""What makes training faster where it is there: a paged optimiser, kernels, flash attention."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

__all__ = ["Acceleration", "choose_acceleration"]


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """What a run uses beside torch itself.

    Attributes:
        optimizer: Name of the optimiser, as transformers knows it.
        liger: Whether layers are computed by Liger kernels.
        attention: The attention implementation of transformers.
        bf16: Whether what is no weight of the base is computed in bfloat16.
    """

    optimizer: str
    liger: bool
    attention: str
    bf16: bool

    def __str__(self) -> str:
        kernels = " with Liger kernels" if self.liger else ""
        return f"{self.optimizer}, {self.attention} attention{kernels}"


def choose_acceleration(*, device: str, dtype: str, quantization: str | None) -> Acceleration:
    """Choose by what the device is and what is installed.

    Args:
        device: The torch device to train on.
        dtype: The type that the base computes in.
        quantization: How the base is stored.
    """
    on_gpu = device.startswith("cuda")
    halves = dtype in ("bfloat16", "float16")
    return Acceleration(
        # its state moves to the machine's memory when the GPU's runs short
        optimizer="paged_adamw_32bit" if on_gpu and quantization else "adamw_torch",
        liger=on_gpu and _has("liger_kernel"),
        attention="flash_attention_2" if on_gpu and halves and _has("flash_attn") else "sdpa",
        bf16=dtype == "bfloat16",
    )


def _has(package: str) -> bool:
    return find_spec(package) is not None
