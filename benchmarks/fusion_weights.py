"""How much the words and how much the meaning should count in hybrid retrieval.

For each data set the nodes are ranked once by dense similarity and once by BM25; the rankings are
fused with several weights. Printed are hit@3 and nDCG@10 of the questions that have gold passages.

    python benchmarks/fusion_weights.py examples/plant:questions.train.jsonl \
        DATA/medical-covidqa:questions.train.jsonl

A data set is a folder and a questions file in it. The folder holds either ``documents/``, which are
read as a knowledge base reads them, or ``corpus.jsonl`` with one passage a line
(``{"id", "title", "text"}``), each of which becomes one node.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

from llama_index.core.schema import NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from phi3_industry import KnowledgeBase, load_embedding
from phi3_industry.grounding.questions import Question, load_questions
from phi3_industry.retrievers.fusion import reciprocal_rank_fusion

WEIGHTS = ((1.0, 0.0), (1.0, 1.0), (0.7, 1.0), (0.5, 1.0), (0.3, 1.0), (0.2, 1.0), (0.0, 1.0))
CANDIDATES = 30


def index(folder: Path, knowledge_base: KnowledgeBase) -> None:
    if (folder / "documents").is_dir():
        knowledge_base.add(folder / "documents")
        return
    nodes = []
    for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        node = TextNode(id_=record["id"], text=f"{record['title']}\n{record['text']}".strip())
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=record["id"])
        nodes.append(node)
    vectors = knowledge_base.embed_model.get_text_embedding_batch([node.text for node in nodes])
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector
    knowledge_base.vector_store.add(nodes)


def rankings(question: Question, knowledge_base: KnowledgeBase) -> list[list[TextNode]]:
    bundle = QueryBundle(question.question)
    vector = knowledge_base.embed_model.get_query_embedding(bundle.query_str)
    found = []
    for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.TEXT_SEARCH):
        query = VectorStoreQuery(
            query_str=bundle.query_str,
            query_embedding=vector,
            similarity_top_k=CANDIDATES,
            sparse_top_k=CANDIDATES,
            mode=mode,
        )
        found.append(list(knowledge_base.vector_store.query(query).nodes or []))
    return found


def score(ranked: list[TextNode], gold: tuple[str, ...]) -> tuple[float, float]:
    """Hit@3 and nDCG@10, where any gold passage counts as one."""
    right = [
        bool({node.node_id, node.ref_doc_id, node.metadata.get("source_id")} & set(gold))
        for node in ranked[:10]
    ]
    gain = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(right))
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(len(gold), 10)))
    return float(any(right[:3])), gain / ideal


def measure(folder: Path, questions: list[Question]) -> dict[tuple[float, float], list[float]]:
    scores: dict[tuple[float, float], list[float]] = {weights: [0.0, 0.0] for weights in WEIGHTS}
    with (
        tempfile.TemporaryDirectory() as kb,
        KnowledgeBase.open(kb, embed_model=load_embedding("embedded")) as knowledge_base,
    ):
        index(folder, knowledge_base)
        for question in questions:
            arms = rankings(question, knowledge_base)
            nodes = {node.node_id: node for arm in arms for node in arm}
            for weights in WEIGHTS:
                used = [(arm, w) for arm, w in zip(arms, weights, strict=True) if w]
                fused = reciprocal_rank_fusion(
                    [[node.node_id for node in arm] for arm, _ in used],
                    weights=[w for _, w in used],
                )
                hit, ndcg = score([nodes[node_id] for node_id, _ in fused], question.gold_ids)
                scores[weights][0] += hit / len(questions)
                scores[weights][1] += ndcg / len(questions)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="FOLDER:QUESTIONS")
    parser.add_argument("--limit", type=int, default=500, help="questions of each set, the first")
    arguments = parser.parse_args()
    heading = "  ".join(f"{dense:g}:{words:g}".rjust(11) for dense, words in WEIGHTS)
    print(f"hit@3 / nDCG@10 by weights dense:words\n{'':34}{heading}")
    for given in arguments.data:
        folder, _, name = given.rpartition(":")
        questions = [q for q in load_questions(Path(folder) / name) if q.answerable and q.gold_ids]
        questions = questions[: arguments.limit]
        scores = measure(Path(folder), questions)
        row = "  ".join(f"{hit:.3f}/{ndcg:.3f}".rjust(11) for hit, ndcg in scores.values())
        label = f"{Path(folder).name} {name} ({len(questions)})"
        print(f"{label:<60}" if len(label) > 34 else f"{label:<34}", row, flush=True)


if __name__ == "__main__":
    main()
