"""``phi3-industry transfer``: copy a knowledge base from one vector store to another."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phi3_industry.cli.command import Command, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.stores import opened_store
from phi3_industry.errors import StoreError

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the knowledge base to copy, a folder")
    parser.add_argument("target", help="the folder of the copy")
    parser.add_argument(
        "--from", dest="source_store", metavar="ADDRESS", help="the store that the source lies in"
    )
    parser.add_argument(
        "--to",
        dest="target_store",
        metavar="ADDRESS",
        help="the store to put the copy into, such as qdrant+http://127.0.0.1:6333?collection=kb "
        "or postgresql://me@127.0.0.1/kb?table=kb; without one it lies in the folder",
    )


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Copy, compare, and show what both stores hold."""
    from phi3_industry.vector_stores.others import open_store, transfer

    if not Path(arguments.source).is_dir():
        raise StoreError(f"There is no knowledge base in '{arguments.source}'.")
    with ExitStack() as opened:

        def opened_at(folder: str, address: str | None, option: str, length: int | None) -> Any:
            return opened.enter_context(
                opened_store(folder, address, option=option, dimensions=lambda: length)
            )

        source = open_store(
            arguments.source,
            vector_store=opened_at(arguments.source, arguments.source_store, "--from", None),
            read_only=True,
        )
        opened.callback(source.close)
        target = open_store(
            arguments.target,
            identity=source.stored_identity,
            vector_store=opened_at(
                arguments.target, arguments.target_store, "--to", source.dimensions
            ),
        )
        opened.callback(target.close)
        report = transfer(source, target, show_progress=console.shows_progress)
    console.show(report)
    console.document(asdict(report))
    return ExitCode.DONE


COMMAND = Command(
    summary="copy a knowledge base from one vector store to another",
    description=(
        "Copy texts, metadata, relationships, content hashes and vectors; nothing is embedded or\n"
        "read anew. At the end both are compared. What was interrupted goes on when it is run\n"
        "again. Give the copy's address as --store to the other commands afterwards."
    ),
    examples=('kb copy --to "qdrant+http://127.0.0.1:6333?collection=kb"',),
    add_arguments=_add_arguments,
    run=_run,
)
