"""Make the report that decides, RAG, fine-tuning or both, with one command.

    python benchmarks/decision_report.py                         # the shipped plant
    python benchmarks/decision_report.py DATA --no-adapter       # RAG against no RAG
    python benchmarks/decision_report.py DATA --adapter FOLDER

A folder holds ``documents/`` or ``corpus.jsonl``, and ``questions.train.jsonl`` and
``questions.dev.jsonl``. Without ``--adapter`` one is trained on the train questions. A part of
them, whole groups, is kept from the training and calibrates ``auto``; with ``--adapter`` all of
them do, and where the adapter has learned answers by heart ``auto`` trusts it too much. The dev
questions are asked every way; none of them is seen before. Where documents are files, some facts
of the train questions change after training and are asked for too; where they are passages, the
documents of some questions are left out, so that nothing answers these.

Writes ``report.html``, ``report.json``, ``answers.csv`` and ``calibration.json`` into
``--output``. A run that was stopped goes on where it was; a run with other settings wants another
folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from importlib import resources
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

import torch
from decision_sets import CorpusSet, FolderSet, open_set, part_by_group

from phi3_industry import (
    HybridQueryEngine,
    KnowledgeBase,
    LoraFinetuneEngine,
    Phi3LLM,
    TrainingSetBuilder,
    compare_strategies,
    load_embedding,
)
from phi3_industry.evaluation.costs import Prices, Upkeep
from phi3_industry.finetuning.glossary import load_glossary
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.grounding.questions import Question

_PLANT = Path(__file__).parents[1] / "examples" / "plant"
_PACKAGES = ("phi3-industry", "torch", "transformers", "peft", "llama-index-core")


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    given = open_set(
        options.folder, output, facts=options.facts, missing=options.missing, seed=options.seed
    )
    print(given.note)
    llm = Phi3LLM(model=options.model, max_new_tokens=options.max_new_tokens)
    with KnowledgeBase.open(output / "kb", embed_model=load_embedding("embedded")) as base:
        given.fill(base)
        report(options, given, base, llm)


def report(
    options: argparse.Namespace, given: FolderSet | CorpusSet, base: KnowledgeBase, llm: Phi3LLM
) -> None:
    """Train or load, calibrate, change facts, ask, and write."""
    output: Path = options.output
    train = given.train[: options.limit_train]
    learned, held = part_by_group(train, options.held_out, seed=options.seed)
    if options.adapter or options.no_adapter:
        learned, held = [], train
    adapter = _adapter(options, base, llm, learned)
    plain = _plain_adapter(options, base, llm, learned)
    engine = base.as_query_engine(
        llm, adapter=adapter, similarity_top_k=options.top_k, provenance=options.provenance
    )
    engine = _calibrated(engine, held, output / "calibration.json")
    changed, reindex_s = given.change(base, learned or train)
    result = compare_strategies(
        engine,
        questions=[*given.dev[: options.limit], *changed],
        plain=base.as_query_engine(llm, adapter=plain, similarity_top_k=options.top_k)
        if plain
        else None,
        glossary=load_glossary(options.glossary) if options.glossary else None,
        prices=_prices(options),
        upkeep=Upkeep(training_s=_training_s(llm, adapter), reindex_s=reindex_s),
        workers=options.workers,
        journal=output / "answers.jsonl",
        seed=options.seed,
    )
    print(f"\n{result.summary()}\n")
    settings = {
        "data": given.note,
        "calibrated on": f"{len(held)} train questions",
        "adapter trained on": f"{len(learned)} train questions"
        if learned
        else "see its card"
        if adapter
        else "there is none",
        "model weights": _weights(options.model),
        "hardware": f"{platform.machine()}, {cpu_count()} cores, {options.threads} threads used",
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
    }
    result.to_html(
        output / "report.html",
        title=options.title or f"RAG, fine-tuning, or both? {given.folder.name}",
        date=date.today().isoformat(),
        settings=settings,
    )
    result.to_json(output / "report.json")
    result.to_csv(output / "answers.csv")
    print("\n".join(f"{name}: {value}" for name, value in settings.items()))
    print(f"The report is in {output / 'report.html'}")


def _calibrated(
    engine: HybridQueryEngine, held: Sequence[Question], path: Path
) -> HybridQueryEngine:
    """Calibrate ``auto``, or take the calibration that a stopped run has left."""
    if path.is_file():
        return engine.with_settings(calibration=path)
    started = time.monotonic()
    calibration = engine.calibrate(held, path=path, show_progress=True)
    print(f"{calibration}\n({time.monotonic() - started:.0f} s)")
    return engine


def _adapter(
    options: argparse.Namespace, base: KnowledgeBase, llm: Phi3LLM, questions: Sequence[Question]
) -> str | None:
    if options.no_adapter:
        return None
    if options.adapter:
        name = str(options.adapter.resolve().name)
        llm.load_adapter(options.adapter, name)
        return name
    folder = options.output / "adapters" / "report"
    if not (folder / "phi3_industry.json").is_file():
        rows = TrainingSetBuilder(base, llm=llm, seed=options.seed).build(questions=questions)
        print(rows.report)
        _train(options, rows, folder)
    llm.load_adapter(folder, folder.name)
    return str(folder.name)


def _plain_adapter(
    options: argparse.Namespace, base: KnowledgeBase, llm: Phi3LLM, questions: Sequence[Question]
) -> str | None:
    """Train on question and answer alone, without passages: the usual first try."""
    if not options.plain:
        return None
    folder = options.output / "adapters" / "plain"
    if not (folder / "phi3_industry.json").is_file():
        records = (
            {
                "instruction": DEFAULT_PROMPT.closed_book(question.question)[-1]["content"],
                "output": question.wanted or DEFAULT_PROMPT.abstention_answer,
            }
            for question in questions
        )
        path = options.output / "plain.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        builder = TrainingSetBuilder(base, llm=llm, seed=options.seed)
        _train(options, builder.build(conversations=path), folder)
    llm.load_adapter(folder, folder.name)
    return str(folder.name)


def _train(options: argparse.Namespace, rows: TrainingSet, folder: Path) -> None:
    steps: dict[str, Any] = {"max_steps": options.max_steps} if options.max_steps else {}
    tuner = LoraFinetuneEngine(
        options.model, train_set=rows, output_dir=folder, seed=options.seed, **steps
    )
    tuner.finetune(resume=True)


def _training_s(llm: Phi3LLM, adapter: str | None) -> float | None:
    if adapter is None:
        return None
    manifest = llm.with_adapter(adapter).adapter_manifest()
    seconds = None if manifest is None else manifest.metrics.get("seconds")
    return None if seconds is None else float(seconds)


def _weights(model: str) -> str:
    """Name the model, the embedded one by its weights, which change from time to time."""
    if model != "embedded":
        return model
    folder = resources.files("phi3_industry.models.embedded")
    content = folder.joinpath("model.safetensors").read_bytes()
    return f"embedded, SHA-256 {hashlib.sha256(content).hexdigest()[:12]}…"


def _prices(options: argparse.Namespace) -> Prices | None:
    prices = Prices(
        per_million_prompt_tokens=options.price_in,
        per_million_completion_tokens=options.price_out,
        per_hour=options.price_hour,
        training=options.price_training,
        answers=options.answers,
        currency=options.currency,
    )
    return None if prices == Prices(answers=options.answers, currency=options.currency) else prices


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=_PLANT)
    parser.add_argument("--output", type=Path, default=Path("decision-report"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--adapter", type=Path, help="folder of an adapter to take")
    parser.add_argument("--no-adapter", action="store_true", help="neither train nor take one")
    parser.add_argument("--plain", action="store_true", help="train a plain adapter beside it")
    parser.add_argument("--glossary", type=Path, help="terms to keep to: JSON, TOML or CSV")
    parser.add_argument("--held-out", type=float, default=0.25, help="share kept for calibration")
    parser.add_argument("--facts", type=int, default=40, help="facts to change, where possible")
    parser.add_argument("--missing", type=float, default=0.15, help="share of groups left out")
    parser.add_argument("--limit", type=int, help="dev questions to ask")
    parser.add_argument("--limit-train", type=int, help="train questions to use")
    parser.add_argument("--max-steps", type=int, help="steps of training, to try this out")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="questions asked at once")
    parser.add_argument("--provenance", action="store_true", help="trace each answer; slower")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--title")
    for name, text in (
        ("price-in", "of a million prompt tokens"),
        ("price-out", "of a million tokens of answers"),
        ("price-hour", "of an hour of the machine"),
        ("price-training", "of fine-tuning beside the machine's time"),
    ):
        parser.add_argument(f"--{name}", type=float, default=0.0, help=f"price {text}")
    parser.add_argument("--answers", type=int, help="answers that have to pay for the training")
    parser.add_argument("--currency", default="USD")
    options = parser.parse_args()
    if options.plain and (options.adapter or options.no_adapter):
        parser.error("--plain trains; it goes with neither --adapter nor --no-adapter")
    return options


if __name__ == "__main__":
    main()
