"""``phi3-industry demo``: the main job from documents to a measured answer, offline."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry import __version__
from phi3_industry.cli.parts import choose_threads, open_knowledge_base, print_answer
from phi3_industry.errors import ConfigurationError

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult
    from phi3_industry.knowledge_base import KnowledgeBase
    from phi3_industry.llms import Phi3LLM

__all__ = ["examples_folder", "run"]

_ADAPTER = "house-format"
_SHOWN_ANSWERS = 3


def examples_folder() -> Path:
    """Folder of the shipped documents: inside the installed package, or in the source tree.

    Raises:
        ConfigurationError: This installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / "plant" / "documents").is_dir():
            return folder
    raise ConfigurationError(
        "This installation holds no example documents. Pass your own with --docs FOLDER."
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the main job on the shipped documents or on the user's."""
    from phi3_industry.llms import Phi3LLM

    if arguments.docs is None:
        examples = examples_folder()
        folders = [examples / "plant" / "documents", examples / "aws-limits" / "documents"]
        train: Path | None = examples / "plant" / "questions.train.jsonl"
        held_out: Path | None = examples / "plant" / "questions.dev.jsonl"
    else:
        folders = [Path(arguments.docs)]
        train = _given(arguments.train_questions)
        held_out = _given(arguments.questions)
    output = Path(arguments.output)
    choose_threads("embedded")
    llm = Phi3LLM(model="embedded")
    with open_knowledge_base(str(output / "kb")) as knowledge_base:
        for folder in folders:
            with _step(f"Reading {folder.parent.name}/{folder.name}"):
                print(knowledge_base.add(folder, show_progress=True))
        adapter = None
        if train is not None:
            with _step(f"Training an adapter on {train.name}"):
                adapter = _train(knowledge_base, llm, train, output / "adapters" / _ADAPTER)
        if held_out is not None:
            with _step(f"Asking {held_out.name} in every way"):
                result = _compare(knowledge_base, llm, adapter, held_out)
                print(result.summary())
                _write_report(result, output)
            _show_answers(knowledge_base, llm, adapter, result)
        if arguments.ask is not None:
            _ask_every_way(knowledge_base, llm, adapter, arguments.ask)
    return 0


def _given(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def _train(knowledge_base: KnowledgeBase, llm: Phi3LLM, questions: Path, output: Path) -> str:
    from phi3_industry.finetuning.dataset import TrainingSetBuilder
    from phi3_industry.finetuning.trainer import LoraFinetuneEngine

    train_set = TrainingSetBuilder(knowledge_base, llm=llm).build(questions=questions)
    print(train_set.report)
    tuner = LoraFinetuneEngine(llm, train_set=train_set, output_dir=output)
    tuner.finetune(resume=True)  # an interrupted demo goes on
    return tuner.get_finetuned_model().adapter or ""


def _compare(
    knowledge_base: KnowledgeBase, llm: Phi3LLM, adapter: str | None, questions: Path
) -> ComparisonResult:
    from phi3_industry.evaluation.compare import STRATEGIES, compare_strategies

    return compare_strategies(
        knowledge_base.as_query_engine(llm, adapter=adapter),
        questions=questions,
        strategies=STRATEGIES if adapter is not None else STRATEGIES[:2],
    )


def _write_report(result: ComparisonResult, output: Path) -> None:
    from phi3_industry.evaluation.report import image_data_uri

    curve = output / "adapters" / _ADAPTER / "training" / "loss.png"
    figures = {"The adapter's training loss": image_data_uri(curve)} if curve.is_file() else {}
    packages = ("torch", "transformers", "peft", "trl", "llama-index-core")
    report = output / "report.html"
    result.to_html(
        report,
        date=date.today().isoformat(),
        settings={
            "hardware": f"{platform.machine()} CPU, {cpu_count()} cores",
            "versions": ", ".join(
                [f"phi3-industry {__version__}", *(f"{name} {version(name)}" for name in packages)]
            ),
        },
        figures=figures,
    )
    print(f"\nThe report with every question and answer: {report}")


def _show_answers(
    knowledge_base: KnowledgeBase, llm: Phi3LLM, adapter: str | None, result: ComparisonResult
) -> None:
    """Ask some questions again, with the strategy left to the engine."""
    print("\nThree answers, with what they cite and why they were given this way\n")
    engine = knowledge_base.as_query_engine(llm, adapter=adapter)
    answerable = [question for question in result.questions if question.answerable]
    unanswerable = [question for question in result.questions if not question.answerable]
    shown = [*answerable[: _SHOWN_ANSWERS - 1], *unanswerable[:1]]
    for question in shown:
        print_answer(question.question, engine.query(question.question))
        print(f"    wanted: {question.wanted or 'an abstention, the documents do not say'}\n")


def _ask_every_way(
    knowledge_base: KnowledgeBase, llm: Phi3LLM, adapter: str | None, question: str
) -> None:
    from phi3_industry.evaluation.compare import STRATEGIES

    engine: Any = knowledge_base.as_query_engine(llm, adapter=adapter)
    ways = STRATEGIES if adapter is not None else STRATEGIES[:2]
    for strategy in (*ways, "auto"):
        print(f"\n{strategy}")
        print_answer(question, engine.with_strategy(strategy).query(question))


@contextmanager
def _step(title: str) -> Iterator[None]:
    """Print a heading, and afterwards how long it took."""
    print(f"\n== {title}")
    started = time.monotonic()
    yield
    print(f"   ({time.monotonic() - started:.0f} s)")
