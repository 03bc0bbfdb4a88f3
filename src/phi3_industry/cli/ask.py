"""``phi3-industry ask``: ask a knowledge base a question, or talk with it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from phi3_industry.cli.answers import describe_answer, show_answer, show_streamed_answer
from phi3_industry.cli.command import Command, CommandLineError, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.options import add_server_key, add_settings
from phi3_industry.cli.parts import check_places, load_llm, open_knowledge_base
from phi3_industry.cli.stores import chosen_store

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question", nargs="?", metavar="QUESTION", help="the question; - reads it from a pipe"
    )
    parser.add_argument(
        "--chat",
        action="store_true",
        help="a conversation: follow-up questions are understood by what was said before",
    )
    add_settings(parser, "kb", "store", "embedding", "strategy", "top_k", "conflicts", "adapter")
    add_settings(parser, "model", "quantization", "device", "base_url", "served_model")
    add_server_key(parser)


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Answer one question, or converse."""
    question = _question(arguments)
    check_places(arguments)
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
            strategy=arguments.strategy,
            similarity_top_k=arguments.top_k,
            conflicts=arguments.conflicts,
            streaming=console.is_terminal and not arguments.chat,
        )
        if arguments.chat:
            from phi3_industry.cli.chat import converse

            return converse(engine, console, first=question)
        with console.working("Reading"):
            response: Any = engine.query(question or "")
        if console.is_terminal:
            show_streamed_answer(
                console,
                response.response_gen,
                sources=response.source_nodes,
                metadata=response.metadata,
            )
        else:
            show_answer(console, response)
            console.document(describe_answer(question or "", response))
    return ExitCode.ABSTAINED if response.metadata["abstained"] else ExitCode.DONE


def _question(arguments: argparse.Namespace) -> str | None:
    question: str | None = arguments.question
    if question == "-":
        question = sys.stdin.read()
    if question is not None and not question.strip():
        raise CommandLineError("The question is empty.")
    if question is None and not arguments.chat:
        raise CommandLineError("There is no question: give one, or --chat for a conversation.")
    return question


COMMAND = Command(
    summary="ask a knowledge base a question, or talk with it (--chat)",
    description=(
        "Answer a question with its sources, and say which way was chosen and why.\n"
        "In a conversation /sources shows the passages, /reset forgets what was said, and\n"
        "/quit or Ctrl-D ends."
    ),
    examples=(
        '"What is the suction pressure of K-410?"',
        '"Which oil does P-7 have?" --strategy rag --json',
        "--chat",
    ),
    add_arguments=_add_arguments,
    run=_run,
    exit_codes={ExitCode.ABSTAINED: "the answer abstains"},
)
