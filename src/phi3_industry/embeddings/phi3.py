"""Phi3Embedding: the weights of a Phi-3 model as a LlamaIndex embedding."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager

from phi3_industry.embeddings.adapters import adapter_hash, check_reading
from phi3_industry.embeddings.role_cache import CachedByRole
from phi3_industry.engines.base import Pooling
from phi3_industry.errors import ConfigurationError
from phi3_industry.llms.copying import CopiesShareWeights
from phi3_industry.llms.phi3 import Phi3LLM
from phi3_industry.models.catalog import EMBEDDED, resolve_model
from phi3_industry.models.embedding_input import embedding_input
from phi3_industry.models.loading import DType, Quantization

if TYPE_CHECKING:
    from phi3_industry.embeddings.encoder import Encoder

__all__ = ["Phi3Embedding"]

_logger = logging.getLogger(__name__)

_SOURCE_FIELDS = ("model", "quantization", "dtype", "device", "revision", "local_files_only")
_SETTINGS = (
    "pooling",
    "query_instruction",
    "text_instruction",
    "dimensions",
    "max_length",
    "embed_batch_size",
    "num_workers",
    "callback_manager",
)
_BATCH_TEXTS = 256


class Phi3Embedding(CopiesShareWeights, CachedByRole):
    """A Phi-3 model as a LlamaIndex embedding, over the same weights as the LLM.

    A text is read as ``instruction + text + end token`` and its vector is pooled from the last
    hidden states. Texts are packed behind each other without padding, so that a vector depends
    neither on the batch nor on a side of padding. A model becomes a good embedder by an adapter
    that was trained for it; the bare base model is a poor one.

    Args:
        llm: A :class:`~phi3_industry.llms.Phi3LLM` or a view of one, whose weights are shared.
        model: In place of ``llm``: ``"embedded"``, a folder or a hub id, loaded at its first use.
        quantization, dtype, device, revision, local_files_only: How to load ``model``, as in
            :class:`~phi3_industry.llms.Phi3LLM`.
        adapter: Name of a loaded adapter, or an adapter folder; if ``None`` that of ``llm``,
            which is the base model unless ``llm`` is a view with an adapter.
        adapter_paths: With ``model``: adapter folders by name.
        pooling: ``"last"`` takes the end token's state, ``"mean"`` averages over all tokens.
        query_instruction: Text put before each query.
        text_instruction: Text put before each passage.
        dimensions: Numbers of a vector that are kept, from the first (Matryoshka); the model's
            hidden size if ``None``. An adapter should be trained for it.
        max_length: Tokens of instruction and text that are read; the model's prompt budget if
            ``None``. A longer text is cut at its end, and a warning is logged once per batch.
        embed_batch_size: Texts taken from LlamaIndex at once.
        num_workers: LlamaIndex's number of concurrent async calls.
        embeddings_cache: LlamaIndex's cache; kept apart by model, adapter and role here.
        callback_manager: LlamaIndex's.

    Raises:
        ConfigurationError: Both ``llm`` and settings of a model of its own were given, or
            ``dimensions`` or ``max_length`` is more than the model has.
        AdapterNotFoundError: There is no such adapter.

    Example:
        >>> embed = Phi3Embedding(model="embedded", dimensions=64)
        >>> len(embed.get_query_embedding("Which oil does pump P-7 have?"))
        64
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(default="unknown", exclude=True, description="Name without a path.")
    model: str = EMBEDDED
    quantization: Quantization | None = None
    dtype: DType = "auto"
    device: str = "auto"
    revision: str | None = None
    local_files_only: bool = False
    adapter: str | None = None
    adapter_paths: dict[str, str] = Field(default_factory=dict)
    pooling: Pooling = "last"
    query_instruction: str = ""
    text_instruction: str = ""
    dimensions: int | None = Field(default=None, gt=0)
    max_length: int = Field(gt=0)

    _llm: Phi3LLM = PrivateAttr()
    _adapter_checked: bool = PrivateAttr(default=False)

    def __init__(
        self,
        llm: Phi3LLM | None = None,
        *,
        model: str | None = None,
        adapter: str | None = None,
        adapter_paths: dict[str, str] | None = None,
        pooling: Pooling = "last",
        query_instruction: str = "",
        text_instruction: str = "",
        dimensions: int | None = None,
        max_length: int | None = None,
        embed_batch_size: int = _BATCH_TEXTS,
        num_workers: int | None = None,
        embeddings_cache: Any = None,
        callback_manager: CallbackManager | None = None,
        **loading: Any,
    ) -> None:
        if llm is None:
            view = _own_llm(model, adapter=adapter, adapter_paths=adapter_paths, loading=loading)
        else:
            _check_nothing_else(model=model, adapter_paths=adapter_paths, **loading)
            view = llm if adapter is None else llm.with_adapter(adapter)
        name = view.adapter
        most = view.prompt_budget - 1  # the end token comes on top
        if max_length is not None and max_length > most:
            raise ConfigurationError(
                f"max_length is {max_length} and '{resolve_model(view.model)[1]}' reads at most "
                f"{most} tokens and an end token. Lower it, or leave it out."
            )
        fields: dict[str, Any] = {
            **{key: getattr(view, key) for key in _SOURCE_FIELDS},
            "model_name": resolve_model(view.model)[1],
            "adapter": name,
            "adapter_paths": {} if name is None else {name: view.adapter_paths[name]},
            "pooling": pooling,
            "query_instruction": query_instruction,
            "text_instruction": text_instruction,
            "dimensions": dimensions,
            "max_length": most if max_length is None else max_length,
            "embed_batch_size": embed_batch_size,
            "num_workers": num_workers,
            "embeddings_cache": embeddings_cache,
            "callback_manager": callback_manager or CallbackManager([]),
        }
        super().__init__(**fields)
        self._llm = view

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised form."""
        return "Phi3Embedding"

    # --- what it is ---------------------------------------------------------------------------

    def load(self) -> Self:
        """Load the weights now and not at the first use.

        Raises:
            ModelLoadError: The model does not load.
            AdapterError: The adapter does not fit.
            ConfigurationError: ``dimensions`` is more than the model has.
        """
        self._llm.load()
        self._check_adapter()
        self._checked_dimensions()
        return self

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, without the end token and any instruction."""
        return len(self._llm.tokenize(text))

    def identity(self) -> dict[str, Any]:
        """Return what decides which vector a text gets, for a store's identity row.

        The model is told by its weights and the adapter by its files, wherever they lie. The
        numbers' type in which they are computed changes vectors too little to count.
        """
        identity: dict[str, Any] = {
            "embedding_model": self.model_name,
            "weights": self._llm.base_model.weights_fingerprint[:16],
            "dimensions": self._checked_dimensions(),
            "pooling": self.pooling,
            "normalize": True,
            "query_prompt": self.query_instruction,
            "text_prompt": self.text_instruction,
        }
        quantization = self._llm.base_model.quantization
        if quantization is not None:
            identity["quantization"] = quantization
        if self.revision is not None:
            identity["revision"] = self.revision
        self._check_adapter()
        manifest = self._llm.adapter_manifest()
        if manifest is not None:
            identity["adapter"] = adapter_hash(manifest)
        return identity

    # --- adapters -----------------------------------------------------------------------------

    def encoder(self) -> Encoder:
        """Load the base model once more, to train an adapter for it.

        Raises:
            ConfigurationError: This embedding has an adapter already.
            ModelLoadError: The model does not load.
        """
        from phi3_industry.embeddings.phi3_encoder import phi3_encoder
        from phi3_industry.models.loading import load_base_model

        if self.adapter is not None:
            raise ConfigurationError(
                f"This embedding has the adapter '{self.adapter}' already. Train on the embedding "
                "without it; a new adapter takes its place."
            )
        loaded = load_base_model(**{key: getattr(self, key) for key in _SOURCE_FIELDS})
        return phi3_encoder(
            loaded,
            pooling=self.pooling,
            reading=self._reading(),
            max_length=self.max_length,
        )

    def with_adapter(self, adapter: str | PathLike[str]) -> Self:
        """Give this embedding with an adapter, over the same weights.

        Args:
            adapter: Name of a loaded adapter, or an adapter folder.

        Raises:
            AdapterError: There is no such adapter, or it does not fit.
        """
        view = self._llm.with_adapter(fspath(adapter))
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return type(self)(llm=view, **settings)

    # --- vectors ------------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed([query], self.query_instruction)[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed([text], self.text_instruction)[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(texts, self.text_instruction)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _reading(self) -> dict[str, str]:
        return {
            "query_prompt": self.query_instruction,
            "text_prompt": self.text_instruction,
            "pooling": self.pooling,
        }

    def _check_adapter(self) -> None:
        """Refuse to read otherwise than the adapter was trained to, once."""
        if self._adapter_checked:
            return
        manifest = self._llm.adapter_manifest()
        if manifest is not None:
            check_reading(manifest, self._reading(), adapter=Path(str(self.adapter)))
        self._adapter_checked = True

    def _embed(self, texts: Sequence[str], instruction: str) -> list[Embedding]:
        import numpy as np

        self._check_adapter()
        size = self._checked_dimensions()
        chat_format = self._llm.base_model.chat_format
        inputs = [
            embedding_input(chat_format, text, instruction=instruction, max_length=self.max_length)
            for text in texts
        ]
        self._report_cut([cut for _, cut in inputs])
        vectors = self._llm.embed([ids for ids, _ in inputs], pooling=self.pooling)[:, :size]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        embeddings: list[Embedding] = (vectors / np.maximum(lengths, 1e-12)).tolist()
        return embeddings

    def _report_cut(self, cut: Sequence[int]) -> None:
        if any(cut):
            _logger.warning(
                "%d of %d texts are longer than max_length=%d and were cut; of the longest %d "
                "tokens were not read. Split texts into smaller nodes, or raise max_length.",
                sum(count > 0 for count in cut),
                len(cut),
                self.max_length,
                max(cut),
            )

    def _checked_dimensions(self) -> int:
        hidden_size = int(self._llm.base_model.model.config.hidden_size)
        if self.dimensions is not None and self.dimensions > hidden_size:
            raise ConfigurationError(
                f"dimensions is {self.dimensions} and '{self.model_name}' has vectors of "
                f"{hidden_size}. Ask for fewer, or leave dimensions out."
            )
        return self.dimensions or hidden_size


def _own_llm(
    model: str | None,
    *,
    adapter: str | None,
    adapter_paths: dict[str, str] | None,
    loading: dict[str, Any],
) -> Phi3LLM:
    unknown = sorted(set(loading) - set(_SOURCE_FIELDS))
    if unknown:
        raise TypeError(f"The options {unknown} are unknown to Phi3Embedding.")
    paths = dict(adapter_paths or {})
    if adapter is not None and adapter not in paths and Path(adapter).is_dir():
        paths[adapter] = adapter
    return Phi3LLM(model=model or EMBEDDED, adapter=adapter, adapter_paths=paths, **loading)


def _check_nothing_else(**settings: Any) -> None:
    given = sorted(name for name, value in settings.items() if value is not None)
    if given:
        raise ConfigurationError(
            f"Phi3Embedding was given an llm, and {given} besides, which say how to load another "
            "model. Give either."
        )
