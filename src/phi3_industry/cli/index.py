"""``phi3-industry index``: put documents and tables into a knowledge base."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry.cli.command import Command, CommandLineError, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.options import add_settings
from phi3_industry.cli.parts import open_knowledge_base
from phi3_industry.cli.stores import chosen_store

if TYPE_CHECKING:
    from phi3_industry.knowledge_base import IngestReport, KnowledgeBase

__all__ = ["COMMAND", "show_report"]

_SHOWN = 20


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(
        parser,
        *("kb", "store", "embedding", "summaries", "refresh"),
        positional="documents",
        many=True,
    )
    parser.add_argument(
        "--query",
        metavar="SQL",
        help="a query whose rows are added; DOCUMENTS is then the database's SQLAlchemy URL",
    )
    parser.add_argument("--name", help="the name of what a query gives (default: query)")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Index folders, files or a query's rows and show what became of each document."""
    _check(arguments)
    started = time.monotonic()
    with open_knowledge_base(
        arguments.kb,
        console,
        store=chosen_store(arguments, console),
        embedding=arguments.embedding,
        summaries=arguments.summaries,
    ) as knowledge_base:
        reports = [
            (source, _ingest(knowledge_base, source, arguments, console))
            for source in arguments.documents
        ]
    for source, report in reports:
        shown = "the query" if arguments.query is not None else source
        console.show(f"{shown} -> {arguments.kb}", style="bold")
        show_report(console, report)
    console.document(
        {
            "kb": arguments.kb,
            "sources": [
                {"source": None if arguments.query else source, **_describe(report)}
                for source, report in reports
            ],
        }
    )
    console.say(f"Done in {time.monotonic() - started:.1f} s.")
    return ExitCode.DONE


def _check(arguments: argparse.Namespace) -> None:
    given = arguments.origins["documents"] == "command line"
    if arguments.query is not None and (not given or len(arguments.documents) != 1):
        raise CommandLineError("--query needs the URL of one database before it.")
    if not arguments.documents:
        raise CommandLineError(
            "There is nothing to index: name a folder or file, or set documents in the project "
            "file."
        )


def _ingest(
    knowledge_base: KnowledgeBase, source: str, arguments: argparse.Namespace, console: Console
) -> IngestReport:
    if arguments.query is not None:
        name = arguments.name or "query"
        return knowledge_base.add_sql(source, arguments.query, name=name)
    refreshes = arguments.refresh and not Path(source).is_file()
    ingest = knowledge_base.refresh if refreshes else knowledge_base.add
    return ingest(source, show_progress=console.shows_progress)


def show_report(console: Console, report: IngestReport) -> None:
    """Show what became of documents: the counts, then each that is not as it was."""
    console.show(f"Documents: {report.counts}.")
    lines = [
        *(f"+ {name}" for name in report.added),
        *(f"~ {name}" for name in report.updated),
        *(f"- {name}" for name in report.deleted),
        *(f"! {name}: {reason}" for name, reason in report.skipped),
    ]
    lines.sort(key=lambda line: line[0] != "!")  # what was left out first
    shown = lines if console.verbose else lines[:_SHOWN]
    for line in shown:
        console.show(f"  {line}")
    if len(shown) < len(lines):
        console.show(f"  ... and {len(lines) - len(shown)} more (--verbose shows all)")


def _describe(report: IngestReport) -> dict[str, Any]:
    skipped = [{"document": name, "reason": reason} for name, reason in report.skipped]
    return {**asdict(report), "skipped": skipped}


COMMAND = Command(
    summary="put documents and tables into a knowledge base",
    description=(
        "Read folders and files (md, txt, html, pdf, docx, pptx, eml, csv, tsv, xlsx, parquet)\n"
        "into a knowledge base, or with --query the rows that a database gives.\n"
        "What is there already and has not changed costs nothing. Of each document it says:\n"
        "+ added, ~ updated, - deleted, ! skipped and why."
    ),
    examples=(
        "documents",
        "documents --refresh --kb kb",
        'documents --kb kb --store "postgresql://me@127.0.0.1/kb?table=kb"',
        'sqlite:///plant.db --query "SELECT * FROM pumps ORDER BY tag" --name pumps',
    ),
    add_arguments=_add_arguments,
    run=_run,
)
