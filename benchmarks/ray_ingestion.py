"""Texts embedded a second by Ray actors, against this process alone, and what more would give.

In an environment that has the extra ``ray``::

    OMP_NUM_THREADS=1 python benchmarks/ray_ingestion.py examples/plant/documents --rounds 3
    OMP_NUM_THREADS=1 python benchmarks/ray_ingestion.py DATA/cloud-awsdocs --rounds 2

Each side makes and embeds the nodes of the folder, one thread a process, into a knowledge base of
its own; the sides take turns. Of a folder with ``corpus.jsonl`` the passages are written out first,
one Markdown file for each ``doc_id``. Starting the actors, each with a model of its own, counts:
the pipeline starts them in every run. Beyond the actors that were measured, the time is modelled as
``fixed + work / actors``, with both from the two measured numbers of actors; that holds as long as
every actor has a core and the one writer keeps up, and its own rate is printed beside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from phi3_industry import KnowledgeBase, load_embedding
from phi3_industry.ray_ingestion import ray_pipeline


def main() -> None:
    """Measure, model, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", help="a folder")
    parser.add_argument("--actors", type=int, nargs=2, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as opened:
        documents = Path(options.documents)
        if (documents / "corpus.jsonl").is_file():
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            documents = _written_out(documents / "corpus.jsonl", folder)
        _measure(documents, options)


def _measure(documents: Path, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    ray.init(
        num_cpus=max(options.actors),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    embedding = load_embedding("embedded")
    seconds: dict[int, list[float]] = {0: [], **{actors: [] for actors in options.actors}}
    for _ in range(options.rounds):
        for actors, found in seconds.items():
            took, nodes, stored = _add(documents, embedding, actors)
            found.append(took)
    for actors, found in seconds.items():
        who = f"{actors} actors" if actors else "no Ray"
        print(
            f"{who:<9} {nodes / median(found):7.1f} nodes/s "
            f"({min(found):.1f}-{max(found):.1f} s for {nodes} nodes)"
        )
    print(f"writer    {nodes / stored:7.1f} nodes/s")
    _model({actors: median(found) for actors, found in seconds.items() if actors}, nodes)


def _written_out(corpus: Path, folder: Path) -> Path:
    """Write passages as files, those of a document into one."""
    pieces: dict[str, list[str]] = {}
    with corpus.open(encoding="utf-8") as lines:
        for line in lines:
            passage = json.loads(line)
            texts = pieces.setdefault(passage["metadata"]["doc_id"], [f"# {passage['title']}"])
            texts.append(passage["text"])
    for number, texts in enumerate(pieces.values()):
        (folder / f"{number}.md").write_text("\n\n".join(texts), encoding="utf-8")
    return folder


def _add(documents: Path, embedding: Any, actors: int) -> tuple[float, int, float]:
    """Give the seconds, the nodes, and the seconds that writing them took."""
    with (
        tempfile.TemporaryDirectory() as name,
        KnowledgeBase.open(Path(name), embed_model=embedding) as base,
    ):
        pipeline = None
        if actors:
            pipeline = ray_pipeline("embedded", parser=base.node_parser, actors=actors)
        store = base.vector_store
        replace, written = store.replace_document, [0.0]

        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return replace(*args)
            finally:
                written[0] += time.perf_counter() - began

        object.__setattr__(store, "replace_document", timed)
        began = time.perf_counter()
        report = base.add(documents, pipeline=pipeline)
        return time.perf_counter() - began, report.nodes, written[0]


def _model(seconds: dict[int, float], nodes: int) -> None:
    (few, slow), (many, fast) = sorted(seconds.items())
    work = max(0.0, (slow - fast) / (1 / few - 1 / many))
    fixed = max(0.0, slow - work / few)
    print(f"model     {fixed:.1f} s + {work:.1f} s / actors")
    for actors in (4, 8, 16):
        print(f"{actors:>2} actors, modelled {nodes / (fixed + work / actors):7.1f} nodes/s")


if __name__ == "__main__":
    main()
