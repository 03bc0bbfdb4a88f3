r"""Measure what settings teach a house format, and what they cost the base model's reading.

For each setting an adapter is trained on the training questions of an example folder and asked
its held-out questions beside the base model, through the same knowledge base and query engine.
A second folder without any house format shows the harm to plain reading::

    python benchmarks/finetune_settings.py examples/plant --plain examples/aws-limits \
        --learning-rates 1e-3 3e-3 --epochs 1 2 --seeds 0 1

An example folder holds ``documents/`` and ``questions.train.jsonl``, ``questions.dev.jsonl``; the
plain one ``documents/`` and ``questions.jsonl``. Columns, in per cent:

- ``value``: the right value first, of the answerable questions; ``base`` beside it is the base
  model's, and ``harm`` the difference in points;
- ``form``: the house's own words stand after the value, right or not;
- ``both``: the answer is the reference to the letter;
- ``abst``: abstained, of the unanswerable questions; ``over``: abstained, of the answerable;
- ``plain``: the right value on the plain folder, ``base`` and ``harm`` as before.

What chose the defaults for small models: ``examples/plant`` (120 answerable and 30 unanswerable
questions) and ``examples/aws-limits`` (40 questions), three passages, rank 32, batches of 4, the
embedded model whose weights have the SHA-256 6eb23f7411eb…, ``--most-passages 3 --missing-rows
0.15`` and rows that were padded; one thread of an AMD EPYC (Zen 4) with other jobs beside it::

    rate  ep  seed  steps    s | value  base  harm  form  both  abst  over | plain  base  harm
    2e-3   3     0    510  173 |  90.8  81.7  -9.1  87.5  87.5  83.3   9.2 |  50.0  50.0   0.0
    2e-3   3     1    510  182 |  90.8  81.7  -9.1  83.3  83.3  66.7   8.3 |  47.2  50.0   2.8
    2e-3   3     2    510  175 |  88.3  81.7  -6.6  87.5  85.0  66.7   9.2 |  58.3  50.0  -8.3
    2e-3   2     0    340  113 |  90.0  81.7  -8.3  83.3  83.3  66.7  10.0 |  47.2  50.0   2.8

The base itself abstains from 73.3 % of the unanswerable and 12.5 % of the answerable questions.
On an earlier checkpoint a rate of 3e-3 cost up to 36 points of plain reading.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from llama_index.core.base.embeddings.base import BaseEmbedding

from phi3_industry import (
    KnowledgeBase,
    LoraFinetuneEngine,
    Phi3LLM,
    TrainingSetBuilder,
    compare_strategies,
    load_embedding,
)
from phi3_industry.evaluation.result import ComparisonResult
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.dataset import SliceShares
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.grounding.questions import Question, load_questions


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One column of the grid."""

    learning_rate: float
    num_epochs: float
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    batch_size: int
    rows_per_question: int
    most_passages: int
    plain_rows: float
    missing_rows: float
    method: str
    train_questions: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one model reaches on one set of questions, in per cent."""

    value: float
    form: float
    both: float
    abstained: float
    over_refusal: float


def main() -> None:
    """Measure every setting of the grid and print a line for each."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    embedding = load_embedding("embedded")
    with tempfile.TemporaryDirectory() as name:
        run(options, embedding, Path(name))


def run(options: argparse.Namespace, embedding: BaseEmbedding, work: Path) -> None:
    """Measure the base once and every setting after it."""
    house_base = _knowledge_base(options.examples, embedding, work / "house")
    dev = load_questions(options.examples / "questions.dev.jsonl")[: options.limit]
    train = load_questions(options.examples / "questions.train.jsonl")
    plain_base, plain = None, []
    if options.plain:
        plain_base = _knowledge_base(options.plain, embedding, work / "plain")
        plain = load_questions(options.plain / "questions.jsonl")[: options.limit]
    llm = Phi3LLM(model=options.model, max_new_tokens=options.max_new_tokens).load()
    base = _ask(house_base, llm, dev, top_k=options.top_k)
    base_plain = _ask(plain_base, llm, plain, top_k=options.top_k) if plain_base else None
    print(f"model {options.model}, {torch.get_num_threads()} threads, {len(dev)} questions")
    print("base  ", asdict(base), "plain", asdict(base_plain) if base_plain else None, flush=True)
    print(_header())
    for setting in _grid(options):
        train_set = _train_set(house_base, llm, train, setting, options)
        folder = work / "adapter"
        metrics, seconds = _train(options.model, train_set, setting, folder)
        expert = _with_adapter(llm, folder)
        scores = _ask(house_base, expert, dev, top_k=options.top_k)
        scores_plain = _ask(plain_base, expert, plain, top_k=options.top_k) if plain_base else None
        llm.unload_adapter("adapter")
        line = _line(setting, metrics, seconds, scores, base, scores_plain, base_plain)
        print(line, flush=True)
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                record = {
                    "setting": asdict(setting),
                    "metrics": metrics,
                    "seconds": seconds,
                    "scores": asdict(scores),
                    "base": asdict(base),
                    "plain": asdict(scores_plain) if scores_plain else None,
                    "base_plain": asdict(base_plain) if base_plain else None,
                }
                file.write(json.dumps(record) + "\n")


_SETTING_COLUMNS = {
    "learning_rate": "rate",
    "num_epochs": "ep",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "drop",
    "batch_size": "batch",
    "rows_per_question": "rows/q",
    "most_passages": "pass",
    "plain_rows": "plain",
    "missing_rows": "miss",
    "method": "meth",
    "train_questions": "quest",
    "seed": "seed",
}
_RESULT_COLUMNS = ("rows", "steps", "s", "loss", "held")
_SCORE_COLUMNS = ("value", "base", "harm", "form", "both", "abst", "over")
_PLAIN_COLUMNS = ("plain", "base", "harm")


def _header() -> str:
    settings = _cells(_SETTING_COLUMNS.values())
    parts = (_cells(_RESULT_COLUMNS), _cells(_SCORE_COLUMNS), _cells(_PLAIN_COLUMNS))
    return " | ".join((settings, *parts))


def _line(
    setting: Setting,
    metrics: dict[str, float],
    seconds: float,
    scores: Scores,
    base: Scores,
    plain: Scores | None,
    base_plain: Scores | None,
) -> str:
    trained = (
        metrics["train_rows"],
        metrics["steps"],
        round(seconds),
        round(metrics["train_loss_last"], 2),
        round(metrics["validation_loss_after"] or float("nan"), 2),
    )
    reached = (
        scores.value,
        base.value,
        round(base.value - scores.value, 1),
        scores.form,
        scores.both,
        scores.abstained,
        scores.over_refusal,
    )
    parts = [_cells(getattr(setting, name) for name in _SETTING_COLUMNS)]
    parts += [_cells(trained), _cells(reached)]
    if plain and base_plain:
        lost = round(base_plain.value - plain.value, 1)
        parts.append(_cells((plain.value, base_plain.value, lost)))
    return " | ".join(parts)


def _cells(values: Iterable[object]) -> str:
    return " ".join(f"{value!s:>6}" for value in values)


def _knowledge_base(folder: Path, embedding: BaseEmbedding, path: Path) -> KnowledgeBase:
    base = KnowledgeBase.open(path, embed_model=embedding)
    base.add(folder / "documents")
    return base


def _train_set(
    base: KnowledgeBase,
    llm: Phi3LLM,
    questions: list[Question],
    setting: Setting,
    options: argparse.Namespace,
) -> TrainingSet:
    builder = TrainingSetBuilder(
        base, llm=llm, num_passages=(1, setting.most_passages), seed=setting.seed
    )
    return builder.build(
        questions[: setting.train_questions],
        rows_per_question=setting.rows_per_question,
        validation_share=options.validation_share,
        shares=SliceShares(missing=setting.missing_rows, replay=setting.plain_rows),
    )


def _train(
    model: str, train_set: TrainingSet, setting: Setting, folder: Path
) -> tuple[dict[str, float], float]:
    config = FinetuneConfig(
        method="qlora" if setting.method == "qlora" else "lora",
        learning_rate=setting.learning_rate,
        num_epochs=setting.num_epochs,
        lora_rank=setting.lora_rank,
        lora_alpha=setting.lora_alpha,
        lora_dropout=setting.lora_dropout,
        batch_size=setting.batch_size,
        packing=True,
        seed=setting.seed,
    )
    tuner = LoraFinetuneEngine(
        model, train_set=train_set, output_dir=folder, config=config, show_progress=False
    )
    started = time.monotonic()
    metrics = tuner.finetune().metrics
    return dict(metrics), time.monotonic() - started


def _with_adapter(llm: Phi3LLM, folder: Path) -> Phi3LLM:
    llm.load_adapter(folder, "adapter")
    return llm.with_adapter("adapter")


def _ask(base: KnowledgeBase, llm: Phi3LLM, questions: list[Question], *, top_k: int) -> Scores:
    strategy = "rag" if llm.adapter is None else "rag_fine_tuned"
    engine = base.as_query_engine(
        llm, adapter=llm.adapter, strategy=strategy, similarity_top_k=top_k
    )
    result = compare_strategies(
        engine, questions=questions, strategies=[strategy], show_progress=False
    )
    return _scores(result)


def _scores(result: ComparisonResult) -> Scores:
    questions = {question.id: question for question in result.questions}
    answerable = [row for row in result.rows if questions[row.question_id].answerable]
    others = [row for row in result.rows if not questions[row.question_id].answerable]
    return Scores(
        value=_percent([bool(row.value_match) for row in answerable]),
        form=_percent([_has_form(row.body, questions[row.question_id]) for row in answerable]),
        both=_percent([bool(row.house_match) for row in answerable]),
        abstained=_percent([row.abstained for row in others]),
        over_refusal=_percent([row.abstained for row in answerable]),
    )


def _has_form(body: str, question: Question) -> bool:
    """Tell whether what follows the value is what the house wants there."""
    if question.reference is None:
        return True
    ending = question.reference.removeprefix(question.answers[0])
    return bool(ending) and body.endswith(ending)


def _percent(outcomes: list[bool]) -> float:
    return round(100 * sum(outcomes) / len(outcomes), 1) if outcomes else float("nan")


def _grid(options: argparse.Namespace) -> Iterator[Setting]:
    axes = {
        "learning_rate": options.learning_rates,
        "num_epochs": options.epochs,
        "lora_rank": options.ranks,
        "lora_dropout": options.dropouts,
        "batch_size": options.batch_sizes,
        "rows_per_question": options.rows_per_question,
        "most_passages": options.most_passages,
        "plain_rows": options.plain_rows,
        "missing_rows": options.missing_rows,
        "method": options.methods,
        "train_questions": options.train_questions,
        "seed": options.seeds,
    }
    for values in itertools.product(*axes.values()):
        given = dict(zip(axes, values, strict=True))
        yield Setting(lora_alpha=options.alpha or 2 * given["lora_rank"], **given)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("examples", type=Path, help="folder with documents/ and questions")
    parser.add_argument("--plain", type=Path, help="folder without a house format")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[2e-3])
    parser.add_argument("--epochs", type=float, nargs="+", default=[3.0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[32])
    parser.add_argument("--alpha", type=float, help="twice the rank by default")
    parser.add_argument("--dropouts", type=float, nargs="+", default=[0.0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4])
    parser.add_argument("--rows-per-question", type=int, nargs="+", default=[1])
    parser.add_argument("--most-passages", type=int, nargs="+", default=[5])
    parser.add_argument("--plain-rows", type=float, nargs="+", default=[0.05])
    parser.add_argument("--missing-rows", type=float, nargs="+", default=[0.2])
    parser.add_argument("--methods", nargs="+", default=["lora"], choices=["lora", "qlora"])
    parser.add_argument("--train-questions", type=int, nargs="+", default=[10_000], help="at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--validation-share", type=float, default=0.05)
    parser.add_argument("--limit", type=int, help="ask only the first questions")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--json", type=Path, help="file to which each result is appended")
    return parser.parse_args()


if __name__ == "__main__":
    main()
