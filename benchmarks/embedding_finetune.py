"""What contrastive LoRA makes of an embedding: nDCG@10 before and after on questions held out.

    python benchmarks/embedding_finetune.py DATA/medical-covidqa

DATA is a folder with ``corpus.jsonl``, one passage a line (``{"id", "title", "text",
"metadata"}``), ``questions.train.jsonl`` and ``questions.dev.jsonl``. The adapter is trained on the
training questions and measured on the development questions, over all passages. With ``--tune`` a
quarter of the training questions, by document, is held out in their place and the development
questions are not read: settings are chosen so. Quality does not depend on what else the machine
does; the seconds that are printed do.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from phi3_industry import EmbeddingFinetuneEngine, load_embedding
from phi3_industry.grounding.questions import Question, load_questions


def read_nodes(path: Path, *, needed: set[str], most: int | None, seed: int) -> list[TextNode]:
    """Read the passages; of more than ``most`` those that are needed and a draw of the others."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if most is not None:
        others = [record for record in records if record["id"] not in needed]
        drawn = random.Random(seed).sample(others, max(0, min(len(others), most - len(needed))))
        kept = needed | {record["id"] for record in drawn}
        records = [record for record in records if record["id"] in kept]
    nodes = []
    for record in records:
        node = TextNode(id_=record["id"], text=f"{record['title']}\n{record['text']}".strip())
        document = record.get("metadata", {}).get("doc_id", record["id"])
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
        nodes.append(node)
    return nodes


def questions_of(path: Path, limit: int | None) -> list[Question]:
    return [question for question in load_questions(path) if question.gold_ids][:limit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--tune", action="store_true", help="hold out training questions")
    parser.add_argument("--passages", type=int, help="at most so many; all if left out")
    parser.add_argument(
        "--questions", type=int, help="training questions, the first; all if left out"
    )
    parser.add_argument("--max-length", type=int, help="tokens of a passage; the model's own limit")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the engine"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {name: json.loads(value) for name, value in (s.split("=") for s in options.set)}
    train = questions_of(options.data / "questions.train.jsonl", options.questions)
    dev = None if options.tune else questions_of(options.data / "questions.dev.jsonl", None)
    if options.tune:
        settings.setdefault("validation_share", 0.25)
    needed = {name for question in [*train, *(dev or [])] for name in question.gold_ids}
    embed = load_embedding(options.model, device="cpu", max_length=options.max_length)
    print(f"{options.data.name}: {len(train)} training questions, model {embed.model_name}")
    for seed in options.seeds:
        nodes = read_nodes(
            options.data / "corpus.jsonl", needed=needed, most=options.passages, seed=seed
        )
        with tempfile.TemporaryDirectory() as folder:
            tuner = EmbeddingFinetuneEngine(
                embed,
                store=nodes,
                questions=train,
                validation_questions=dev,
                output_dir=Path(folder) / "adapter",
                seed=seed,
                show_progress=False,
                report=lambda line: print("  " + line, flush=True),
                **settings,
            )
            began = time.process_time()
            metrics = tuner.finetune().metrics
        before, after = metrics["ndcg_at_10_before"], metrics["ndcg_at_10_after"]
        print(
            f"seed {seed} {settings}: nDCG@10 on {metrics['validation_questions']} questions over "
            f"{metrics['passages']} passages {before:.3f} -> {after:.3f} "
            f"({100 * (after - before):+.1f} points; {metrics['questions_better']} rose, "
            f"{metrics['questions_worse']} fell); {metrics['steps']} steps, "
            f"{time.process_time() - began:.0f} CPU seconds in all",
            flush=True,
        )


if __name__ == "__main__":
    main()
