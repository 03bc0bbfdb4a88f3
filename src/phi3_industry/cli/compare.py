"""``phi3-industry compare``: measure which way of answering pays."""

from __future__ import annotations

import argparse
from datetime import date

from phi3_industry.cli.parts import adapter_name, load_llm, open_knowledge_base

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Ask every question in every way and print the scores side by side."""
    from phi3_industry.evaluation.compare import STRATEGIES, compare_strategies
    from phi3_industry.grounding.questions import load_questions

    questions = load_questions(arguments.questions)
    adapter = adapter_name(arguments)
    with open_knowledge_base(
        arguments.kb, embedding=arguments.embedding, read_only=True
    ) as knowledge_base:
        engine = knowledge_base.as_query_engine(
            load_llm(arguments), adapter=adapter, similarity_top_k=arguments.top_k
        )
        result = compare_strategies(
            engine,
            questions=questions,
            strategies=STRATEGIES if adapter is not None else STRATEGIES[:2],
        )
    print(result.summary())
    if arguments.html:
        result.to_html(arguments.html, date=date.today().isoformat())
        print(f"The report is in {arguments.html}")
    if arguments.json:
        result.to_json(arguments.json)
    if arguments.csv:
        result.to_csv(arguments.csv)
    return 0
