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
from phi3_industry.cli.answers import describe_answer, show_answer
from phi3_industry.cli.command import Command, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.index import show_report
from phi3_industry.cli.parts import choose_threads, open_knowledge_base, whole_file
from phi3_industry.errors import ConfigurationError

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult
    from phi3_industry.knowledge_base import KnowledgeBase
    from phi3_industry.query_engine.hybrid import HybridQueryEngine

__all__ = ["COMMAND", "examples_folder"]

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


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        default="demo-output",
        metavar="FOLDER",
        help="where the knowledge base, the adapter and report.html go (default: %(default)s)",
    )
    parser.add_argument("--docs", metavar="FOLDER", help="your documents instead of the shipped")
    parser.add_argument("--ask", metavar="QUESTION", help="a question of yours")
    parser.add_argument(
        "--train-questions", metavar="FILE", help="with --docs: train an adapter on these questions"
    )
    parser.add_argument(
        "--questions", metavar="FILE", help="with --docs: compare the four ways on these questions"
    )


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Show the main job on the shipped documents or on the user's."""
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
    made: dict[str, Any] = {"kb": str(output / "kb")}
    with open_knowledge_base(str(output / "kb"), console) as knowledge_base:
        demo = _Demo(knowledge_base, output, console)
        for folder in folders:
            with _step(console, f"Reading {folder.parent.name}/{folder.name}"):
                show_report(
                    console, knowledge_base.add(folder, show_progress=console.shows_progress)
                )
        if train is not None:
            with _step(console, f"Training an adapter on {train.name}"):
                demo.train(train)
            made["adapter"] = str(demo.adapter_folder)
        if held_out is not None:
            with _step(console, f"Asking {held_out.name} in every way"):
                result = demo.compare(held_out)
            made |= {
                "report": str(output / "report.html"),
                "recommendation": str(result.recommendation),
            }
            demo.show_answers(result)
        if arguments.ask is not None:
            made["answers"] = demo.ask_every_way(arguments.ask)
    console.document(made)
    return ExitCode.DONE


def _given(path: str | None) -> Path | None:
    return None if path is None else Path(path)


class _Demo:
    """The main job, step by step, on one knowledge base and the embedded model."""

    def __init__(self, knowledge_base: KnowledgeBase, output: Path, console: Console) -> None:
        from phi3_industry.llms import Phi3LLM

        choose_threads("embedded")
        self._knowledge_base = knowledge_base
        self._llm = Phi3LLM(model="embedded")
        self._output = output
        self._console = console
        self._adapter: str | None = None

    @property
    def adapter_folder(self) -> Path:
        return self._output / "adapters" / _ADAPTER

    @property
    def ways(self) -> tuple[str, ...]:
        """The strategies that there is something for."""
        from phi3_industry.evaluation.compare import STRATEGIES

        return STRATEGIES if self._adapter is not None else STRATEGIES[:2]

    def train(self, questions: Path) -> None:
        from phi3_industry.finetuning.dataset import TrainingSetBuilder
        from phi3_industry.finetuning.trainer import LoraFinetuneEngine

        builder = TrainingSetBuilder(self._knowledge_base, llm=self._llm)
        train_set = builder.build(questions=questions)
        self._console.show(train_set.report)
        tuner = LoraFinetuneEngine(
            self._llm,
            train_set=train_set,
            output_dir=self.adapter_folder,
            packing=True,  # the same losses in less time
            show_progress=self._console.shows_progress,
            report=self._console.say,
        )
        tuner.finetune(resume=True)  # an interrupted demo goes on
        self._adapter = tuner.get_finetuned_model().adapter

    def compare(self, questions: Path) -> ComparisonResult:
        from phi3_industry.evaluation.compare import compare_strategies

        result = compare_strategies(
            self._engine(),
            questions=questions,
            strategies=self.ways,
            show_progress=self._console.shows_progress,
        )
        self._console.show(result.summary())
        report = self._output / "report.html"
        _write_report(result, report, curve=self.adapter_folder / "training" / "loss.png")
        self._console.show(f"\nThe report with every question and answer: {report}")
        return result

    def show_answers(self, result: ComparisonResult) -> None:
        """Ask some questions again, with the strategy left to the engine."""
        show = self._console.show
        show("\nThree answers, with what they cite and why they were given this way")
        engine = self._engine()
        answerable = [question for question in result.questions if question.answerable]
        unanswerable = [question for question in result.questions if not question.answerable]
        for question in [*answerable[: _SHOWN_ANSWERS - 1], *unanswerable[:1]]:
            show(f"\n{question.question}")
            show_answer(self._console, engine.query(question.question))
            show(f"  wanted: {question.wanted or 'an abstention, the documents do not say'}")

    def ask_every_way(self, question: str) -> dict[str, Any]:
        answers = {}
        self._console.show(f"\n{question}")
        for strategy in (*self.ways, "auto"):
            self._console.show(f"\n{strategy}")
            response = self._engine().with_strategy(strategy).query(question)
            show_answer(self._console, response)
            answers[strategy] = describe_answer(question, response)
        return answers

    def _engine(self) -> HybridQueryEngine:
        return self._knowledge_base.as_query_engine(self._llm, adapter=self._adapter)


def _write_report(result: ComparisonResult, report: Path, *, curve: Path) -> None:
    from phi3_industry.evaluation.report import image_data_uri

    figures = {"The adapter's training loss": image_data_uri(curve)} if curve.is_file() else {}
    packages = ("torch", "transformers", "peft", "trl", "llama-index-core")
    with whole_file(str(report)) as path:
        result.to_html(
            path,
            date=date.today().isoformat(),
            settings={
                "hardware": f"{platform.machine()} CPU, {cpu_count()} cores",
                "versions": ", ".join(
                    [
                        f"phi3-industry {__version__}",
                        *(f"{name} {version(name)}" for name in packages),
                    ]
                ),
            },
            figures=figures,
        )


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    """Show a heading, and afterwards how long it took."""
    console.show(f"\n== {title}", style="bold")
    started = time.monotonic()
    yield
    console.show(f"   ({time.monotonic() - started:.0f} s)")


COMMAND = Command(
    summary="show the main job, on shipped documents or on yours",
    description=(
        "Index documents, train an adapter, ask questions four ways (base, RAG, fine-tuned,\n"
        "RAG + fine-tuned), and write report.html. Works offline on the embedded model.\n"
        "With --docs it works on your own folder instead of the shipped documents."
    ),
    examples=("", '--docs manuals --ask "Which oil does P-7 have?"'),
    add_arguments=_add_arguments,
    run=_run,
)
