"""``phi3-industry index``: put documents and tables into a knowledge base."""

from __future__ import annotations

import argparse

from phi3_industry.cli.parts import open_knowledge_base

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Index a folder or a file and print what became of each document."""
    with open_knowledge_base(arguments.kb, embedding=arguments.embedding) as knowledge_base:
        ingest = knowledge_base.refresh if arguments.refresh else knowledge_base.add
        print(ingest(arguments.source, show_progress=True))
    return 0
