"""Keep back what other packages log without consequence, so that what matters is seen."""

from __future__ import annotations

import logging
import re

__all__ = ["quiet_known_noise"]

_NOISE = {
    # at each int8 product that is not in float16
    "bitsandbytes.autograd._functions": r"MatMul8bitLt: inputs will be cast",
    # at import; the kernels it misses are optional
    "bitsandbytes.backends.cpu.ops": r"Failed to load CPU gemm_4bit_forward",
    # at every published checkpoint with longrope: advice to its authors, and two keys of phimoe
    # that transformers uses all the same
    "transformers.modeling_rope_utils": (
        r"This model config has set a `rope_parameters\['original_max_position_embeddings'\]`"
        r"|Unrecognized keys in .*\{'(long|short)_mscale', '(long|short)_mscale'\}"
    ),
}


def quiet_known_noise() -> None:
    """Filter a few known messages, and those alone; calling it again changes nothing."""
    for name in _NOISE:
        logging.getLogger(name).addFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    return not re.match(_NOISE[record.name], str(record.msg))
