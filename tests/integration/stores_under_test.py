"""The vector stores that the acceptance tests run on, each made anew and empty."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from phi3_industry.grounding.matching import words_of

__all__ = ["EMBED_DIM", "MAKERS", "SERVER_OF", "StoreMaker", "WordEmbedding", "word_vector"]

EMBED_DIM = 64
_numbers = itertools.count()


def word_vector(text: str, dimensions: int = EMBED_DIM) -> list[float]:
    """A vector that has a place for each word, by its checksum; never zero."""
    vector = [0.1] * dimensions
    for word in words_of(text):
        vector[zlib.crc32(word.encode()) % dimensions] += 1.0
    return vector


class WordEmbedding(BaseEmbedding):
    """Embeds by :func:`word_vector` and counts the texts."""

    dimensions: int = EMBED_DIM
    embedded: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        self.embedded += 1
        return word_vector(text, self.dimensions)

    def _get_query_embedding(self, query: str) -> list[float]:
        return word_vector(query, self.dimensions)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return word_vector(query, self.dimensions)


class StoreMaker:
    """Makes one kind of LlamaIndex store; ``None`` means our own.

    Called again it closes what it has opened and opens it anew.
    """

    def __init__(self, kind: str, folder: Path, server: Any) -> None:
        self.kind = kind
        self.folder = folder
        self.server = server
        self._name = f"passages{next(_numbers)}"
        self.qdrant: Any = None
        self._opened: list[Callable[[], Any]] = []

    def __call__(self, name: str = "") -> BasePydanticVectorStore | None:
        self.close()
        make = MAKERS[self.kind]
        return None if make is None else make(self, self._name + name)

    def later(self, close: Callable[[], Any]) -> None:
        """Close something when the test is over."""
        self._opened.append(close)

    def close(self) -> None:
        for close in reversed(self._opened):
            close()
        self._opened.clear()


def sparse_words(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
    """Encode texts as Qdrant's sparse vectors: a place for each word, by its checksum."""
    places = [sorted({zlib.crc32(word.encode()) for word in words_of(text)}) for text in texts]
    return places, [[1.0] * len(known) for known in places]


def _qdrant(maker: StoreMaker, name: str, **settings: Any) -> BasePydanticVectorStore:
    import qdrant_client
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    # in memory: on disk its local mode writes each point by itself, which takes most of a minute
    maker.qdrant = maker.qdrant or qdrant_client.QdrantClient(":memory:")
    return QdrantVectorStore(name, client=maker.qdrant, index_doc_id=False, **settings)


def _qdrant_hybrid(maker: StoreMaker, name: str) -> BasePydanticVectorStore:
    return _qdrant(
        maker, name, enable_hybrid=True, sparse_doc_fn=sparse_words, sparse_query_fn=sparse_words
    )


def _pgvector(maker: StoreMaker, name: str, **settings: Any) -> BasePydanticVectorStore:
    from llama_index.vector_stores.postgres import PGVectorStore

    url = maker.server.url
    store = PGVectorStore(
        connection_string=url,
        async_connection_string=url.replace("postgresql:", "postgresql+asyncpg:"),
        table_name=name,
        embed_dim=EMBED_DIM,
        **settings,
    )
    maker.later(lambda: store.client and store.client.dispose())
    return store


def _pgvector_hybrid(maker: StoreMaker, name: str) -> BasePydanticVectorStore:
    return _pgvector(maker, name, hybrid_search=True, text_search_config="simple")


def _pgvector_hnsw(maker: StoreMaker, name: str) -> BasePydanticVectorStore:
    options = {"options": "-c hnsw.iterative_scan=strict_order"}
    index = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}
    return _pgvector(
        maker,
        name,
        hnsw_kwargs=index,
        use_jsonb=True,
        create_engine_kwargs={"connect_args": options},
    )


def _chroma_server(maker: StoreMaker, name: str) -> BasePydanticVectorStore:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.HttpClient(
        host=maker.server.host,
        port=maker.server.port,
        settings=chromadb.Settings(anonymized_telemetry=False),
    )
    return ChromaVectorStore(client.get_or_create_collection(name, embedding_function=None))


def _chroma(maker: StoreMaker, name: str) -> BasePydanticVectorStore:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.PersistentClient(
        path=str(maker.folder / "chroma"),
        settings=chromadb.Settings(anonymized_telemetry=False),
    )
    return ChromaVectorStore(client.get_or_create_collection(name, embedding_function=None))


#: What makes a store of each kind; ``None`` for our own.
MAKERS: dict[str, Callable[[StoreMaker, str], BasePydanticVectorStore] | None] = {
    "ours": None,
    "qdrant": _qdrant,
    "qdrant-hybrid": _qdrant_hybrid,
    "chroma": _chroma,
    "chroma-server": _chroma_server,
    "pgvector": _pgvector,
    "pgvector-hybrid": _pgvector_hybrid,
    "pgvector-hnsw": _pgvector_hnsw,
}

#: The fixture that gives the server of a kind that has one.
SERVER_OF = {
    kind: "postgres" if kind.startswith("pgvector") else "chroma"
    for kind in MAKERS
    if kind.startswith("pgvector") or kind == "chroma-server"
}
