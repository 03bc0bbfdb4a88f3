"""``phi3-industry compare``: measure which way of answering pays."""

from __future__ import annotations

import argparse
import json
from datetime import date

from phi3_industry.cli.command import Command, CommandLineError, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.options import add_server_key, add_settings
from phi3_industry.cli.parts import (
    check_file_to_write,
    check_places,
    load_llm,
    open_knowledge_base,
    whole_file,
)

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, "kb", "embedding", "adapter", "top_k", positional="questions")
    add_settings(parser, "model", "quantization", "device", "base_url", "served_model")
    add_server_key(parser)
    parser.add_argument("--html", metavar="FILE", help="write the report")
    parser.add_argument("--csv", metavar="FILE", help="write the scored answers as CSV")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Ask every question in every way and print the scores side by side."""
    if arguments.questions is None:
        raise CommandLineError(
            "There are no questions: name a file, or set questions in the project file."
        )
    check_places(arguments)
    for file in (arguments.html, arguments.csv):
        check_file_to_write(file)
    from phi3_industry.evaluation.compare import STRATEGIES, compare_strategies
    from phi3_industry.evaluation.export import as_json
    from phi3_industry.grounding.questions import load_questions

    questions = load_questions(arguments.questions)
    adapter = arguments.adapter_name
    with open_knowledge_base(
        arguments.kb, console, embedding=arguments.embedding, read_only=True
    ) as knowledge_base:
        engine = knowledge_base.as_query_engine(
            load_llm(arguments, console), adapter=adapter, similarity_top_k=arguments.top_k
        )
        result = compare_strategies(
            engine,
            questions=questions,
            strategies=STRATEGIES if adapter is not None else STRATEGIES[:2],
            show_progress=console.shows_progress,
        )
    console.show(result.summary())
    if arguments.html:
        with whole_file(arguments.html) as path:
            result.to_html(path, date=date.today().isoformat())
        console.say(f"The report is in {arguments.html}")
    if arguments.csv:
        with whole_file(arguments.csv) as path:
            result.to_csv(path)
    if console.as_json:
        console.document(json.loads(as_json(result)))
    return ExitCode.DONE


COMMAND = Command(
    summary="measure which way of answering pays",
    description=(
        "Ask the questions of a file in several ways and print the scores side by side:\n"
        "base and rag, and with --adapter fine_tuned and rag_fine_tuned.\n"
        "That it cannot tell them apart is a result like any other (exit code 0)."
    ),
    examples=("questions.dev.jsonl --adapter adapters/mine --html report.html",),
    add_arguments=_add_arguments,
    run=_run,
)
