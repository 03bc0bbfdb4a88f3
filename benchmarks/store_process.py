"""What `store_servers.py` lets each store do, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from store_size import (
    BLOCK,
    DIMENSIONS,
    QUESTIONS_BLOCK,
    TOP_K,
    filters,
    nodes,
    peak_mb,
    resident_mb,
    size_mb,
    vectors_of,
)

__all__ = ["Place", "ask", "client_mb", "make_index", "opening", "write"]

SCAN = {"connect_args": {"options": "-c hnsw.iterative_scan=strict_order"}}
FEWEST_QUESTIONS = 5


@dataclass(frozen=True, kw_only=True)
class Place:
    """One store under measurement, as its process is told of it.

    Attributes:
        name: Which store.
        folder: Where it, or its register, lies.
        url: Where PostgreSQL is; empty if it is not needed.
        shape: The kind of vectors.
        count: The number of nodes.
        questions: The number of questions.
        phase_s: No question is begun later than these seconds after the first.
        index: When pgvector's index is built.
        ef_search: What `hnsw.ef_search` is.
    """

    name: str
    folder: Path
    url: str
    shape: str
    count: int
    questions: int
    phase_s: float
    index: str
    ef_search: int

    @property
    def has_index(self) -> bool:
        """Whether it is searched by HNSW."""
        return self.name == "pgvector_hnsw"


_opened: dict[str, Any] = {}


def load(place: Place) -> None:
    """Load the packages that a store needs; that is no part of opening it."""
    import faiss  # noqa: F401

    import phi3_industry.vector_stores.others  # noqa: F401

    if place.url:
        import asyncpg  # noqa: F401
        import llama_index.vector_stores.postgres  # noqa: F401
        import psycopg2  # noqa: F401


def open_store(place: Place, *, hnsw: bool) -> Any:
    """Open the store, or begin it; an index that is asked for and lacks is built now."""
    from phi3_industry import FaissSQLiteVectorStore
    from phi3_industry.vector_stores.others import RegisteredVectorStore

    if place.name == "ours":
        return FaissSQLiteVectorStore(place.folder)
    inner = qdrant_store() if place.name == "qdrant" else postgres_store(place, hnsw=hnsw)
    return RegisteredVectorStore(place.folder, inner)


def qdrant_store() -> Any:
    import qdrant_client
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    return QdrantVectorStore(
        "kb", client=qdrant_client.QdrantClient(":memory:"), index_doc_id=False
    )


def postgres_store(place: Place, *, hnsw: bool) -> Any:
    from llama_index.vector_stores.postgres import PGVectorStore

    settings: dict[str, Any] = {}
    if hnsw:
        index = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": place.ef_search}
        settings = {"hnsw_kwargs": index, "create_engine_kwargs": SCAN}
    return PGVectorStore(
        connection_string=place.url,
        async_connection_string=place.url.replace("postgresql:", "postgresql+asyncpg:"),
        table_name=place.name,
        embed_dim=DIMENSIONS,
        use_jsonb=True,
        **settings,
    )


def write(place: Place) -> dict[str, float]:
    """Write all nodes, a block at a time, and build the index at once if it comes before them."""
    load(place)
    before, began, cpu = resident_mb(), time.perf_counter(), time.process_time()
    store = open_store(place, hnsw=place.has_index and place.index == "before")
    remaining: Iterator[Any] = nodes(place.shape, place.count)
    while block := list(islice(remaining, BLOCK)):
        store.add(block)
    if place.name == "qdrant":
        _opened["qdrant"] = store, before  # its memory is all there is of it
    else:
        store.close()
    return {
        "s": time.perf_counter() - began,
        "CPU s": time.process_time() - cpu,
        "peak MB": peak_mb() - before,
        "folder MB": size_mb(place.folder),
    }


def make_index(place: Place) -> float:
    """Open the store so that its index is built; returns the seconds that takes."""
    load(place)
    began = time.perf_counter()
    open_store(place, hnsw=True).close()
    return time.perf_counter() - began


def opening(place: Place) -> float:
    """Open the store, and ask what builds whatever is built at the first questions.

    Returns:
        The seconds of opening alone.
    """
    load(place)
    before, began = resident_mb(), time.perf_counter()
    if place.name not in _opened:
        _opened[place.name] = open_store(place, hnsw=place.has_index), before
    seconds = time.perf_counter() - began
    ask(place, narrow=False, warm_up=True)
    return seconds


def ask(
    place: Place, *, narrow: bool, warm_up: bool = False
) -> tuple[list[float], list[list[str]]]:
    """Ask one question after another; returns milliseconds and what was found."""
    from llama_index.core.vector_stores.types import VectorStoreQuery

    store, _ = _opened[place.name]
    vectors = vectors_of(place.shape, QUESTIONS_BLOCK, place.questions)
    settings = {"filters": filters("narrow")} if narrow else {}
    taken: list[float] = []
    found: list[list[str]] = []
    until = time.perf_counter() + place.phase_s
    for vector in vectors[:FEWEST_QUESTIONS] if warm_up else vectors:
        if time.perf_counter() > until and len(taken) >= FEWEST_QUESTIONS:
            break
        query = VectorStoreQuery(
            query_embedding=vector.tolist(), similarity_top_k=TOP_K, **settings
        )
        began = time.perf_counter()
        answer = store.query(query)
        taken.append((time.perf_counter() - began) * 1e3)
        found.append(list(answer.ids))
    return taken, found


def client_mb(place: Place) -> float:
    """What this process holds above what it held before it opened the store."""
    return resident_mb() - _opened[place.name][1]
