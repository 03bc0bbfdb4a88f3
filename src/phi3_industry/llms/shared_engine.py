"""The engine behind an LLM and all its views."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from phi3_industry.models.catalog import Checkpoint
from phi3_industry.models.loading import load_base_model, load_checkpoint

if TYPE_CHECKING:
    from phi3_industry.engines.local import LocalEngine

__all__ = ["SharedEngine"]


class SharedEngine:
    """Loads an engine at its first use, once.

    Args:
        source: What names the checkpoint: ``model``, ``revision``, ``local_files_only``.
        options: How to load it: ``dtype``, ``quantization``, ``device``.
        engine_options: How to compute: keyword arguments of
            :class:`~phi3_industry.engines.local.LocalEngine`.
        adapter_paths: Adapter folders by name; the table is shared with the LLM and its views.
    """

    def __init__(
        self,
        *,
        source: Mapping[str, Any],
        options: Mapping[str, Any],
        engine_options: Mapping[str, Any],
        adapter_paths: dict[str, str],
    ) -> None:
        self._source = dict(source)
        self._options = dict(options)
        self._engine_options = dict(engine_options)
        self._adapter_paths = adapter_paths
        self._engine: LocalEngine | None = None
        self.lock = threading.RLock()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._engine is not None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """What the model can hold, read without its weights."""
        return load_checkpoint(**self._source)

    @property
    def engine(self) -> LocalEngine:
        """The engine; asking for it loads the weights and the adapters."""
        with self.lock:
            if self._engine is None:
                from phi3_industry.engines.local import LocalEngine

                loaded = load_base_model(**self._source, **self._options)
                engine = LocalEngine(loaded, **self._engine_options)
                for name, path in self._adapter_paths.items():
                    engine.load_adapter(path, name=name)
                self._engine = engine
            return self._engine
