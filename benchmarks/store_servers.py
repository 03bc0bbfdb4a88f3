"""Our store beside pgvector and Qdrant's local mode, as a knowledge base meets them.

    make test-integration                                          # makes the environment
    .venv-integration/bin/python benchmarks/store_servers.py       # 20,000 nodes
    .venv-integration/bin/python benchmarks/store_servers.py --help  # other sizes, some stores

The nodes and vectors are those of `store_size.py`. Every store but ours is asked through its
register (`RegisteredVectorStore`), as a knowledge base asks it, one question at a time. "Recall" is
the share of the true 10 nearest that is found, by a comparison with all vectors. PostgreSQL is
started here, with fsync and the shared buffers named, and its index is built before the nodes come,
as LlamaIndex's package does it. Qdrant's local mode compares with all vectors in Python and keeps
them in memory; a Qdrant server is another thing and was not to be had. Build, size and questions
of one store are measured before the next one's turn; only the rounds of questions alternate. The
first number of a size on disk is that of the folder, the second that of the table with its indexes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.vector_stores.types import VectorStoreQuery
from measuring import print_conditions, print_table
from store_size import (
    DIMENSIONS,
    QUESTIONS_BLOCK,
    TOP_K,
    blocks,
    exact,
    filters,
    nodes,
    recall,
    size_mb,
    vectors_of,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from phi3_industry import FaissSQLiteVectorStore
from phi3_industry.vector_stores.others import RegisteredVectorStore
from postgres_server import PostgresServer

POSTGRES = "-c shared_buffers=1GB -c maintenance_work_mem=1GB -c max_wal_size=4GB"
HNSW = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}
SCAN = {"connect_args": {"options": "-c hnsw.iterative_scan=strict_order"}}
SITES_OF_NARROW_FILTER = "site 3, year 2003: 1 node in 100"


class Bench:
    """The stores under measurement and what they need."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self.opened = opened
        self._server: PostgresServer | None = None

    @property
    def server(self) -> PostgresServer:
        """PostgreSQL, started when it is first needed."""
        if self._server is None:
            self._server = PostgresServer(POSTGRES)
            self.opened.callback(self._server.remove)
        return self._server

    def _ours(self) -> Any:
        return self.opened.enter_context(FaissSQLiteVectorStore(self.folder / "ours"))

    def _qdrant(self) -> Any:
        import qdrant_client
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        client = qdrant_client.QdrantClient(":memory:")
        return self._registered("qdrant", QdrantVectorStore("kb", client=client))

    def _pgvector(self) -> Any:
        return self._postgres("pgvector")

    def _pgvector_hnsw(self) -> Any:
        return self._postgres("pgvector_hnsw", hnsw_kwargs=dict(HNSW), create_engine_kwargs=SCAN)

    def _postgres(self, name: str, **settings: Any) -> Any:
        from llama_index.vector_stores.postgres import PGVectorStore

        url = self.server.url
        store = PGVectorStore(
            connection_string=url,
            async_connection_string=url.replace("postgresql:", "postgresql+asyncpg:"),
            table_name=name,
            embed_dim=DIMENSIONS,
            use_jsonb=True,
            **settings,
        )
        self.opened.callback(lambda: store.client.dispose())
        return self._registered(name, store)

    def _registered(self, name: str, store: Any) -> Any:
        return self.opened.enter_context(RegisteredVectorStore(self.folder / name, store))

    def megabytes(self, name: str) -> str:
        """Size on disk: of the folder, and of the table with its indexes."""
        folder = size_mb(self.folder / name)
        if name == "qdrant":
            return f"{folder:.0f} + in memory"
        if not name.startswith("pgvector"):
            return f"{folder:.0f}"
        import psycopg2

        connection = psycopg2.connect(self.server.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_total_relation_size(%s)", (f"data_{name}",))
                return f"{folder:.0f} + {cursor.fetchone()[0] / 1e6:.0f}"
        finally:
            connection.close()


STORES: dict[str, Callable[[Bench], Any]] = {
    "ours": Bench._ours,
    "pgvector": Bench._pgvector,
    "pgvector_hnsw": Bench._pgvector_hnsw,
    "qdrant": Bench._qdrant,
}


def ask(store: Any, vectors: Any, **settings: Any) -> tuple[list[float], list[list[str]]]:
    """Ask one question after another; returns milliseconds and what was found."""
    taken, found = [], []
    for vector in vectors:
        query = VectorStoreQuery(
            query_embedding=vector.tolist(), similarity_top_k=TOP_K, **settings
        )
        began = time.perf_counter()
        answer = store.query(query)
        taken.append((time.perf_counter() - began) * 1e3)
        found.append(list(answer.ids))
    return taken, found


def exact_among(shape: str, count: int, questions: Any, wanted: Any) -> list[list[str]]:
    """The true nearest among the nodes of some numbers."""
    similar = [
        np.where(wanted(np.arange(first, first + len(block))), questions @ block.T, -np.inf)
        for first, block in blocks(shape, count)
    ]
    best = np.argsort(-np.hstack(similar), axis=1)[:, :TOP_K]
    return [[f"node-{number}" for number in row] for row in best]


def percentiles(milliseconds: list[float]) -> str:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return f"{p50:.1f} / {p95:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=("easy", "hard"), default="hard")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    parser.set_defaults(clock="wall")
    options = parser.parse_args()
    print_conditions(options)
    print(f"PostgreSQL: {POSTGRES}; HNSW: {HNSW}; filter: {SITES_OF_NARROW_FILTER}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ExitStack() as opened:
        measure(Bench(Path(folder), opened), options)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    shape, count = options.shape, options.nodes
    questions = vectors_of(shape, QUESTIONS_BLOCK, options.questions)
    truth = exact(shape, count, options.questions)
    filtered = exact_among(
        shape, count, questions, lambda numbers: (numbers % 20 == 3) & (numbers % 25 == 3)
    )
    stores, figures = {}, {name: {} for name in options.stores}
    for name in options.stores:
        stores[name] = STORES[name](bench)
        began = time.perf_counter()
        stores[name].add(nodes(shape, count))
        figures[name]["nodes written per s"] = f"{count / (time.perf_counter() - began):.0f}"
        stores[name].close()  # folds SQLite's log into its file; the next question opens it again
        figures[name]["MB on disk"] = bench.megabytes(name)
        ask(stores[name], questions[:5])  # builds what is built at the first question
    taken: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds):
        for name in options.stores if number % 2 == 0 else options.stores[::-1]:
            plain, found = ask(stores[name], questions)
            narrow, among = ask(stores[name], questions, filters=filters("narrow"))
            taken.setdefault((name, "plain"), []).extend(plain)
            taken.setdefault((name, "narrow"), []).extend(narrow)
            figures[name]["recall"] = f"{recall(found, truth):.3f}"
            figures[name]["recall, filtered"] = f"{recall(among, filtered):.3f}"
    for name in options.stores:
        figures[name]["query ms, p50 / p95"] = percentiles(taken[name, "plain"])
        figures[name]["filtered ms, p50 / p95"] = percentiles(taken[name, "narrow"])
    rows = list(figures[options.stores[0]])
    print_table(
        ["", *options.stores], [[row, *(figures[n][row] for n in options.stores)] for row in rows]
    )


if __name__ == "__main__":
    main()
