r"""How well passages are found: LlamaIndex's retrievers and ours, on the same nodes and vectors.

    python benchmarks/retrieval_quality.py DATA/medical-covidqa DATA/finance-tatqa \
        DATA/cloud-awsdocs

A data set is a folder with ``corpus.jsonl`` (``{"id", "title", "text", "metadata": {"doc_id"}}``,
one passage a line) and questions files with ``gold_ids``. Fitting uses ``questions.train.jsonl`` or
nothing but the corpus; all figures are of ``questions.dev.jsonl``. Every system gets the same
nodes: the title is their context header, the document their source. Failure@20 is the share of
questions of which no gold passage is among the first 20. Intervals are paired bootstraps that
draw whole documents with their questions.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cached_embedding import CachedEmbedding
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from measuring import print_table

from phi3_industry.evaluation.statistics import paired_bootstrap
from phi3_industry.grounding.questions import load_questions
from phi3_industry.retrievers import FusionWeights, HybridRetriever
from phi3_industry.vector_stores import FaissSQLiteVectorStore

DEPTH = 20
DENSE, WORDS = "LlamaIndex dense", "LlamaIndex BM25"
#: Of LlamaIndex's ways to fuse, reciprocal ranks and its scaled scores.
FUSIONS = {
    "LlamaIndex fusion, RRF": "reciprocal_rerank",
    "LlamaIndex fusion, relative scores": "relative_score",
}
Pairs = list[tuple[str, tuple[str, ...]]]
Find = Callable[[str], list[str]]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A corpus and its questions, each with the ids of its gold passages."""

    name: str
    nodes: list[TextNode]
    train: Pairs
    dev: Pairs
    documents: dict[str, str]


def load(folder: Path, *, embed_model: CachedEmbedding, limit: int | None, seed: int) -> DataSet:
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").split("\n")
    nodes = [to_node(json.loads(line)) for line in lines if line.strip()]
    texts = [node.get_content("embed") for node in nodes]
    for node, vector in zip(nodes, embed_model.get_text_embedding_batch(texts), strict=True):
        node.embedding = vector
    train, dev = (pairs(folder / f"questions.{part}.jsonl") for part in ("train", "dev"))
    if limit is not None:
        drawn = np.random.default_rng(seed).permutation(len(dev))[:limit]
        dev = [dev[place] for place in sorted(drawn)]
    embed_model.get_text_embedding_batch([question for question, _ in [*train, *dev]])
    embed_model.save()
    documents = {node.node_id: node.ref_doc_id or node.node_id for node in nodes}
    return DataSet(name=folder.name, nodes=nodes, train=train, dev=dev, documents=documents)


def to_node(record: dict[str, Any]) -> TextNode:
    header = {"context_header": record["title"]} if record["title"] else {}
    document = record["metadata"].get("doc_id", record["id"])
    return TextNode(
        id_=record["id"],
        text=record["text"],
        metadata=header,
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
    )


def pairs(path: Path) -> Pairs:
    if not path.exists():
        return []
    questions = load_questions(path)
    return [(q.question, q.gold_ids) for q in questions if q.answerable and q.gold_ids]


def llama_index_systems(data: DataSet, embed_model: CachedEmbedding) -> dict[str, Find]:
    from llama_index.retrievers.bm25 import BM25Retriever

    index = VectorStoreIndex(nodes=data.nodes, embed_model=embed_model)
    dense = index.as_retriever(similarity_top_k=DEPTH)
    words = BM25Retriever.from_defaults(nodes=data.nodes, similarity_top_k=DEPTH)
    systems: dict[str, Any] = {DENSE: dense, WORDS: words}
    for name, mode in FUSIONS.items():
        systems[name] = QueryFusionRetriever(
            [dense, words],
            llm=MockLLM(),
            mode=mode,  # type: ignore[arg-type]  # the enumeration's value
            num_queries=1,
            similarity_top_k=DEPTH,
            use_async=False,
        )
    return {name: finder(system) for name, system in systems.items()}


def finder(retriever: Any) -> Find:
    return lambda question: [hit.node.node_id for hit in retriever.retrieve(question)]


def our_systems(
    data: DataSet, store: FaissSQLiteVectorStore, embed_model: CachedEmbedding, *, seed: int
) -> dict[str, Find]:
    def retriever(fusion: FusionWeights | None = None, **settings: Any) -> HybridRetriever:
        if fusion is not None:
            settings["weights"] = fusion
        return HybridRetriever(store, embed_model=embed_model, similarity_top_k=DEPTH, **settings)

    systems = {
        "ours dense": retriever(FusionWeights.only("dense")),
        "ours lexical": retriever(FusionWeights.only("lexical")),
        "ours hybrid, default": retriever(),
        "ours hybrid, fitted": retriever(),
        "ours hybrid, self-fitted": retriever(),
    }
    if data.train:
        print(systems["ours hybrid, fitted"].fit(data.train, seed=seed))
    else:
        del systems["ours hybrid, fitted"]
    print(systems["ours hybrid, self-fitted"].fit(seed=seed), flush=True)
    embed_model.save()
    return {name: finder(system) for name, system in systems.items()}


def reranked(store: FaissSQLiteVectorStore, embed_model: CachedEmbedding) -> dict[str, Find]:
    """The default hybrid, and the same with its 20 best ordered by the embedded model."""
    from phi3_industry import Phi3LLM
    from phi3_industry.grounding.prompt import DEFAULT_PROMPT
    from phi3_industry.retrievers import Phi3Rerank

    reranker = Phi3Rerank.from_grounding_prompt(Phi3LLM(model="embedded"), DEFAULT_PROMPT)
    settings: dict[str, Any] = {"embed_model": embed_model, "similarity_top_k": DEPTH}
    settings["candidate_count"] = DEPTH
    plain = HybridRetriever(store, **settings)
    judged = HybridRetriever(store, **settings, reranker=reranker)
    return {"ours hybrid, 20 candidates": finder(plain), "the same + rerank": finder(judged)}


def score(found: Sequence[str], gold: Sequence[str]) -> tuple[float, float, float]:
    """nDCG@10, hit@1 and failure@20."""
    right = [node_id in gold for node_id in found]
    gain = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(right[:10]))
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(len(gold), 10)))
    return gain / ideal, float(any(right[:1])), float(not any(right[:DEPTH]))


def report(data: DataSet, scores: dict[str, Any], *, seed: int) -> dict[str, float]:
    """Print the table of a set; return nDCG@10 of ours less that of LlamaIndex's best."""
    best = max((DENSE, WORDS, *FUSIONS), key=lambda name: scores[name][:, 0].mean())
    print(f"\n{data.name}: {len(data.dev)} questions, {len(data.nodes)} passages; peer: {best}")
    rows, gains = [], {}
    clusters = [data.documents[gold[0]] for _, gold in data.dev]
    for name, values in scores.items():
        difference = 100 * (values[:, 0] - scores[best][:, 0])
        interval = paired_bootstrap(difference, [0.0] * len(difference), clusters, seed=seed)
        gains[name] = float(difference.mean())
        fewer = 1 - values[:, 2].mean() / max(scores[DENSE][:, 2].mean(), 1e-9)
        means = [f"{mean:.3f}" for mean in values.mean(axis=0)]
        gain = f"{gains[name]:+.1f} [{interval.low:+.1f}..{interval.high:+.1f}]"
        rows.append([name, *means, gain, f"{100 * fewer:+.0f} %"])
    columns = [
        "nDCG@10",
        "hit@1",
        "failure@20",
        "points over the peer",
        "fewer failures than dense",
    ]
    print_table(["system", *columns], rows)
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("--limit", type=int, help="development questions of each set, drawn")
    parser.add_argument("--rerank", type=int, default=0, help="questions to rerank for")
    parser.add_argument("--seed", type=int, default=0)
    cache = Path(tempfile.gettempdir()) / "phi3-industry-benchmark-vectors"
    parser.add_argument("--cache", type=Path, default=cache, help="folder for vectors")
    arguments = parser.parse_args()
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    print(f"seed {arguments.seed}, limit {arguments.limit}")
    gains: list[dict[str, float]] = []
    for folder in arguments.data:
        embed_model = CachedEmbedding(arguments.cache / f"{folder.name}.npz")
        data = load(folder, embed_model=embed_model, limit=arguments.limit, seed=arguments.seed)
        systems = llama_index_systems(data, embed_model)
        with (
            tempfile.TemporaryDirectory() as place,
            FaissSQLiteVectorStore(Path(place) / "store") as store,
        ):
            store.add(data.nodes)
            systems |= our_systems(data, store, embed_model, seed=arguments.seed)
            scores = {
                name: np.array([score(find(question), gold) for question, gold in data.dev])
                for name, find in systems.items()
            }
            gains.append(report(data, scores, seed=arguments.seed))
            if arguments.rerank:
                drawn = np.random.default_rng(arguments.seed).permutation(len(data.dev))
                few = [data.dev[place] for place in sorted(drawn[: arguments.rerank])]
                rows = []
                for name, find in reranked(store, embed_model).items():
                    means = np.mean([score(find(question), gold) for question, gold in few], axis=0)
                    rows.append([name, str(len(few)), *(f"{mean:.3f}" for mean in means)])
                print_table(["system", "questions", "nDCG@10", "hit@1", "failure@20"], rows)
    if len(gains) > 1:
        shared = [name for name in gains[0] if all(name in gain for gain in gains)]
        rows = [
            [
                name,
                f"{np.mean([g[name] for g in gains]):+.1f}",
                f"{min(g[name] for g in gains):+.1f}",
            ]
            for name in shared
        ]
        print_table(["nDCG@10 over LlamaIndex's best, points", "mean", "least"], rows)


if __name__ == "__main__":
    main()
