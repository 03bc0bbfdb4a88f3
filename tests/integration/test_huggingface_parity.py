"""The same checkpoint through LlamaIndex's own HuggingFaceLLM, where that one is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document

from phi3_industry import Phi3LLM
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.grounding.questions import load_questions

PLANT = Path(__file__).parents[2] / "examples" / "plant"


@pytest.fixture(scope="module")
def prompts() -> list[list[ChatMessage]]:
    """Grounded and closed-book prompts on pages of the example plant."""
    texts = [path.read_text() for path in sorted((PLANT / "documents").rglob("*.md"))]
    splitter = SentenceSplitter(chunk_size=80, chunk_overlap=0)
    nodes = splitter.get_nodes_from_documents([Document(text=text) for text in texts])
    passages = [node.get_content() for node in nodes]
    questions = load_questions(PLANT / "questions.dev.jsonl")[:40]
    assert len(passages) > 20
    assert len(questions) == 40
    made = [
        DEFAULT_PROMPT.grounded(
            question.question, passages[number % 20 : number % 20 + 1 + number % 3]
        )
        for number, question in enumerate(questions)
    ]
    made += [DEFAULT_PROMPT.closed_book(question.question) for question in questions[:10]]
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
