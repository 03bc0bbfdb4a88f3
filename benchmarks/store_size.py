"""How a store of 100,000 or 1,000,000 nodes opens, answers, grows, and what it takes.

    python benchmarks/store_size.py                    # 100,000 nodes, beside LlamaIndex's own
    python benchmarks/store_size.py --million          # 1,000,000 nodes, ours alone
    python benchmarks/store_size.py --nodes 2000       # a quick look

Each node has about 200 tokens of text, some metadata and 384 numbers. Two shapes of vectors:
"easy" is 2,000 clusters; "hard" is a surface of 40 dimensions with noise, which has no clusters.
LlamaIndex's side is a ``StorageContext`` on JSON files with a ``FaissVectorStore``, as its
documentation has it. Each measurement runs in a process of its own, the sides in turns; both are
asked through ``index.as_retriever()`` with ready vectors, so that no embedding model counts.
Resident memory is given above that of the same process before it opened anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

DIMENSIONS = 384
SHAPES = ("easy", "hard")
BLOCK = 5_000
TOP_K = 10
NODES_OF_A_DOCUMENT = 20
QUESTIONS_BLOCK = 10**6
Vectors = npt.NDArray[np.float32]


# What is stored


def vectors_of(shape: str, block: int, count: int) -> Vectors:
    """The vectors of a block ``(count, 384)``, of length 1."""
    fixed, own = np.random.default_rng(7), np.random.default_rng([8, block])
    if shape == "easy":
        centres = fixed.standard_normal((2_000, DIMENSIONS), dtype=np.float32)
        points = centres[own.integers(0, len(centres), count)]
        points = points + 0.5 * own.standard_normal((count, DIMENSIONS), dtype=np.float32)
    else:
        basis = fixed.standard_normal((40, DIMENSIONS), dtype=np.float32)
        points = own.standard_normal((count, 40), dtype=np.float32) @ basis
        points = points + 0.3 * own.standard_normal((count, DIMENSIONS), dtype=np.float32)
    unit: Vectors = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def blocks(shape: str, count: int) -> Iterator[tuple[int, Vectors]]:
    for first in range(0, count, BLOCK):
        yield first, vectors_of(shape, first // BLOCK, BLOCK)[: count - first]


def nodes(shape: str, count: int, *, start: int = 0) -> Iterator[Any]:
    """Nodes one after another; never more than a block of vectors is in memory."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in "lmnrst"])
    for first, vectors in blocks(shape, start + count):
        numbers = np.random.default_rng([9, first])
        # common words are common: ranks fall off as in natural text
        draws = (len(words) * numbers.random((len(vectors), 150)) ** 3).astype(int)
        for offset, vector in enumerate(vectors):
            number = first + offset
            if number < start:
                continue
            document = f"manual-{number // NODES_OF_A_DOCUMENT}.pdf"
            yield TextNode(
                id_=f"node-{number}",
                text=" ".join(words[draws[offset]]) + f" P-{number}",
                embedding=vector.tolist(),
                metadata={
                    "file_name": document,
                    "title": f"Manual {number // NODES_OF_A_DOCUMENT}",
                    "site": f"site {number % 20}",
                    "year": 2000 + number % 25,
                },
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
            )


def filters(kind: str, number: int = 3) -> Any:
    from llama_index.core.vector_stores.types import (
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )

    if kind == "narrow":  # 1 node in 100
        return MetadataFilters(
            filters=[
                MetadataFilter(key="site", value=f"site {number % 20}"),
                MetadataFilter(key="year", value=2000 + number % 100 % 25),
            ]
        )
    sites = [f"site {number}" for number in range(5)]  # 1 in 4
    return MetadataFilters(
        filters=[MetadataFilter(key="site", value=sites, operator=FilterOperator.IN)]
    )


# Measuring, each in a process of its own


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def peak_mb() -> float:
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) / 1e3


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def embedding() -> Any:
    from llama_index.core import MockEmbedding

    return MockEmbedding(embed_dim=DIMENSIONS)


def our_store(folder: Path, **settings: Any) -> Any:
    from phi3_industry import FaissSQLiteVectorStore

    return FaissSQLiteVectorStore(folder, **settings)


def open_ours(folder: Path) -> Any:
    from llama_index.core import VectorStoreIndex

    store = our_store(folder, read_only=True)
    return VectorStoreIndex.from_vector_store(store, embed_model=embedding())


def open_llamaindex(folder: Path) -> Any:
    from llama_index.core import StorageContext, load_index_from_storage
    from llama_index.vector_stores.faiss import FaissVectorStore

    vectors = FaissVectorStore.from_persist_dir(str(folder))
    context = StorageContext.from_defaults(vector_store=vectors, persist_dir=str(folder))
    return load_index_from_storage(context, embed_model=embedding())


OPEN: dict[str, Callable[[Path], Any]] = {"ours": open_ours, "llamaindex": open_llamaindex}


def build(side: str, folder: Path, shape: str, count: int) -> dict[str, float]:
    before, began, cpu = resident_mb(), time.perf_counter(), time.process_time()
    if side == "ours":
        with our_store(folder) as store:
            store.add(nodes(shape, count))
            added, cpu_added = time.perf_counter() - began, time.process_time() - cpu
    else:
        import faiss
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.vector_stores.faiss import FaissVectorStore

        vectors = FaissVectorStore(faiss_index=faiss.IndexFlatIP(DIMENSIONS))
        context = StorageContext.from_defaults(vector_store=vectors)
        ready = list(nodes(shape, count))
        VectorStoreIndex(ready, storage_context=context, embed_model=embedding())
        added, cpu_added = time.perf_counter() - began, time.process_time() - cpu
        context.persist(str(folder))
    return {
        "added per s": count / added,
        "added per CPU s": count / cpu_added,
        "build s": time.perf_counter() - began,
        "build CPU s": time.process_time() - cpu,
        "peak MB": peak_mb() - before,
        "disk MB": size_mb(folder),
    }


def ask(side: str, folder: Path, shape: str, questions: int) -> dict[str, Any]:
    # loaded by both sides, and no part of opening
    import faiss  # noqa: F401
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import QueryBundle
    from llama_index.vector_stores.faiss import FaissVectorStore  # noqa: F401

    from phi3_industry import FaissSQLiteVectorStore  # noqa: F401

    vectors = vectors_of(shape, QUESTIONS_BLOCK, questions)
    VectorStoreIndex([], embed_model=embedding())  # LlamaIndex loads its tokenizer once
    before, began, cpu = resident_mb(), time.perf_counter(), time.process_time()
    index = OPEN[side](folder)
    figures: dict[str, Any] = {
        "open s": time.perf_counter() - began,
        "open CPU s": time.process_time() - cpu,
    }
    found: list[list[str]] = []

    def times(**settings: Any) -> list[float]:
        shown_settings = {k: v for k, v in settings.items() if k != "new"}
        retriever = index.as_retriever(similarity_top_k=TOP_K, **shown_settings)
        seconds = []
        for number, vector in enumerate(vectors):
            if "new" in settings:  # a filter that was not asked for before
                new = {"filters": filters("narrow", number)}
                retriever = index.as_retriever(similarity_top_k=TOP_K, **new)
            bundle = QueryBundle("", embedding=vector.tolist())
            start = time.perf_counter()
            hits = retriever.retrieve(bundle)
            seconds.append(time.perf_counter() - start)
            if not settings:
                found.append([hit.node.node_id for hit in hits])
        return seconds

    began = time.perf_counter()
    index.as_retriever(similarity_top_k=TOP_K).retrieve(
        QueryBundle("", embedding=vectors[0].tolist())
    )
    figures["first query s"] = time.perf_counter() - began
    plain = times()
    figures |= percentiles("query", plain)
    figures["MB"] = resident_mb() - before
    if side == "ours":
        figures |= percentiles("narrow filter", times(filters=filters("narrow"))[1:])
        figures |= percentiles("wide filter", times(filters=filters("wide"))[1:])
        figures |= percentiles("filter never asked before", times(new=True)[:50])
        words = {"vector_store_query_mode": "hybrid"}
        figures |= percentiles("hybrid, no words", times(**words))
        figures["MB with filters"] = resident_mb() - before
        figures["index"] = index.vector_store.index_kind
        figures["measured recall"] = index.vector_store.index_recall
    figures["found"] = found
    return figures


def change(side: str, folder: Path, shape: str, count: int) -> dict[str, float]:
    """Add 1,000 nodes in tens and delete 50 documents, in an open and warm store."""
    if side != "ours":
        return {}
    more = list(nodes(shape, 1_000, start=count))
    with our_store(folder) as store:
        store.add(more[:10])
        began = time.perf_counter()
        for first in range(10, 1_000, 10):
            store.add(more[first : first + 10])
        added = time.perf_counter() - began
        began = time.perf_counter()
        for number in range(50):
            store.delete(f"manual-{number}.pdf")
        deleted = time.perf_counter() - began
        began = time.perf_counter()
        store.delete_nodes([node.node_id for node in more])
        restored = time.perf_counter() - began
    return {
        "tens added, nodes per s": 990 / added,
        "documents deleted per s": 50 / deleted,
        "nodes deleted at once per s": 1_000 / restored,
    }


def exact(
    shape: str,
    count: int,
    questions: int,
    *,
    among: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]] | None = None,
) -> list[list[str]]:
    """The true nearest, block by block; of the nodes whose numbers pass, if that is asked."""
    vectors = vectors_of(shape, QUESTIONS_BLOCK, questions)
    best_values = np.full((questions, TOP_K), -np.inf, dtype=np.float32)
    best = np.zeros((questions, TOP_K), dtype=np.int64)
    for first, block in blocks(shape, count):
        own = np.arange(first, first + len(block))
        if among is not None:
            block, own = block[among(own)], own[among(own)]
        values = np.hstack([best_values, vectors @ block.T])
        numbers = np.hstack([best, np.broadcast_to(own, (questions, len(own)))])
        order = np.argsort(-values, axis=1)[:, :TOP_K]
        best_values = np.take_along_axis(values, order, axis=1)
        best = np.take_along_axis(numbers, order, axis=1)
    return [[f"node-{number}" for number in row] for row in best]


def percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(np.array(seconds) * 1e3, [50, 95])
    return {f"{name} p50 ms": float(p50), f"{name} p95 ms": float(p95)}


# Putting it together


def in_own_process(what: str, side: str, folder: Path, shape: str, number: int) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, __file__, "--child", what, side, str(folder), shape, str(number)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SystemExit(f"{what} of {side} failed:\n{finished.stderr}")
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def recall(found: list[list[str]], truth: list[list[str]]) -> float:
    shares = [len(set(a) & set(b)) / TOP_K for a, b in zip(found, truth, strict=True)]
    return float(np.mean(shares))


def compare(shape: str, sides: list[str], arguments: argparse.Namespace, folder: Path) -> None:
    print(f"\n{shape}: {arguments.nodes:,} nodes of {DIMENSIONS} dimensions")
    table: dict[str, dict[str, list[Any]]] = {side: {} for side in sides}

    def note(side: str, figures: dict[str, Any]) -> None:
        for name, value in figures.items():
            table[side].setdefault(name, []).append(value)

    for side in sides:
        note(side, in_own_process("build", side, folder / side, shape, arguments.nodes))
    truth = exact(shape, arguments.nodes, arguments.questions)
    for number in range(arguments.rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            figures = in_own_process("ask", side, folder / side, shape, arguments.questions)
            figures["recall@10"] = recall(figures.pop("found"), truth)
            note(side, figures)
    for side in sides:
        note(side, in_own_process("change", side, folder / side, shape, arguments.nodes))
    names = list(dict.fromkeys(name for side in sides for name in table[side]))
    print(f"{'':30}" + "".join(f"{side:>14}" for side in sides) + f"{'ratio':>12}")
    for name in names:
        values = [table[side].get(name) for side in sides]
        print(f"{name:30}" + "".join(f"{shown(value):>14}" for value in values) + ratio(values))


def shown(values: list[Any] | None) -> str:
    if values is None:
        return "-"
    return values[-1] if isinstance(values[-1], str) else f"{median(values):,.4g}"


def ratio(values: list[Any]) -> str:
    """The other side's figure over ours, round by round, so that above 1 ours is the smaller."""
    if len(values) < 2 or None in values or isinstance(values[0][0], str):
        return ""
    pairs = zip(*values, strict=True)
    return f"{median(theirs / ours for ours, theirs in pairs if ours):12.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--million", action="store_true", help="1,000,000 nodes, ours alone")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--side", choices=sorted(OPEN), action="append")
    parser.add_argument("--folder", type=Path, help="where to build; a temporary one if not given")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, side, folder, shape, number = arguments.child
        do = {"build": build, "ask": ask, "change": change}[what]
        print(json.dumps(do(side, Path(folder), shape, int(number))))
        return
    if arguments.million:
        arguments.nodes, arguments.side = 1_000_000, ["ours"]
    sides = arguments.side or ["ours", "llamaindex"]
    for shape in arguments.shape or SHAPES:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            compare(shape, sides, arguments, Path(folder))


if __name__ == "__main__":
    main()
