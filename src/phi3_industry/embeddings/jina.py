"""Jina's embedding service, through LlamaIndex's client.

This module needs the extra ``jina``; :func:`phi3_industry.embeddings.load_embedding` imports it
when it is asked for such a model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import Field
from llama_index.embeddings.jinaai import JinaEmbedding
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from phi3_industry.embeddings.services import Role, ServiceEmbedding

__all__ = ["JinaServiceEmbedding"]

_RETRIED = (408, 429, 500, 502, 503, 504)
_FIRST_VERSION_WITH_TASKS = 3


class JinaServiceEmbedding(ServiceEmbedding, JinaEmbedding):
    """``JinaEmbedding`` that embeds queries as queries, waits for a busy service, and checks.

    LlamaIndex's class sends one task for queries and passages alike, never tries again, waits for
    ever, and stumbles over replies that are no JSON.

    Args:
        model: Such as ``"jina-embeddings-v3"``.
        api_base: The service's address; Jina's own if ``None``.
        dimensions: Length of the vectors, if fewer than the model's own.
        task: One task for queries and texts; if ``None``, models from v3 on embed queries as
            ``retrieval.query`` and texts as ``retrieval.passage``.
        late_chunking: Whether the texts of a batch are read as one; their vectors then depend on
            the batch.
        max_retries: How often a busy service is asked again, after the time that it says.
        timeout_s: Seconds to wait for a reply.
        **settings: What else LlamaIndex's ``JinaEmbedding`` takes.
    """

    api_base: str | None = None
    task: str | None = None
    late_chunking: bool | None = None
    max_retries: int = Field(default=6, ge=0)
    timeout_s: float = Field(default=60.0, gt=0)

    def __init__(self, model: str, **settings: Any) -> None:
        # LlamaIndex's class leaves its model_name "unknown"
        fields: dict[str, Any] = {**settings, "model": model, "model_name": model}
        # nor does it send a key that it found in the environment
        fields["api_key"] = settings.get("api_key") or os.environ.get("JINAAI_API_KEY")
        super().__init__(**fields)
        # past the constructor of LlamaIndex's class, which keeps these to itself
        for name in ("task", "dimensions", "late_chunking"):
            setattr(self, name, settings.get(name))
        if self.api_base is not None:
            self._api.api_url = f"{self.api_base.rstrip('/')}/embeddings"
        again = Retry(
            total=self.max_retries,
            status_forcelist=_RETRIED,
            allowed_methods=None,  # POST too: embedding twice does no harm
            backoff_factor=0.5,
        )
        session = self._api._session
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=again))
        session.request = partial(session.request, timeout=self.timeout_s)

    def identity(self) -> dict[str, Any]:
        """Return what decides which vector a text gets, for a store's identity row."""
        known = {
            "dimensions": self.dimensions,
            "query_task": self._task_of("query"),
            "text_task": self._task_of("text"),
            "late_chunking": self.late_chunking,
        }
        found = {key: value for key, value in known.items() if value is not None}
        return {"embedding_model": self.model, **found}

    def _ask(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        encodings = {"query": self._encoding_queries, "text": self._encoding_documents}
        vectors: list[Embedding] = self._api.get_embeddings(
            input=list(texts),
            encoding_type=encodings[role],
            task=self._task_of(role),
            dimensions=self.dimensions,
            late_chunking=self.late_chunking,
        )
        return vectors

    def _task_of(self, role: Role) -> str | None:
        version = re.search(r"-v(\d+)", self.model)
        if self.task is not None or version is None:
            return self.task
        if int(version[1]) < _FIRST_VERSION_WITH_TASKS:
            return None
        return "retrieval.query" if role == "query" else "retrieval.passage"
