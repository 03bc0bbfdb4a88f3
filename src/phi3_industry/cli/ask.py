"""``phi3-industry ask``: ask a knowledge base a question."""

from __future__ import annotations

import argparse
import json

from phi3_industry.cli.parts import (
    adapter_name,
    describe_answer,
    load_llm,
    open_knowledge_base,
    print_answer,
)

__all__ = ["run"]

_ABSTAINED = 3


def run(arguments: argparse.Namespace) -> int:
    """Answer one question; gives 3 if the answer abstains."""
    with open_knowledge_base(
        arguments.kb, embedding=arguments.embedding, read_only=True
    ) as knowledge_base:
        engine = knowledge_base.as_query_engine(
            load_llm(arguments),
            adapter=adapter_name(arguments),
            strategy=arguments.strategy,
            similarity_top_k=arguments.top_k,
        )
        response = engine.query(arguments.question)
    if arguments.json:
        print(json.dumps(describe_answer(arguments.question, response), ensure_ascii=False))
    else:
        print_answer(arguments.question, response)
    return _ABSTAINED if (response.metadata or {})["abstained"] else 0
