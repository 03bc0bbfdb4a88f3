"""The same checkpoint through LlamaIndex's own HuggingFaceLLM, where that one is right."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage

from phi3_industry import Phi3LLM
from phi3_industry.grounding.prompt import DEFAULT_PROMPT

PLANT = Path(__file__).parents[2] / "examples" / "plant"


@pytest.fixture(scope="module")
def prompts() -> list[list[ChatMessage]]:
    """Grounded and closed-book prompts on rows of the example plant's tables."""
    rows: list[dict[str, str]] = []
    for table in sorted((PLANT / "documents" / "tables").glob("*.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            dialect = csv.Sniffer().sniff(file.readline())
            file.seek(0)
            rows += csv.DictReader(file, dialect=dialect)
    assert len(rows) > 20
    passages = ["; ".join(f"{key}: {value}" for key, value in row.items() if value) for row in rows]
    made = []
    for number, row in enumerate(rows[:30]):
        tag = next(iter(row.values()))
        columns = [key for key, value in row.items() if value][1:]
        question = f"What is the {columns[number % len(columns)].lower()} of {tag}?"
        shown = passages[number : number + 1 + number % 3]
        made.append(DEFAULT_PROMPT.grounded(question, shown))
        made.append(DEFAULT_PROMPT.closed_book(question))
    return [[ChatMessage(**message) for message in messages] for messages in made]


def test_greedy_text_equals_that_of_huggingface_llm(
    embedded_llm: Phi3LLM, prompts: list[list[ChatMessage]]
) -> None:
    from llama_index.llms.huggingface import HuggingFaceLLM

    loaded = embedded_llm._shared.engine.loaded
    other = HuggingFaceLLM(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        is_chat_model=True,
        max_new_tokens=48,
        generate_kwargs={"do_sample": False},
    )
    texts = set()
    for messages in prompts:
        ours = embedded_llm.chat(messages, max_new_tokens=48).message.content
        assert ours == other.chat(messages).message.content
        texts.add(ours)
    assert len(texts) > 10  # the prompts are not all answered alike
