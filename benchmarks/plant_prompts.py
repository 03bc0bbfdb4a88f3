"""Real prompts: questions about the plant in ``examples/`` with the passages found for them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from phi3_industry import KnowledgeBase, load_embedding
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message
from phi3_industry.grounding.questions import load_questions

PLANT = Path(__file__).parents[1] / "examples" / "plant"


def plant_prompts(count: int, *, passages: int, same_passages: bool = False) -> list[list[Message]]:
    """Build prompts as the query engine does.

    Args:
        count: How many.
        passages: Passages in each.
        same_passages: Whether all are about the passages that the first question finds.
    """
    questions = load_questions(PLANT / "questions.dev.jsonl")
    questions += load_questions(PLANT / "questions.train.jsonl")
    asked = [question.question for question in questions if question.answerable][:count]
    with (
        tempfile.TemporaryDirectory() as name,
        KnowledgeBase.open(name, embed_model=load_embedding("embedded")) as base,
    ):
        base.add(PLANT / "documents")
        retriever = base.as_retriever(similarity_top_k=passages)
        found = [
            [node.get_content() for node in retriever.retrieve(question)]
            for question in (asked[:1] if same_passages else asked)
        ]
    if same_passages:
        found *= len(asked)
    return [
        DEFAULT_PROMPT.grounded(question, texts)
        for question, texts in zip(asked, found, strict=True)
    ]
