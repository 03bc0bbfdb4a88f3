"""What a calibration depends on, and whether the one at hand still fits."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever

from phi3_industry.errors import ConfigurationError
from phi3_industry.query_engine.calibration import CALIBRATION_NAME, Calibration

__all__ = ["CalibrationSource", "find_calibration", "retriever_fingerprints"]

_logger = logging.getLogger(__name__)

CalibrationSource = Calibration | str | PathLike[str] | Literal[False] | None
"""A calibration, its file, the one beside the adapter (``None``), or none (``False``)."""


def retriever_fingerprints(retriever: BaseRetriever | None) -> dict[str, str]:
    """Say which retriever and which embedding find the passages."""
    any_retriever: Any = retriever
    embedding = getattr(any_retriever, "embed_model", None) or getattr(
        any_retriever, "_embed_model", None
    )
    identity = getattr(embedding, "identity", None)
    facts = identity() if callable(identity) else getattr(embedding, "model_name", "none")
    text = json.dumps(facts, sort_keys=True, default=str)
    count = getattr(any_retriever, "similarity_top_k", "any number of")
    return {
        "retriever": f"{type(retriever).__name__}, {count} nodes",
        "embedding": hashlib.sha256(text.encode()).hexdigest(),
    }


def find_calibration(
    source: CalibrationSource, *, folder: Path | None, fingerprints: Mapping[str, str]
) -> tuple[Calibration | None, str]:
    """Give the calibration to go by.

    Args:
        source: What was asked for.
        folder: Folder of the adapter, if there is one.
        fingerprints: What it has to be learned with.

    Returns:
        The calibration, and a remark for the user where one was passed over.

    Raises:
        ConfigurationError: The one that was asked for is stale or unreadable. One that only lies
            beside the adapter is then passed over with a warning and a remark.
        FileNotFoundError: There is no such file.
    """
    if source is False:
        return None, ""
    if source is not None:
        calibration = source if isinstance(source, Calibration) else Calibration.load(source)
        calibration.check_fresh(fingerprints)
        return calibration, ""
    if folder is None or not (folder / CALIBRATION_NAME).is_file():
        return None, ""
    try:
        calibration = Calibration.load(folder)
        calibration.check_fresh(fingerprints)
    except ConfigurationError as error:
        _logger.warning("The calibration beside the adapter is not used. %s", error)
        return None, "The calibration beside the adapter does not fit and was not used."
    return calibration, ""
