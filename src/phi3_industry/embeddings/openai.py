"""OpenAI's embedding service, through LlamaIndex's client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import Embedding
from llama_index.embeddings.openai import OpenAIEmbedding

from phi3_industry.embeddings.services import Role, ServiceEmbedding

__all__ = ["OpenAIServiceEmbedding"]

# Source: OpenAI, "Vector embeddings", what the models give if no dimensions are asked for
_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


class OpenAIServiceEmbedding(ServiceEmbedding, OpenAIEmbedding):
    """``OpenAIEmbedding`` whose replies are put in order and checked.

    Its client tries again where the service is busy, as often as ``max_retries`` says and when
    the reply says. LlamaIndex's class tries that again as often, and does not look at the order
    and the number of the vectors.

    Args:
        **settings: Those of LlamaIndex's ``OpenAIEmbedding``.
    """

    def identity(self) -> dict[str, Any]:
        """Return what decides which vector a text gets, for a store's identity row."""
        identity: dict[str, Any] = {"embedding_model": self.model_name}
        dimensions = self.dimensions or _DIMENSIONS.get(self.model_name)
        if dimensions is not None:
            identity["dimensions"] = dimensions
        return identity

    def _ask(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        return _in_order(self._get_client().embeddings.create(**self._request(texts, role)))

    async def _aask(self, texts: Sequence[str], role: Role) -> list[Embedding]:
        client = self._get_aclient()
        return _in_order(await client.embeddings.create(**self._request(texts, role)))

    def _request(self, texts: Sequence[str], role: Role) -> dict[str, Any]:
        model = self._query_engine if role == "query" else self._text_engine
        return {"input": list(texts), "model": model, **self.additional_kwargs}


def _in_order(reply: Any) -> list[Embedding]:
    return [item.embedding for item in sorted(reply.data, key=lambda item: item.index)]
