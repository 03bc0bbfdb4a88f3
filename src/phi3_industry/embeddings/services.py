"""What embedding services have in common: nothing that they reply is taken on trust.

One vector too few in a reply, and each text after it would be stored with the vector of another.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import Field

from phi3_industry.embeddings.role_cache import CachedByRole
from phi3_industry.errors import EngineError
from phi3_industry.llms.copying import rebuild

__all__ = ["Role", "ServiceEmbedding"]

Role = Literal["query", "text"]


class ServiceEmbedding(CachedByRole):
    """A service's client, to be put before the class of LlamaIndex that it refines.

    A key is no setting: it is in no dictionary, and :meth:`from_dict` reads it from the
    environment.
    """

    # None for one, never for the other of the classes that this is put before
    api_key: Any = Field(default=None, exclude=True, repr=False)
    dimensions: int | None = Field(default=None, gt=0)

    @abstractmethod
    def _ask(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        """Ask the service, again where it is busy; the vectors in the order of the texts."""

    async def _aask(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        return await asyncio.to_thread(self._ask, texts, role)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed([query], "query")[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed([text], "text")[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(texts, "text")

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aembed([query], "query"))[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aembed([text], "text"))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._aembed(texts, "text")

    def _embed(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        with self._clear_errors():
            return self._checked(self._ask(texts, role), len(texts))

    async def _aembed(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        with self._clear_errors():
            return self._checked(await self._aask(texts, role), len(texts))

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except EngineError:
            raise
        except Exception as error:  # clients raise whatever a reply makes them stumble over
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            if self.api_key:
                reason = reason.replace(self.api_key, "***")
            raise EngineError(
                f"The embedding service of '{self._service_model}' failed: {reason}. Check the "
                "key, the model's name and the service's address, or try again later."
            ) from error

    def _checked(self, vectors: Sequence[Any], count: int) -> list[Embedding]:
        if len(vectors) != count:
            self._refuse(f"{len(vectors)} vectors for {count} texts")
        size = self.dimensions or (len(vectors[0]) if vectors else 0)
        for vector in vectors:
            if not isinstance(vector, list) or len(vector) != size or not size:
                length = len(vector) if isinstance(vector, list) else "no list"
                self._refuse(f"a vector of {length} numbers where {size} were expected")
            if not all(isinstance(x, int | float) and math.isfinite(x) for x in vector):
                self._refuse("a vector that holds something else than finite numbers")
        return list(vectors)

    def _refuse(self, found: str) -> None:
        raise EngineError(
            f"The embedding service of '{self._service_model}' sent a broken reply: {found}. "
            "Nothing of it was used; try again later."
        )

    @property
    def _service_model(self) -> str:
        return self.model_name

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings and the key; connections are made anew."""
        return rebuild, (type(self), {**self.to_dict(), "api_key": self.api_key})
