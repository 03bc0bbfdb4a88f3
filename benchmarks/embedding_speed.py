"""How fast passages are embedded for a LlamaIndex index, and whether the vectors stay the same.

    python benchmarks/embedding_speed.py DATA/medical-covidqa

DATA is a folder with ``corpus.jsonl``, one passage a line (``{"id", "title", "text"}``), and
``questions.dev.jsonl``. ``HuggingFaceEmbedding`` with its own defaults and ``load_embedding`` embed
the same passages in the same process, in turns, both through LlamaIndex's ``IngestionPipeline`` or
its ``VectorStoreIndex``. Vectors are compared one by one, and both rank the passages for the
questions whose gold passages are among them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from measuring import (
    add_common_options,
    alternate,
    now,
    print_conditions,
    print_table,
    spread,
    times_faster,
)

from phi3_industry import load_embedding
from phi3_industry.embeddings.sentence_model import locate
from phi3_industry.grounding.questions import Question, load_questions

THEIRS, OURS = "HuggingFaceEmbedding", "load_embedding"
Vectors = dict[str, np.ndarray]


def read_passages(path: Path, count: int) -> dict[str, str]:
    """The texts of passages by id, taken evenly from the whole file."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    places = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    chosen = [records[place] for place in places]
    return {record["id"]: f"{record['title']}\n{record['text']}".strip() for record in chosen}


def through_pipeline(embed_model: Any, passages: dict[str, str]) -> Vectors:
    nodes = [TextNode(id_=name, text=text) for name, text in passages.items()]
    done = IngestionPipeline(transformations=[embed_model]).run(nodes=nodes)
    return {node.node_id: np.array(node.embedding) for node in done}


def through_index(embed_model: Any, passages: dict[str, str]) -> Vectors:
    nodes = [TextNode(id_=name, text=text) for name, text in passages.items()]
    index = VectorStoreIndex(nodes, embed_model=embed_model)
    return {name: np.array(v) for name, v in index.vector_store.data.embedding_dict.items()}


WAYS: dict[str, Callable[[Any, dict[str, str]], Vectors]] = {
    "pipeline": through_pipeline,
    "index": through_index,
}


def ndcg(embed_model: Any, vectors: Vectors, questions: list[Question]) -> float:
    """Mean nDCG@10, where any gold passage counts as one."""
    names = list(vectors)
    matrix = np.array([vectors[name] for name in names])
    total = 0.0
    for question in questions:
        similarities = matrix @ np.array(embed_model.get_query_embedding(question.question))
        best = [names[place] for place in np.argsort(-similarities, kind="stable")[:10]]
        gain = sum(1 / math.log2(r + 2) for r, n in enumerate(best) if n in question.gold_ids)
        gold = sum(name in vectors for name in question.gold_ids)
        total += gain / sum(1 / math.log2(rank + 2) for rank in range(min(gold, 10)))
    return total / len(questions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="embedded", help="'embedded', or a folder")
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--way", choices=WAYS, default="pipeline")
    parser.add_argument("--dtype", default="auto", help="of load_embedding")
    add_common_options(parser, clock="cpu", rounds=5)
    options = parser.parse_args()
    if options.quick:
        options.passages, options.rounds = 40, 1
    torch.set_num_threads(options.threads)
    print_conditions(options)
    passages = read_passages(options.data / "corpus.jsonl", options.passages)
    embed = WAYS[options.way]
    models = {
        THEIRS: HuggingFaceEmbedding(locate(options.model)[0], device="cpu"),
        OURS: load_embedding(options.model, device="cpu", dtype=options.dtype),
    }
    vectors: dict[str, Vectors] = {}

    def arm(name: str) -> Callable[[int], float]:
        def run(_: int) -> float:
            began = now(options.clock)
            vectors[name] = embed(models[name], passages)
            return now(options.clock) - began

        return run

    # both have embedded a few texts before they are timed, instead of all of them once
    for model in models.values():
        model.get_text_embedding_batch(list(passages.values())[:20])
    seconds = alternate({name: arm(name) for name in models}, rounds=options.rounds, warm_up=False)
    questions = [
        question
        for question in load_questions(options.data / "questions.dev.jsonl")
        if set(question.gold_ids) & set(passages)
    ]
    cosines = [float(vectors[THEIRS][n] @ vectors[OURS][n]) for n in passages]
    rows = [
        [
            name,
            spread([len(passages) / taken for taken in seconds[name]], digits=1),
            times_faster(seconds, name, than=THEIRS),
            f"{ndcg(models[name], vectors[name], questions):.4f}" if questions else "-",
        ]
        for name in models
    ]
    print(f"{options.data.name}, {len(passages)} passages, {len(questions)} questions")
    print_table(("embedding", "passages a second", "times faster", "nDCG@10"), rows)
    print(
        f"{OURS} computes in {models[OURS].compute_type}; cosine of its vectors to those of "
        f"{THEIRS}: least {min(cosines):.5f}, mean {np.mean(cosines):.5f}"
    )


if __name__ == "__main__":
    main()
