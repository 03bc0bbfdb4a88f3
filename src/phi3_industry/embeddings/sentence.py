"""Embedding models of the sentence-transformers kind, as LlamaIndex embeddings.

Importing this module loads torch; :func:`phi3_industry.embeddings.load_embedding` does so only
when it is asked for such a model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.utils import infer_torch_device
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.embeddings.huggingface.utils import (
    get_query_instruct_for_model_name,
    get_text_instruct_for_model_name,
)
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from phi3_industry.embeddings.adapters import adapter_hash
from phi3_industry.embeddings.batching import halved_without_memory, like_length_batches
from phi3_industry.embeddings.encoder import Encoder, encoder_facts, merge_adapter
from phi3_industry.embeddings.role_cache import CachedByRole
from phi3_industry.embeddings.sentence_model import (
    EMBEDDED_MODEL,
    ComputeType,
    compute_in,
    load_sentence_model,
    locate,
    short_name,
)
from phi3_industry.errors import ConfigurationError
from phi3_industry.llms.copying import rebuild
from phi3_industry.models.adapter import read_manifest, resolve_target_modules

__all__ = ["SentenceEmbedding"]

# Texts that LlamaIndex hands over at once; within them texts of like length share a batch.
_CHUNK_TEXTS = 512
# A processor's caches hold the states of few texts, a GPU wants many at once.
_BATCH_TOKENS = {"cpu": 4096}
_GPU_BATCH_TOKENS = 32768
_DOCUMENT_PROMPTS = ("document", "passage", "corpus", "text")


class SentenceEmbedding(CachedByRole, HuggingFaceEmbedding):
    """A sentence-transformers model, loaded from its safetensors files without remote code.

    It is LlamaIndex's ``HuggingFaceEmbedding`` with what goes wrong there put right: prompts
    that a model was saved with are used, an instruction of ``""`` means none, an error is raised
    at once instead of after retries, models in the Hugging Face cache are found offline,
    ``from_dict(to_dict())`` and pickling load the model again, texts are batched by their number
    of tokens, a batch for which memory runs out is halved, and where the processor multiplies
    bfloat16 the model computes in it.

    Args:
        model_name: ``"embedded"``, a local folder, or a Hugging Face id.
        adapter: Folder of an adapter that
            :class:`~phi3_industry.finetuning.embedding.EmbeddingFinetuneEngine` trained; it is
            checked and added to the weights, so that it costs no time.
        dtype: The type that the model computes in; sums over tokens and what follows are in
            float32. ``"auto"`` takes bfloat16 for a model stored in float32, where the device
            multiplies it and vectors agree with those of float32 at a cosine of at least 0.999,
            which is measured on a few texts at loading. A store cannot tell vectors of the two
            apart, so that its identity does not name the type.
        dimensions: Numbers of a vector that are kept, from the first (Matryoshka); all if
            ``None``.
        query_instruction: Text put before each query; if ``None`` that of the adapter's training,
            or else the model's own prompt.
        text_instruction: Text put before each passage, likewise.
        max_length: Tokens of a text that are read; the model's own limit if ``None``.
        normalize: Whether vectors have the length 1.
        embed_batch_size: Texts taken from LlamaIndex at once.
        device: Such as ``"cpu"`` or ``"cuda"``; the best there is if ``None``.
        revision: Of a Hugging Face id: branch, tag or commit.
        cache_folder: Where downloads are kept; Hugging Face's own cache if ``None``.
        local_files_only: Never download.
        model_kwargs: Passed to the model's ``from_pretrained``, such as ``{"dtype": ...}``.
        show_progress_bar: Whether to show sentence-transformers' progress bar.
        num_workers: LlamaIndex's number of concurrent async calls.
        embeddings_cache: LlamaIndex's cache.
        callback_manager: LlamaIndex's.

    Raises:
        ModelLoadError: The model is not there, is damaged, has no safetensors file or demands
            code of its own.
        AdapterError: The adapter is missing, damaged, or was trained on another model or with
            other instructions.
        ConfigurationError: ``dimensions`` is more than the model has.
        MissingDependencyError: ``"embedded"`` needs a package that is not installed.
    """

    adapter: str | None = Field(default=None, description="Folder of an adapter.")
    dtype: ComputeType = Field(default="auto", description="Type to compute in.")
    dimensions: int = Field(gt=0, description="Length of the vectors.")
    device: str | None = Field(default=None, description="Device asked for.")
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    local_files_only: bool = Field(default=False, description="Never download.")
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Passed to from_pretrained.", exclude=True
    )
    _encode_lock: Any = PrivateAttr(default_factory=threading.Lock)
    _weights: str | None = PrivateAttr(default=None)
    _adapter_hash: str | None = PrivateAttr(default=None)
    _compute_type: str = PrivateAttr()

    def __init__(
        self,
        model_name: str = EMBEDDED_MODEL,
        *,
        adapter: str | os.PathLike[str] | None = None,
        dtype: ComputeType = "auto",
        dimensions: int | None = None,
        query_instruction: str | None = None,
        text_instruction: str | None = None,
        max_length: int | None = None,
        normalize: bool = True,
        embed_batch_size: int = _CHUNK_TEXTS,
        device: str | None = None,
        revision: str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        show_progress_bar: bool = False,
        num_workers: int | None = None,
        embeddings_cache: Any = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        manifest = None if adapter is None else read_manifest(adapter)
        model, weights = _load(
            model_name,
            device=device,
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
            model_kwargs=model_kwargs or {},
        )
        if max_length is not None:
            model.max_seq_length = max_length
        trained = {} if manifest is None else manifest.metrics
        if query_instruction is None:
            saved = trained.get("query_prompt", model.prompts.get("query"))
            query_instruction = saved or get_query_instruct_for_model_name(model_name)
        if text_instruction is None:
            own = next(filter(None, map(model.prompts.get, _DOCUMENT_PROMPTS)), None)
            saved = trained.get("text_prompt", own)
            text_instruction = saved or get_text_instruct_for_model_name(model_name)
        if adapter is not None and manifest is not None:
            merge_adapter(
                model,
                adapter,
                manifest,
                facts=encoder_facts(model, name=short_name(model_name), revision=revision),
                reading=_reading(query_instruction, text_instruction),
            )
        compute_type = compute_in(model, dtype, name=short_name(model_name))
        fields: dict[str, Any] = {
            "model_name": model_name,
            "adapter": None if adapter is None else os.fspath(adapter),
            "dtype": dtype,
            "dimensions": _checked_dimensions(model, dimensions, name=model_name),
            "max_length": model.max_seq_length or 512,
            "normalize": normalize,
            "query_instruction": query_instruction,
            "text_instruction": text_instruction,
            "embed_batch_size": embed_batch_size,
            "cache_folder": cache_folder,
            "show_progress_bar": show_progress_bar,
            "num_workers": num_workers,
            "embeddings_cache": embeddings_cache,
            "callback_manager": callback_manager or CallbackManager([]),
            "device": device,
            "revision": revision,
            "local_files_only": local_files_only,
            "model_kwargs": model_kwargs or {},
        }
        # past HuggingFaceEmbedding's constructor, which would load the model its own way
        BaseEmbedding.__init__(self, **fields)
        self._model = model
        self._device = str(model.device)
        self._parallel_process = False
        self._target_devices = None
        self._weights = weights
        self._adapter_hash = None if manifest is None else adapter_hash(manifest)
        self._compute_type = compute_type

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "SentenceEmbedding"

    @property
    def compute_type(self) -> str:
        """The type that the model computes in."""
        return self._compute_type

    def identity(self) -> dict[str, Any]:
        """Return what decides which vector a text gets, for a store's identity row."""
        identity: dict[str, Any] = {
            "embedding_model": short_name(self.model_name),
            "dimensions": self.dimensions,
            "normalize": self.normalize,
            **_reading(self.query_instruction, self.text_instruction),
        }
        if self.revision is not None:
            identity["revision"] = self.revision
        if self._weights is not None:
            identity["weights"] = self._weights
        if self._adapter_hash is not None:
            identity["adapter"] = self._adapter_hash
        return identity

    def encoder(self) -> Encoder:
        """Load the model once more, to train an adapter for it.

        Raises:
            ConfigurationError: This embedding has an adapter already.
            ModelLoadError: The model does not load.
        """
        if self.adapter is not None:
            raise ConfigurationError(
                f"This embedding has the adapter '{self.adapter}' already. Train on the embedding "
                "without it; a new adapter takes its place."
            )
        model, _ = _load(
            self.model_name,
            device=self.device,
            revision=self.revision,
            cache_folder=self.cache_folder,
            local_files_only=self.local_files_only,
            model_kwargs=self.model_kwargs,
        )
        model.max_seq_length = self.max_length
        base = encoder_facts(model, name=short_name(self.model_name), revision=self.revision)
        body = model.float()[0].auto_model
        return Encoder(
            model=model,
            body=body,
            targets=resolve_target_modules(body, None),
            task_type="FEATURE_EXTRACTION",
            bfloat16=self.compute_type == "bfloat16",
            base=base,
            reading=_reading(self.query_instruction, self.text_instruction),
        )

    def with_adapter(self, adapter: str | os.PathLike[str]) -> Self:
        """Give this embedding with an adapter.

        Args:
            adapter: The adapter folder.

        Raises:
            AdapterError: The adapter is missing, damaged, or was trained on another model or
                with other instructions.
        """
        settings = {**self.to_dict(), "model_kwargs": self.model_kwargs}
        return type(self).from_dict({**settings, "adapter": os.fspath(adapter)})

    def _embed(self, inputs: list[Any], prompt_name: str | None = None) -> list[list[float]]:
        prompts = {"query": self.query_instruction, "text": self.text_instruction}
        prompt = prompts.get(prompt_name or "") or ""

        def compute(batch: Sequence[Any]) -> list[list[float]]:
            vectors: list[list[float]] = self._model.encode(
                list(batch),
                batch_size=len(batch),
                prompt=prompt,
                truncate_dim=self.dimensions,
                normalize_embeddings=self.normalize,
                show_progress_bar=False,
            ).tolist()
            return vectors

        embeddings: list[list[float]] = [[]] * len(inputs)
        with self._encode_lock:  # fast tokenizers cannot be used by two threads at once
            batches = like_length_batches(
                self._lengths(inputs),
                tokens=_BATCH_TOKENS.get(self._model.device.type, _GPU_BATCH_TOKENS),
            )
            for batch in tqdm(batches, desc="Batches", disable=not self.show_progress_bar):
                vectors = halved_without_memory(compute, [inputs[position] for position in batch])
                for position, vector in zip(batch, vectors, strict=True):
                    embeddings[position] = vector
        return embeddings

    def _lengths(self, inputs: Sequence[Any]) -> list[int]:
        tokenizer = self._model.tokenizer
        if len(inputs) == 1 or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return [len(item) if isinstance(item, str) else self.max_length for item in inputs]
        encoded = tokenizer(list(inputs), truncation=True, max_length=self.max_length)
        return [len(ids) for ids in encoded["input_ids"]]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        settings = {**self.to_dict(), "model_kwargs": self.model_kwargs}
        return rebuild, (type(self), settings)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> SentenceEmbedding:
        return self  # the weights are never changed, so that copies can share them


def _load(
    name: str, *, device: str | None, local_files_only: bool, **settings: Any
) -> tuple[Any, str | None]:
    """Find and load a model; give it with the fingerprint of its weights, if it is on the disk."""
    source, weights = locate(name)
    model = load_sentence_model(
        source,
        name=name,
        device=device or infer_torch_device(),
        local_files_only=local_files_only or weights is not None,
        **settings,
    )
    return model, weights


def _reading(query_instruction: str | None, text_instruction: str | None) -> dict[str, str]:
    return {"query_prompt": query_instruction or "", "text_prompt": text_instruction or ""}


def _checked_dimensions(model: Any, asked: int | None, *, name: str) -> int:
    own = int(model.get_embedding_dimension())
    if asked is not None and asked > own:
        raise ConfigurationError(
            f"dimensions is {asked} and '{name}' has vectors of {own}. Ask for fewer, or leave "
            "dimensions out."
        )
    return asked or own
