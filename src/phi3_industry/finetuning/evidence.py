"""The passages that a retriever finds for a question, parted by whether they hold its answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore

from phi3_industry.grounding.citations import verify
from phi3_industry.grounding.questions import Question

__all__ = ["Evidence", "Passage", "gather_evidence", "is_house_knowledge"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One retrieved node as a prompt shows it.

    Attributes:
        name: Its ``source_id``, or its node id if it has none.
        document: Its document's id, or its name if it has none.
        ids: All names by which a question may point at it.
        text: What the model reads.
    """

    name: str
    document: str
    ids: frozenset[str]
    text: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A question with the passage that holds its answer, and passages that do not.

    Attributes:
        question: The question.
        gold: The passage that holds the answer; ``None`` if none was found.
        distractors: Other passages, best first; none of them holds an answer or is named gold.
    """

    question: Question
    gold: Passage | None
    distractors: tuple[Passage, ...]


def gather_evidence(question: Question, retriever: BaseRetriever) -> Evidence:
    """Retrieve for a question and part what holds its answer from what does not.

    Args:
        question: The question.
        retriever: The retriever that will serve.

    Returns:
        The evidence. A passage is gold if the whole of an answer stands in it and, where the
        question names ``gold_ids``, one of them names it.
    """
    found = _passages(retriever.retrieve(question.question))
    gold = _find_gold(question, found)
    if gold is None and question.gold_ids and question.answerable:
        # the question alone may not find its passage; with the answer beside it, it often does
        more = retriever.retrieve(f"{question.question} {question.answers[0]}")
        gold = _find_gold(question, _passages(more))
    distractors = [
        passage
        for passage in found
        if passage is not gold
        and not passage.ids & set(question.gold_ids)
        and not any(_holds(passage.text, answer) for answer in question.answers)
    ]
    return Evidence(question=question, gold=gold, distractors=tuple(distractors))


def is_house_knowledge(question: Question) -> bool:
    """Tell whether a question's metadata says that it is to be answered without documents."""
    return question.metadata.get("closed_book") is True


def _passages(nodes: Sequence[NodeWithScore]) -> list[Passage]:
    passages = []
    for item in nodes:
        node = item.node
        source_id = str(node.metadata.get("source_id") or node.node_id)
        document = str(node.ref_doc_id or source_id)
        passages.append(
            Passage(
                name=source_id,
                document=document,
                ids=frozenset({node.node_id, source_id, document}),
                text=node.get_content(metadata_mode=MetadataMode.LLM),
            )
        )
    return passages


def _find_gold(question: Question, passages: Sequence[Passage]) -> Passage | None:
    """Find the best passage that holds an answer, among the named ones if any are named."""
    named = [p for p in passages if not question.gold_ids or p.ids & set(question.gold_ids)]
    for answer in question.answers:
        for passage in named:
            if _holds(passage.text, answer):
                return passage
    return None


def _holds(passage: str, answer: str) -> bool:
    """Tell whether the whole of an answer stands in a passage, as the citation check sees it."""
    return any(
        citation.verified and _folded(citation.quote) == _folded(answer)
        for citation in verify(f"[1] {answer}", [passage])[:1]
    )


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
