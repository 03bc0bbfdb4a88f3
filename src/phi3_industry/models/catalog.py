"""What a checkpoint can hold, read from its own configuration: window, length cliffs, budget.

:mod:`phi3_industry.models.family` lists the published checkpoints; any other of the same
architecture works by its configuration alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "EMBEDDED",
    "SUPPORTED_MODEL_TYPES",
    "Checkpoint",
    "checkpoint_from_config",
    "resolve_model",
]

EMBEDDED = "embedded"
"""Name of the small checkpoint that is shipped with this package."""

SUPPORTED_MODEL_TYPES = ("phi3", "phimoe")
"""The ``model_type`` values of configurations that can be loaded."""

_SLIDING_WINDOW_SAFE_MARGIN = 47


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint can hold.

    Attributes:
        name: Name without any path: ``"embedded"``, a hub id, or a folder's own name.
        context_window: Tokens of prompt and answer together.
        sliding_window: Tokens that one attention layer sees; ``None`` if it sees all. Answers
            of early checkpoints become garbage past it in some library versions.
            Source: transformers issue 32945.
        rope_switch: Length in tokens at which the rotary embedding changes from its short to its
            long factors (longrope), so that keys cached before it no longer fit; ``None`` if
            there is no such place.
        prompt_budget: Tokens that a prompt should stay within by default.
    """

    name: str
    context_window: int
    sliding_window: int | None
    rope_switch: int | None
    prompt_budget: int

    @property
    def length_cliffs(self) -> tuple[int, ...]:
        """Lengths in tokens at which behaviour changes, ascending."""
        cliffs = {self.sliding_window, self.rope_switch} - {None}
        return tuple(sorted(cliff for cliff in cliffs if cliff is not None))


def resolve_model(model: str) -> tuple[str, str]:
    """Say where a model is and what to call it.

    Args:
        model: ``"embedded"``, a folder, or a hub id.

    Returns:
        A folder or hub id for transformers, and a name that holds no path.
    """
    if model == EMBEDDED:
        return str(Path(__file__).with_name("embedded")), EMBEDDED
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path), path.resolve().name
    return model, model


def checkpoint_from_config(name: str, config: Mapping[str, Any]) -> Checkpoint:
    """Read from a model's configuration what it can hold.

    Args:
        name: Name of the checkpoint, without any path.
        config: The configuration as ``config.json`` has it.

    Returns:
        The checkpoint.
    """
    window = int(config["max_position_embeddings"])
    sliding = config.get("sliding_window")
    sliding = int(sliding) if sliding is not None and int(sliding) < window else None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type")
    switch = None
    if kind in ("longrope", "su"):
        original = "original_max_position_embeddings"
        switch = int(config.get(original) or rope.get(original) or window)
    budget = min(window, switch or window)
    if sliding is not None:
        budget = min(budget, sliding - _SLIDING_WINDOW_SAFE_MARGIN)
    return Checkpoint(
        name=name,
        context_window=window,
        sliding_window=sliding,
        rope_switch=switch if switch is not None and switch < window else None,
        prompt_budget=budget,
    )
