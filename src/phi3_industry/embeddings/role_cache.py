"""LlamaIndex's cache of embeddings, made safe for models that embed queries in their own way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

__all__ = ["CachedByRole", "RoleCache"]

_role: ContextVar[str] = ContextVar("role", default="text")


class RoleCache(BaseKVStore):
    """A store in which each model has its place, with queries and texts apart.

    LlamaIndex looks a vector up by the text alone: a query would be given the vector of a
    passage that reads the same, or one of another model.

    Args:
        store: Keeps the vectors.
        identity: Gives what decides which vector a text gets; asked when it is needed.
    """

    def __init__(self, store: BaseKVStore, identity: Callable[[], dict[str, Any]]) -> None:
        self._store = store
        self._identity = identity
        self._model: str | None = None

    def _place(self, collection: str) -> str:
        if self._model is None:
            text = json.dumps(self._identity(), sort_keys=True)
            self._model = hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"{collection}-{self._model}-{_role.get()}"

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep a value."""
        self._store.put(key, val, self._place(collection))

    async def aput(
        self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION
    ) -> None:
        """Keep a value."""
        await self._store.aput(key, val, self._place(collection))

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """Give a value, or ``None``."""
        return self._store.get(key, self._place(collection))

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """Give a value, or ``None``."""
        return await self._store.aget(key, self._place(collection))

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Give all values of this model."""
        return self._store.get_all(self._place(collection))

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Give all values of this model."""
        return await self._store.aget_all(self._place(collection))

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Forget a value; say whether there was one."""
        return self._store.delete(key, self._place(collection))

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Forget a value; say whether there was one."""
        return await self._store.adelete(key, self._place(collection))


class CachedByRole(BaseEmbedding):
    """An embedding whose cache never gives a query the vector of a passage."""

    # a store is no setting: it holds files or connections
    embeddings_cache: Any | None = Field(default=None, exclude=True)

    def identity(self) -> dict[str, Any]:
        """Return what decides which vector a text gets."""
        return {"embedding_model": self.model_name}

    @model_validator(mode="after")
    def _keep_roles_apart(self) -> Self:
        if isinstance(self.embeddings_cache, BaseKVStore):
            self.embeddings_cache = RoleCache(self.embeddings_cache, self.identity)
        return self

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query."""
        token = _role.set("query")
        try:
            return super().get_query_embedding(query)
        finally:
            _role.reset(token)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed a query without blocking the event loop."""
        token = _role.set("query")
        try:
            return await super().aget_query_embedding(query)
        finally:
            _role.reset(token)
