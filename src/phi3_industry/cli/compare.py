"""``phi3-industry compare``: measure which way of answering pays."""

from __future__ import annotations

import argparse
import json
from datetime import date
from typing import TYPE_CHECKING

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
from phi3_industry.cli.stores import chosen_store

if TYPE_CHECKING:
    from phi3_industry.evaluation.costs import Prices
    from phi3_industry.finetuning.glossary import Glossary

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(
        parser, "kb", "store", "embedding", "adapter", "top_k", "conflicts", positional="questions"
    )
    add_settings(parser, "model", "quantization", "device", "base_url", "served_model")
    add_server_key(parser)
    add_settings(parser, "glossary", "workers")
    add_settings(
        parser, "prompt_price", "completion_price", "hour_price", "training_price", "currency"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        help="keep each answer in this file at once; a comparison that was stopped goes on with it",
    )
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
    from phi3_industry.evaluation.compare import compare_strategies
    from phi3_industry.evaluation.export import as_json
    from phi3_industry.grounding.questions import load_questions

    questions = load_questions(arguments.questions)
    with open_knowledge_base(
        arguments.kb,
        console,
        store=chosen_store(arguments, console),
        embedding=arguments.embedding,
        read_only=True,
    ) as knowledge_base:
        engine = knowledge_base.as_query_engine(
            load_llm(arguments, console),
            adapter=arguments.adapter_name,
            similarity_top_k=arguments.top_k,
            conflicts=arguments.conflicts,
        )
        result = compare_strategies(
            engine,
            questions=questions,
            glossary=_glossary(arguments),
            prices=_prices(arguments),
            workers=arguments.workers,
            journal=arguments.journal,
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


def _glossary(arguments: argparse.Namespace) -> Glossary | None:
    from phi3_industry.finetuning.glossary import load_glossary

    return None if arguments.glossary is None else load_glossary(arguments.glossary)


def _prices(arguments: argparse.Namespace) -> Prices | None:
    """Take the prices that were given; ``None`` if there is none."""
    from phi3_industry.evaluation.costs import Prices

    given = {
        "per_million_prompt_tokens": arguments.prompt_price,
        "per_million_completion_tokens": arguments.completion_price,
        "per_hour": arguments.hour_price,
        "training": arguments.training_price,
    }
    given = {name: price for name, price in given.items() if price is not None}
    return Prices(**given, currency=arguments.currency) if given else None


COMMAND = Command(
    summary="measure which way of answering pays",
    description=(
        "Ask the questions of a file in several ways and print the scores side by side:\n"
        "base, rag and auto, and with --adapter fine_tuned and rag_fine_tuned.\n"
        "That it cannot tell them apart is a result like any other (exit code 0)."
    ),
    examples=("questions.dev.jsonl --adapter adapters/mine --html report.html",),
    add_arguments=_add_arguments,
    run=_run,
)
