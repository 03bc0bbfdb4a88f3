"""Our store beside pgvector and Qdrant's local mode, as a knowledge base meets them.

    make test-integration                                          # makes the environment
    .venv-integration/bin/python benchmarks/store_servers.py       # 20,000 nodes
    .venv-integration/bin/python benchmarks/store_servers.py --million  # ours and pgvector's HNSW
    .venv-integration/bin/python benchmarks/store_servers.py --help  # other sizes, some stores

The nodes and vectors are those of `store_size.py`. Every store but ours is asked through its
register (`RegisteredVectorStore`), as a knowledge base asks it, one question at a time. "Recall" is
the share of the true 10 nearest that is found, by a comparison with all vectors. PostgreSQL is
started here, with fsync. Rows are written by LlamaIndex's package in batches of 256. Its index is
built before the rows come, as that package does it, or with `--index after` when they are there, by
the same package opening the table again. Qdrant's local mode compares with all vectors in Python
and keeps them in memory; a Qdrant server is another thing and was not to be had.

Each store has a process of its own, and nodes are made block by block, so that memory does not grow
with their number. Build, size and questions of one store are measured before the next one's turn;
only the rounds of questions alternate. The first number of a size on disk is that of the folder,
then come the table and its indexes. Memory: "client" is what the process that asks holds above
what it held before it opened the store, for ours all there is; "server" is the sum over
PostgreSQL's processes, with what they share, such as the shared buffers, counted once (PSS). Files
in the system's cache count for nobody.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from measuring import print_conditions, print_table
from store_process import Place, ask, client_mb, make_index, opening, write
from store_size import TOP_K, exact, recall

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from server_processes import MemoryWatch, server_cpu_s, server_mb

from postgres_server import PostgresServer

NARROW = "site 3, year 2003: 1 node in 100"
# HNSW's graph of a vector of 384 numbers takes 2.1 kB, and is built slowly if it does not fit
GRAPH_KB = 3


class Bench:
    """The stores under measurement, each with its process, and PostgreSQL."""

    def __init__(self, folder: Path, options: argparse.Namespace, opened: ExitStack) -> None:
        self.folder = folder
        self.options = options
        self.server: PostgresServer | None = None
        self._opened = opened
        self._processes: dict[str, ProcessPoolExecutor] = {}
        if any(name.startswith("pgvector") for name in options.stores):
            self.server = PostgresServer(options.postgres)
            opened.callback(self.server.remove)

    def place(self, name: str) -> Place:
        """What the process of a store is told."""
        server = self.server_of(name)
        told = ("shape", "questions", "phase_s", "index", "ef_search")
        return Place(
            name=name,
            folder=self.folder / name,
            url="" if server is None else server.url,
            count=self.options.nodes,
            **{key: getattr(self.options, key) for key in told},
        )

    def run(self, name: str, call: Callable[..., Any], **settings: Any) -> Any:
        """Call a function in the process of a store."""
        if name not in self._processes:
            process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self._processes[name] = self._opened.enter_context(process)
        return self._processes[name].submit(call, self.place(name), **settings).result()

    def end(self, name: str) -> None:
        """End the process of a store; the next call starts another one."""
        self._processes.pop(name).shutdown()

    def megabytes_of_table(self, name: str) -> str:
        """Size on disk of a table, and of its indexes."""
        import psycopg2

        connection = psycopg2.connect(self.place(name).url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_table_size(%s), pg_indexes_size(%s)", [f"data_{name}"] * 2
                )
                table, indexes = cursor.fetchone()
                return f"{table / 1e6:.0f} + {indexes / 1e6:.0f}"
        finally:
            connection.close()

    def build(self, name: str) -> dict[str, str]:
        """Build one store and say what that took."""
        place, server = self.place(name), self.server_of(name)
        with MemoryWatch(server) as watch:
            written, server_s = self._on_server(name, write)
            figures = {
                "nodes written per s": f"{place.count / written['s']:.0f}",
                "rows: s": f"{written['s']:.0f}",
                "rows: CPU s, client / server": f"{written['CPU s']:.0f} / {server_s}",
                "index afterwards: s": "-",
                "index afterwards: server CPU s": "-",
            }
            if place.has_index and place.index == "after":
                seconds, server_s = self._on_server(name, make_index)
                figures["index afterwards: s"] = f"{seconds:.0f}"
                figures["index afterwards: server CPU s"] = server_s
        most = "-" if server is None else f"{watch.most_mb:.0f}"
        figures["MB at most, client / server"] = f"{written['peak MB']:.0f} / {most}"
        figures["MB on disk"] = f"{written['folder MB']:.0f}"
        if server is not None:
            figures["MB on disk"] += f" + {self.megabytes_of_table(name)}"
        if name != "qdrant":
            self.end(name)
        figures["open s"] = f"{self.run(name, opening):.1f}"
        print(f"{name}: " + "; ".join(f"{what} {value}" for what, value in figures.items()))
        sys.stdout.flush()
        return figures

    def _on_server(self, name: str, call: Callable[..., Any]) -> tuple[Any, str]:
        """Call a function in a store's process; returns the server's CPU seconds as well."""
        server = self.server_of(name)
        if server is None:
            return self.run(name, call), "-"
        before = server_cpu_s(server.process_id)
        result = self.run(name, call)
        return result, f"{server_cpu_s(server.process_id) - before:.0f}"

    def server_of(self, name: str) -> PostgresServer | None:
        """PostgreSQL, if the store lies in it."""
        return self.server if name.startswith("pgvector") else None

    def memory(self, name: str) -> str:
        """What the process that asks and the server hold now, in MB."""
        server = self.server_of(name)
        of_server = "-" if server is None else f"{server_mb(server.process_id):.0f}"
        return f"{self.run(name, client_mb):.0f} / {of_server}"


STORES = ("ours", "pgvector", "pgvector_hnsw", "qdrant")


def percentiles(milliseconds: list[float]) -> str:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return f"{p50:.1f} / {p95:.1f}"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument(
        "--million",
        action="store_true",
        help="1,000,000 nodes, ours and pgvector_hnsw, its index built after the rows",
    )
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--phase-s", type=float, default=600.0, help="ask no longer in one go")
    parser.add_argument("--shape", choices=("easy", "hard"), default="hard")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument(
        "--index",
        choices=("before", "after"),
        default="before",
        help="build pgvector's HNSW index before the rows come, as LlamaIndex's package does, or "
        "after them",
    )
    parser.add_argument("--ef-search", type=int, default=40, help="of HNSW")
    parser.add_argument("--shared-buffers", default="1GB", help="PostgreSQL's (default: 1GB)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that help to build the index"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    parser.set_defaults(clock="wall")
    options = parser.parse_args()
    if options.million:
        options.nodes, options.index = 1_000_000, "after"
        options.stores = ["ours", "pgvector_hnsw"]
    options.postgres = postgres_settings(options)
    return options


def postgres_settings(options: argparse.Namespace) -> str:
    """Settings of a server that is to build an index of so many nodes in memory."""
    work_mb = max(1024, options.nodes * GRAPH_KB // 1024)
    return (
        f"-c shared_buffers={options.shared_buffers} -c maintenance_work_mem={work_mb}MB "
        f"-c max_parallel_maintenance_workers={options.workers} "
        "-c max_wal_size=4GB -c checkpoint_timeout=30min"
    )


def main() -> None:
    options = read_options()
    print_conditions(options)
    print(f"HNSW: m 16, ef_construction 64; filter: {NARROW}\n", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ExitStack() as opened:
        measure(Bench(Path(folder), options, opened), options)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    truth = {
        False: exact(options.shape, options.nodes, options.questions),
        True: exact(options.shape, options.nodes, options.questions, among=lambda n: n % 100 == 3),
    }
    figures = {name: bench.build(name) for name in options.stores}
    taken: dict[tuple[str, bool], list[float]] = {}
    for number in range(options.rounds):
        for name in options.stores if number % 2 == 0 else options.stores[::-1]:
            for narrow, kind in ((False, ""), (True, ", filtered")):
                milliseconds, found = bench.run(name, ask, narrow=narrow)
                taken.setdefault((name, narrow), []).extend(milliseconds)
                known = truth[narrow][: len(found)]
                figures[name][f"recall@{TOP_K}{kind}"] = f"{recall(found, known):.3f}"
    for name in options.stores:
        for narrow, kind in ((False, "query"), (True, "filtered query")):
            figures[name][f"{kind} ms, p50 / p95"] = percentiles(taken[name, narrow])
            figures[name][f"{kind}: questions asked"] = str(len(taken[name, narrow]))
        figures[name]["client / server MB, asking"] = bench.memory(name)
    rows = list(figures[options.stores[0]])
    print()
    print_table(
        ["", *options.stores], [[row, *(figures[n][row] for n in options.stores)] for row in rows]
    )


if __name__ == "__main__":
    main()
