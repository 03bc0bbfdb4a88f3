r"""Compare base, RAG, fine-tuned, both, and plain instruction tuning, on a plant and real tables.

Each set of questions is asked of six arms through the same knowledge base and query engine::

    python benchmarks/finetune_recipe.py --output runs/recipe --seeds 0 1 2 \
        --tables DATA/cloud-awsdocs/tables DATA/finance-tatqa/tables

- ``base`` and ``rag``: the base model without and with passages;
- ``fine_tuned`` and ``rag_fine_tuned``: with an adapter trained on what ``TrainingSetBuilder``
  makes of the training questions by default;
- ``instruct`` and ``rag_instruct``: with an adapter trained on the same questions as plain
  instruction and answer.

The answers of an arm and a seed are one JSON file in the output folder; what is there is not
computed again, so a run that was stopped goes on where it was, and seeds, arms and sets can be
added. Adapters are kept, too. Other settings need another folder or ``--fresh``.

What is printed: the right fact in the house's format (the reference to the letter) and the
right fact in any format, in per cent of the answerable questions; abstention, of the unanswerable;
over-refusal, of the answerable. Differences to RAG alone are means over the seeds with paired 95 %
intervals that draw whole documents, or rows of tables. Then the same prompts with 0 to 4
distractors beside the right passage; and, for each slice of the recipe made of the held-out
questions, by how many points more often the adapter does the right thing than the base: what is
below zero is harm.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from finetune_sets import QuestionSet, plant_set, tables_set
from llama_index.core.llms import ChatMessage

from phi3_industry.embeddings import load_embedding
from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.metrics import house_match, value_match
from phi3_industry.evaluation.statistics import paired_bootstrap
from phi3_industry.finetuning.dataset import TrainingSetBuilder
from phi3_industry.finetuning.evidence import Evidence, gather_evidence
from phi3_industry.finetuning.shares import SliceShares
from phi3_industry.finetuning.trainer import LoraFinetuneEngine
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.grounding.citations import parse_answer
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message
from phi3_industry.grounding.questions import Question
from phi3_industry.knowledge_base import KnowledgeBase
from phi3_industry.llms import Phi3LLM

ARMS = ("base", "rag", "fine_tuned", "rag_fine_tuned", "instruct", "rag_instruct")
DISTRACTORS = range(5)
MEASURES = ("house", "value", "abstained", "over_refusal")

Answers = dict[str, dict[str, Any]]
"""For each question what was measured: True, False or None where it does not apply."""


class Bench:
    """One set of questions, its knowledge base, and the folder of what was computed."""

    def __init__(self, given: QuestionSet, options: argparse.Namespace) -> None:
        self.given = given
        self.options = options
        self.folder = options.output / given.name
        self.base = KnowledgeBase.open(self.folder / "kb", embed_model=load_embedding("embedded"))
        self.base.add(given.documents)
        self.llm = Phi3LLM(model=options.model, max_new_tokens=options.max_new_tokens).load()
        self._evidence: list[Evidence] | None = None

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Read what was computed before, or compute and keep it."""
        path = self.folder / "answers" / f"{name}.json"
        if not path.exists():
            started = time.monotonic()
            value = compute()
            path.parent.mkdir(parents=True, exist_ok=True)
            working = path.with_suffix(".partial")
            working.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
            working.replace(path)
            print(f"{self.given.name} {name}: {time.monotonic() - started:.0f} s", flush=True)
        return json.loads(path.read_text(encoding="utf-8"))

    def answers(self, arm: str, seed: int) -> Answers:
        """Ask every held-out question of an arm; arms without an adapter know no seed."""
        trained = arm.removeprefix("rag_") if arm not in ("base", "rag") else None
        name = f"{arm}.{seed}" if trained else arm

        def compute() -> Answers:
            adapter = self.adapter(trained, seed) if trained else None
            strategy = arm.replace("instruct", "fine_tuned")
            engine = self.base.as_query_engine(
                self.llm, adapter=adapter, strategy=strategy, similarity_top_k=self.options.top_k
            )
            result = compare_strategies(
                engine, questions=self.given.test, strategies=[strategy], show_progress=False
            )
            return {
                row.question_id: _outcome(question, row.body, abstained=row.abstained)
                for question, row in zip(self.given.test, result.rows, strict=True)
            }

        return self.once(name, compute)

    def adapter(self, kind: str, seed: int) -> str:
        """Train an adapter unless it is there, and give its name."""
        name = f"{kind}-{seed}"
        if name in self.llm.adapters:
            return name
        folder = self.folder / "adapters" / name
        if not (folder / "phi3_industry.json").exists():
            rows = self.recipe_rows(seed) if kind == "fine_tuned" else self.plain_rows(seed)
            rows.save(self.folder / "rows" / name)
            started = time.monotonic()
            tuner = LoraFinetuneEngine(
                self.options.model,
                train_set=rows,
                output_dir=folder,
                seed=seed,
                show_progress=False,
                max_steps=self.options.max_steps,
            )
            tuner.finetune()
            seconds = time.monotonic() - started
            print(f"{self.given.name} {name}: {len(rows.rows)} rows, {seconds:.0f} s", flush=True)
        self.llm.load_adapter(folder, name)
        return name

    def recipe_rows(self, seed: int) -> TrainingSet:
        """Build rows by the recipe, with its defaults."""
        builder = TrainingSetBuilder(
            self.base, llm=self.llm, seed=seed, num_passages=(1, self.options.most_passages)
        )
        return builder.build(self.given.train, shares=SliceShares(**dict(self.options.share)))

    def plain_rows(self, seed: int) -> TrainingSet:
        """Take the same questions as instruction and answer."""
        path = self.folder / "rows" / "instructions.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        records = (
            {
                "instruction": DEFAULT_PROMPT.closed_book(question.question)[-1]["content"],
                "output": question.wanted or DEFAULT_PROMPT.abstention_answer,
            }
            for question in self.given.train
        )
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        builder = TrainingSetBuilder(self.base, llm=self.llm, seed=seed)
        return builder.build(conversations=path)

    @property
    def evidence(self) -> list[Evidence]:
        """The held-out questions whose passage is found, with their distractors."""
        if self._evidence is None:
            retriever = self.base.as_retriever(similarity_top_k=12)
            asked = [question for question in self.given.test if question.answerable]
            found = (gather_evidence(question, retriever) for question in asked)
            usable = [
                item for item in found if item.gold and len(item.distractors) >= max(DISTRACTORS)
            ]
            self._evidence = usable[: self.options.sweep_questions]
        return self._evidence

    def sweep(self, arm: str, seed: int, distractors: int) -> Answers:
        """Ask with the right passage among a fixed number of distractors."""
        name = f"sweep-{distractors}.{arm}" + ("" if arm == "rag" else f".{seed}")

        def compute() -> Answers:
            llm = self._view(arm, seed)
            return {
                item.question.id: self._ask_with(llm, item, distractors) for item in self.evidence
            }

        return self.once(name, compute)

    def _ask_with(self, llm: Phi3LLM, item: Evidence, distractors: int) -> dict[str, Any]:
        gold = [item.gold] if item.gold else []
        shown = [*gold, *item.distractors[:distractors]]
        random.Random(item.question.id).shuffle(shown)  # at the same places for every arm
        texts = [passage.text for passage in shown]
        answer = _ask(llm, DEFAULT_PROMPT.grounded(item.question.question, texts))
        parsed = parse_answer(answer)
        return _outcome(item.question, parsed.body, abstained=parsed.abstained)

    def slices(self, arm: str, seed: int) -> Answers:
        """Ask the rows that the builder makes of the held-out questions, slice by slice."""
        name = f"slices.{arm}" + ("" if arm == "rag" else f".{seed}")

        def compute() -> Answers:
            llm = self._view(arm, seed)
            questions = {question.id: question for question in self.given.test}
            outcomes: Answers = {}
            for number, row in enumerate(self._slice_rows()):
                answer = _ask(llm, row.prompt)
                right = _does_right(row.slice, answer, row.answer, questions[row.question_id])
                outcomes[f"{row.slice}:{number}"] = {
                    "right": right,
                    "question": row.question_id,
                    "answer": answer,
                }
            return outcomes

        return self.once(name, compute)

    def _slice_rows(self) -> Sequence[Any]:
        names = [item.name for item in fields(SliceShares)]
        served = (1, self.options.top_k)
        builder = TrainingSetBuilder(self.base, llm=self.llm, num_passages=served)
        asked = self.given.test
        answerable = [q for q in asked if q.answerable][: self.options.slice_questions]
        others = [q for q in asked if not q.answerable][: self.options.slice_questions]
        shares = SliceShares(**dict.fromkeys(names, 1.0))
        return builder.build(answerable + others, shares=shares, validation_share=0).rows

    def _view(self, arm: str, seed: int) -> Phi3LLM:
        if arm == "rag":
            return self.llm
        return self.llm.with_adapter(self.adapter(arm.removeprefix("rag_"), seed))


def _ask(llm: Phi3LLM, messages: Sequence[Message]) -> str:
    chat = [ChatMessage(role=message["role"], content=message["content"]) for message in messages]
    return llm.chat(chat).message.content or ""


def _outcome(question: Question, body: str, *, abstained: bool) -> dict[str, Any]:
    if not question.answerable:
        return {"abstained": abstained, "body": body}
    said = "" if abstained else body
    return {
        "house": house_match(said, question.wanted or ""),
        "value": value_match(said, question.answers),
        "over_refusal": abstained,
        "body": body,
    }


def _does_right(slice_: str, answer: str, wanted: str, question: Question) -> bool:
    """Tell whether an answer is right for its slice, in whatever format."""
    parsed = parse_answer(answer)
    if slice_ == "relevance":
        return answer.strip() == wanted
    if slice_ in ("missing", "closed_book"):
        return parsed.abstained
    return not parsed.abstained and value_match(parsed.body, question.answers)


def _difference(
    first: Sequence[Mapping[str, Any]],
    second: Mapping[str, Any],
    measure: str,
    cluster: Callable[[str], str],
) -> dict[str, float] | None:
    """Compare the mean of several seeds with one arm, question by question."""
    ids = [name for name, outcome in second.items() if outcome.get(measure) is not None]
    if not ids:
        return None
    ones = [fmean(bool(answers[name][measure]) for answers in first) for name in ids]
    others = [float(second[name][measure]) for name in ids]
    interval = paired_bootstrap(ones, others, [cluster(name) for name in ids])
    return {
        "questions": len(ids),
        "difference": round(100 * (fmean(ones) - fmean(others)), 2),
        "low": round(100 * interval.low, 2),
        "high": round(100 * interval.high, 2),
    }


def _rate(answers: Sequence[Answers], measure: str) -> float | None:
    """Mean share over seeds, in per cent."""
    values = [
        float(outcome[measure])
        for one in answers
        for outcome in one.values()
        if outcome.get(measure) is not None
    ]
    return round(100 * fmean(values), 1) if values else None


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Compute what is missing of one set and summarise it."""
    found: dict[str, list[Answers]] = {}
    for arm in options.arms:
        seeds = options.seeds[:1] if arm in ("base", "rag") else options.seeds
        found[arm] = [bench.answers(arm, seed) for seed in seeds]
    test = bench.given.test
    clusters = {question.id: bench.given.cluster_of(question) for question in test}
    summary: dict[str, Any] = {
        "note": bench.given.note,
        "train_questions": len(bench.given.train),
        "answerable": sum(question.answerable for question in test),
        "unanswerable": sum(not question.answerable for question in test),
        "seeds": options.seeds,
        "rates": {
            arm: {name: _rate(answers, name) for name in MEASURES} for arm, answers in found.items()
        },
        "by_seed": {
            arm: [{name: _rate([one], name) for name in MEASURES} for one in answers]
            for arm, answers in found.items()
        },
    }
    if "rag" in found:
        summary["against_rag"] = {
            arm: {
                name: _difference(answers, found["rag"][0], name, clusters.__getitem__)
                for name in MEASURES
            }
            for arm, answers in found.items()
            if arm != "rag"
        }
    swept = [arm for arm in ("rag", "rag_fine_tuned", "rag_instruct") if arm in options.arms]
    if options.sweep_questions:
        summary["sweep"] = {arm: _sweep(bench, arm, options.seeds) for arm in swept}
    if options.slice_questions and "rag" in swept:
        summary["harm"] = {
            arm: _harm(bench, arm, options.seeds, clusters) for arm in swept if arm != "rag"
        }
    return summary


def _sweep(bench: Bench, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    seeds = seeds[:1] if arm == "rag" else seeds
    rates: dict[str, Any] = {}
    for count in DISTRACTORS:
        answers = [bench.sweep(arm, seed, count) for seed in seeds]
        rates[str(count)] = {name: _rate(answers, name) for name in ("house", "value")}
    return rates


def _harm(
    bench: Bench, arm: str, seeds: Sequence[int], clusters: Mapping[str, str]
) -> dict[str, Any]:
    base = bench.slices("rag", 0)
    trained = [bench.slices(arm, seed) for seed in seeds]
    harm = {}
    cluster = {name: clusters.get(one["question"], name) for name, one in base.items()}
    for slice_ in dict.fromkeys(name.partition(":")[0] for name in base):
        own = {name: outcome for name, outcome in base.items() if name.startswith(f"{slice_}:")}
        found = _difference(trained, own, "right", cluster.__getitem__)
        harm[slice_] = {"rag": _rate([own], "right"), **(found or {})}
    return harm


def show(name: str, summary: Mapping[str, Any]) -> None:
    """Print a set's figures for people."""
    print(
        f"\n{name}: {summary['note']}\n{summary['train_questions']} training questions; "
        f"{summary['answerable']} answerable and {summary['unanswerable']} unanswerable held-out "
        f"questions; seeds {summary['seeds']}"
    )
    print(f"{'arm':<16}{'in form':>9}{'right':>9}{'abstains':>10}{'over':>7}   in form - RAG")
    for arm, rates in summary["rates"].items():
        cells = [f"{rates[key]}" for key in MEASURES]
        against = summary.get("against_rag", {}).get(arm, {}).get("house")
        line = f"{arm:<16}{cells[0]:>9}{cells[1]:>9}{cells[2]:>10}{cells[3]:>7}"
        print(line + (f"   {_interval(against)}" if against else ""))
    for arm, rates in summary.get("sweep", {}).items():
        listed = "  ".join(f"{count}: {rate['value']}" for count, rate in rates.items())
        print(f"right by distractors, {arm:<16} {listed}")
    for arm, slices in summary.get("harm", {}).items():
        for slice_, found in slices.items():
            print(f"{arm} - rag, {slice_:<12} {found['rag']} % before, {_interval(found)}")


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['difference']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


def _sets(options: argparse.Namespace) -> list[QuestionSet]:
    sizes = {"train": options.train, "test": options.test, "unanswerable": options.unanswerable}
    sets = []
    if "plant" in options.sets:
        sets.append(plant_set(options.output / "plant", halls=options.halls, **sizes))
    if "tables" in options.sets and options.tables:
        sets.append(tables_set(options.output / "tables", options.tables, **sizes))
    return sets


def _check_settings(options: argparse.Namespace) -> None:
    """Refuse to mix what was computed under other settings."""
    free = ("output", "fresh", "sets", "arms", "seeds", "threads")
    chosen = {name: str(value) for name, value in vars(options).items() if name not in free}
    path = options.output / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in chosen if before.get(name) != chosen[name]]
        if changed:
            sys.exit(
                f"'{options.output}' holds answers under another {', '.join(changed)}. Choose "
                "another folder, or begin anew with --fresh."
            )
    path.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and run."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.fresh:
        shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True, exist_ok=True)
    _check_settings(options)
    summaries = {}
    for given in _sets(options):
        bench = Bench(given, options)
        summaries[given.name] = measure(bench, options)
        bench.base.close()
        show(given.name, summaries[given.name])
        found = {"model": options.model, "top_k": options.top_k, **summaries}
        text = json.dumps(found, ensure_ascii=False, indent=1)
        (options.output / "summary.json").write_text(text + "\n", encoding="utf-8")


def _share(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of results, kept")
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    parser.add_argument(
        "--sets", nargs="+", choices=("plant", "tables"), default=("plant", "tables")
    )
    parser.add_argument("--tables", type=Path, nargs="*", default=[], help="folders of CSV files")
    parser.add_argument("--halls", type=int, default=4, help="size of the plant (default 4)")
    parser.add_argument("--train", type=int, default=500, help="answerable training questions")
    parser.add_argument("--test", type=int, default=600, help="answerable held-out questions")
    parser.add_argument("--unanswerable", type=int, default=150, help="held-out, without answer")
    parser.add_argument("--sweep-questions", type=int, default=200, help="0 leaves it out")
    parser.add_argument("--slice-questions", type=int, default=200, help="0 leaves it out")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--model", default="embedded")
    parser.add_argument(
        "--share",
        type=_share,
        nargs="+",
        default=[],
        metavar="SLICE=SHARE",
        help="shares of the recipe's slices other than the defaults, such as missing=0.2",
    )
    parser.add_argument("--top-k", type=int, default=3, help="passages in serving (default 3)")
    parser.add_argument(
        "--most-passages", type=int, default=5, help="passages in training (default 5)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--max-steps", type=int, help="stop training early, to try the script")
    parser.add_argument("--threads", type=int, help="threads of torch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
