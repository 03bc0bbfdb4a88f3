"""``phi3-industry index``: put documents and tables into a knowledge base."""

from __future__ import annotations

import argparse

from phi3_industry.cli.parts import open_knowledge_base

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Index a folder, a file or a query's rows and print what became of each document."""
    with open_knowledge_base(
        arguments.kb, embedding=arguments.embedding, summaries=arguments.summaries
    ) as knowledge_base:
        if arguments.query is not None:
            name = arguments.name or "query"
            print(knowledge_base.add_sql(arguments.source, arguments.query, name=name))
            return 0
        ingest = knowledge_base.refresh if arguments.refresh else knowledge_base.add
        print(ingest(arguments.source, show_progress=True))
    return 0
