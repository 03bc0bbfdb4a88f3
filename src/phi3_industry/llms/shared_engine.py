"""The engine behind an LLM and all its views."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from phi3_industry.engines.base import Engine
from phi3_industry.errors import ConfigurationError
from phi3_industry.models.catalog import Checkpoint
from phi3_industry.models.chat_format import ChatFormat
from phi3_industry.models.loading import (
    LoadedModel,
    load_base_model,
    load_chat_format,
    load_checkpoint,
)

if TYPE_CHECKING:
    from phi3_industry.engines.local import LocalEngine
    from phi3_industry.engines.remote import RemoteEngine

__all__ = ["SharedEngine"]


class SharedEngine:
    """Makes an engine at its first use, once: one that loads the weights, or one at a server.

    Args:
        source: What names the checkpoint: ``model``, ``revision``, ``local_files_only``.
        options: How to load it: ``dtype``, ``quantization``, ``device``.
        engine_options: How to compute: keyword arguments of
            :class:`~phi3_industry.engines.local.LocalEngine`.
        server: How to reach a server that computes: keyword arguments of
            :class:`~phi3_industry.engines.remote.RemoteEngine`, with ``api_key_env`` in place of
            the key; ``None`` to compute here.
        adapter_paths: Adapter folders by name; the table is shared with the LLM and its views.
    """

    def __init__(
        self,
        *,
        source: Mapping[str, Any],
        options: Mapping[str, Any],
        engine_options: Mapping[str, Any],
        server: Mapping[str, Any] | None,
        adapter_paths: dict[str, str],
    ) -> None:
        self._source = dict(source)
        self._options = dict(options)
        self._engine_options = dict(engine_options)
        self._server = None if server is None else dict(server)
        self._adapter_paths = adapter_paths
        self._local: LocalEngine | None = None
        self._remote: RemoteEngine | None = None
        self.lock = threading.RLock()

    @property
    def is_remote(self) -> bool:
        """Whether a server computes."""
        return self._server is not None

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._local is not None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """What the model can hold, read without its weights."""
        return load_checkpoint(**self._source)

    @property
    def context_window(self) -> int:
        """Tokens of prompt and answer together: the model's, or the server's if that is less."""
        own = self.checkpoint.context_window
        served = self._server_engine().context_window if self.is_remote else None
        return own if served is None else min(own, served)

    @property
    def chat_format(self) -> ChatFormat:
        """How messages become token ids; where weights are computed here, they are loaded."""
        return self._remote_chat_format if self.is_remote else self.base_model.chat_format

    @property
    def base_model(self) -> LoadedModel:
        """The base model in memory.

        Raises:
            ConfigurationError: A server computes, and there are no weights here.
        """
        if self._server is not None:
            raise ConfigurationError(
                f"The server {self._server['base_url']} holds the weights of "
                f"'{self._source['model']}', and this needs them here. Make a Phi3LLM without "
                "base_url for it."
            )
        return self._local_engine().loaded

    @property
    def engine(self) -> Engine:
        """The engine; asking for a local one loads the weights and the adapters."""
        return self._server_engine() if self.is_remote else self._local_engine()

    def _local_engine(self) -> LocalEngine:
        with self.lock:
            if self._local is None:
                from phi3_industry.engines.local import LocalEngine

                loaded = load_base_model(**self._source, **self._options)
                engine = LocalEngine(loaded, **self._engine_options)
                for name, path in self._adapter_paths.items():
                    engine.load_adapter(path, name=name)
                self._local = engine
            return self._local

    def _server_engine(self) -> RemoteEngine:
        with self.lock:
            if self._remote is None:
                from phi3_industry.engines.remote import RemoteEngine

                server = dict(self._server or {})
                key = os.environ.get(server.pop("api_key_env"))
                engine = RemoteEngine(**server, chat_format=self._remote_chat_format, api_key=key)
                for name, path in self._adapter_paths.items():
                    engine.load_adapter(path, name=name)
                self._remote = engine
            return self._remote

    @cached_property
    def _remote_chat_format(self) -> ChatFormat:
        return load_chat_format(**self._source)
