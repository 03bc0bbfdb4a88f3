"""What is installed on this machine, and what it can compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

__all__ = ["Extra", "Package", "base_packages", "checkpoints", "devices", "extras"]

_DISTRIBUTION = "phi3-industry"
_PURPOSES = {
    "embedded": "the offline embedding load_embedding('embedded')",
    "readers": "pdf, docx, pptx, html, xlsx and parquet documents",
    "plots": "the loss curve as a picture",
    "constrained": "structured output and tool calls",
    "openai": "load_embedding('text-embedding-3-small')",
    "jina": "load_embedding('jina-embeddings-v3')",
    "sql": "tables of databases",
}


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that is needed.

    Attributes:
        name: Its name.
        wanted: The versions that will do, such as ``>=2.6``.
        found: The version that is installed; ``None`` if none is.
        fits: Whether that will do.
    """

    name: str
    wanted: str
    found: str | None
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An ability that packages of its own bring.

    Attributes:
        name: Its name.
        purpose: What it is for.
        packages: Its packages.
    """

    name: str
    purpose: str
    packages: list[Package] = field(default_factory=list)

    @property
    def absent(self) -> list[str]:
        """Names of the packages that are not there, or are too old or too new."""
        return [package.name for package in self.packages if not package.fits]


def base_packages() -> list[Package]:
    """Look at what everything needs."""
    return [_look_at(one) for one in _requirements() if one.marker is None]


def extras() -> list[Extra]:
    """Look at what only some abilities need."""
    found: dict[str, Extra] = {}
    for requirement in _requirements():
        for name in _PURPOSES if requirement.marker else ():
            if requirement.marker is not None and requirement.marker.evaluate({"extra": name}):
                extra = found.setdefault(name, Extra(name=name, purpose=_PURPOSES[name]))
                extra.packages.append(_look_at(requirement))
    return list(found.values())


def _requirements() -> Iterator[Requirement]:
    """Give what this package says that it needs; nothing if it was not installed as a package."""
    try:
        said = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        said = []
    return map(Requirement, said)


def _look_at(requirement: Requirement) -> Package:
    found = _version(requirement.name)
    return Package(
        name=requirement.name,
        wanted=str(requirement.specifier),
        found=found,
        fits=found is not None and requirement.specifier.contains(found, prereleases=True),
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> dict[str, object]:
    """Say what can compute here.

    Returns:
        ``cores``, ``threads`` of torch, and ``cuda``: name and GiB of each CUDA device.

    Raises:
        Exception: Whatever a broken torch raises when it is imported.
    """
    import torch

    cards = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [{"name": card.name, "gib": round(card.total_memory / 2**30, 1)} for card in cards],
    }


def checkpoints() -> tuple[float, list[dict[str, object]]]:
    """List the known checkpoints with the memory of their weights, and what of it fits here.

    Returns:
        The GiB that are available, and for each checkpoint ``name``, ``gib`` by ``"16 bits"``,
        ``"int8"`` and ``"nf4"``, and ``fits``: ``"yes"``, ``"quantised"`` or ``"no"``.
    """
    from phi3_industry.models.family import KNOWN_CHECKPOINTS
    from phi3_industry.models.memory import Quantization, available_memory
    from phi3_industry.models.placement import choose_device

    available = available_memory(choose_device("auto")) / 2**30
    ways: dict[str, Quantization | None] = {"16 bits": None, "int8": "int8", "nf4": "nf4"}
    rows: list[dict[str, object]] = []
    for name, checkpoint in KNOWN_CHECKPOINTS.items():
        gib = {way: checkpoint.memory(how).weights_bytes / 2**30 for way, how in ways.items()}
        fits = "no"
        if gib["nf4"] < available:
            fits = "yes" if gib["16 bits"] < available else "quantised"
        rows.append({"name": name, "gib": gib, "fits": fits})
    return available, rows
