"""Documents enter the knowledge base through the processes of a real Ray cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from phi3_industry import KnowledgeBase, load_embedding
from phi3_industry.ray_ingestion import ray_pipeline

DOCUMENTS = Path(__file__).parents[2] / "examples" / "plant" / "documents"

# Ray leaves sockets and files to its own processes when it is shut down
pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray  # its environment is that of make test-integration

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def embedding() -> Any:
    return load_embedding("embedded")


@pytest.fixture(scope="module")
def local(embedding: Any, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    base = KnowledgeBase.open(tmp_path_factory.mktemp("local"), embed_model=embedding)
    base.add(DOCUMENTS)
    return base


def contents(base: KnowledgeBase) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Give nodes without their vectors, and the vectors, by id."""
    nodes = {node.node_id: node.to_dict() for node in base.vector_store.get_nodes()}
    return nodes, {name: node.pop("embedding") for name, node in nodes.items()}


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def assert_same(found: KnowledgeBase, expected: KnowledgeBase) -> None:
    (nodes, vectors), (own, own_vectors) = contents(found), contents(expected)
    assert len(own) > 100
    assert nodes == own
    assert all(vectors[name] == pytest.approx(own_vectors[name], abs=1e-5) for name in own)
    assert found.vector_store.document_hashes() == expected.vector_store.document_hashes()


def test_ray_writes_the_nodes_of_a_single_process(
    local: KnowledgeBase, embedding: Any, tmp_path: Path
) -> None:
    with KnowledgeBase.open(tmp_path, embed_model=embedding) as base:
        pipeline = ray_pipeline("embedded", parser=base.node_parser, actors=1)
        report = base.add(DOCUMENTS, pipeline=pipeline)
        assert len(report.added) > 10
        assert_same(base, local)
        again = base.add(DOCUMENTS, pipeline=pipeline)
        assert (again.nodes, len(again.unchanged)) == (0, len(report.added))


def test_a_killed_worker_loses_nothing(
    local: KnowledgeBase, embedding: Any, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        """Kill the youngest worker that computes once two have been made: one that embeds."""
        limit = time.monotonic() + 500
        while not killed and time.monotonic() < limit:
            # Ray names a worker after what it does
            names = {process: " ".join(command(process)) for process in psutil.process_iter()}
            made = [p for p, n in names.items() if "MapWorker" in n and "__init__" not in n]
            at_work = [p for p in made if ".submit" in names[p]]
            if len(made) > 1 and at_work:
                youngest = max(at_work, key=psutil.Process.create_time)
                os.kill(youngest.pid, signal.SIGKILL)
                killed.append(youngest.pid)
            time.sleep(0.05)

    with KnowledgeBase.open(tmp_path, embed_model=embedding) as base:
        pipeline = ray_pipeline(
            "embedded", parser=base.node_parser, actors=2, texts_together=16, files_together=2
        )
        killer = threading.Thread(target=kill_one)
        killer.start()
        base.add(DOCUMENTS, pipeline=pipeline)
        killer.join()
        assert len(killed) == 1
        assert_same(base, local)
