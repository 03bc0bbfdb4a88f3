"""The passages that a retriever finds for a question, parted by whether they hold its answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore

from phi3_industry.grounding.citations import verify
from phi3_industry.grounding.questions import Question

__all__ = [
    "Evidence",
    "Passage",
    "find_whole",
    "folded",
    "gather_evidence",
    "is_house_knowledge",
    "stale_answers",
]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One retrieved node as a prompt shows it.

    Attributes:
        node_id: The node's id.
        name: Its ``source_id``, or its node id if it has none.
        document: Its document's id, or its name if it has none.
        text: What the model reads.
        header: The context header that its text begins with, a line of its own; empty if it has
            none.
        date: The day of its document as ISO 8601 text, if the header ends with it.
    """

    node_id: str
    name: str
    document: str
    text: str
    header: str = ""
    date: str = ""

    @property
    def ids(self) -> frozenset[str]:
        """All names by which a question may point at it."""
        return frozenset({self.node_id, self.name, self.document})


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A question with the passage that holds its answer, and passages that do not.

    Attributes:
        question: The question.
        gold: The passage that holds the answer; ``None`` if none was found.
        quote: The answer as that passage spells it; empty if there is none.
        distractors: Other passages, best first; none of them holds an answer or is named gold.
        stale: A passage that holds an answer which the question calls out of date.
        found: Whether the retriever finds ``gold`` by the question alone.
    """

    question: Question
    gold: Passage | None
    quote: str = ""
    distractors: tuple[Passage, ...] = ()
    stale: Passage | None = None
    found: bool = False

    @property
    def wanted(self) -> str | None:
        """The wanted answer, with the fact in it as the passage spells it."""
        wanted = self.question.wanted
        if wanted is None or not self.quote:
            return wanted
        said = find_whole(self.quote, wanted)
        return wanted.replace(said, self.quote, 1) if said else wanted


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
    gold, quote = _find_gold(question, found)
    found_alone = gold is not None
    if gold is None and question.gold_ids and question.answerable:
        # the question alone may not find its passage; with the answer beside it, it often does
        more = retriever.retrieve(f"{question.question} {question.answers[0]}")
        gold, quote = _find_gold(question, _passages(more))
    others = [
        passage
        for passage in found
        if passage is not gold
        and not passage.ids & set(question.gold_ids)
        and not any(find_whole(answer, passage.text) for answer in question.answers)
    ]
    old = stale_answers(question)
    stale = [p for p in others if any(find_whole(answer, p.text) for answer in old)]
    return Evidence(
        question=question,
        gold=gold,
        quote=quote,
        distractors=tuple(passage for passage in others if passage not in stale),
        stale=stale[0] if stale else None,
        found=found_alone,
    )


def is_house_knowledge(question: Question) -> bool:
    """Tell whether a question's metadata says that it is to be answered without documents."""
    return question.metadata.get("closed_book") is True


def stale_answers(question: Question) -> list[str]:
    """Give the answers that a question's metadata calls out of date, under ``"stale"``."""
    stale = question.metadata.get("stale")
    answers = stale if isinstance(stale, list) else [stale]
    return [answer for answer in answers if isinstance(answer, str)]


def find_whole(part: str, text: str) -> str:
    """Find a text in another one, as whole words and numbers, the way the citation check does.

    Returns:
        The part as the text spells it; empty if it does not stand in it.
    """
    wanted = folded(part)
    if not wanted or wanted not in folded(text):
        return ""
    for citation in verify(f"[1] {part}", [text])[:1]:
        if citation.verified and folded(citation.quote) == wanted:
            return citation.quote
    return ""


def folded(text: str) -> str:
    """Write a text so that letter case, compatibility forms and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _passages(nodes: Sequence[NodeWithScore]) -> list[Passage]:
    passages = []
    for item in nodes:
        node = item.node
        source_id = str(node.metadata.get("source_id") or node.node_id)
        text = node.get_content(metadata_mode=MetadataMode.LLM)
        header = str(node.metadata.get("context_header", ""))
        if not text.startswith(f"{header}\n"):
            header = ""
        passages.append(
            Passage(
                node_id=node.node_id,
                name=source_id,
                document=str(node.ref_doc_id or source_id),
                text=text,
                header=header,
                date=_date_at_end(header, str(node.metadata.get("date", ""))),
            )
        )
    return passages


def _date_at_end(header: str, day: str) -> str:
    """Give a day if a header ends with it and it is one."""
    try:
        return date.fromisoformat(day).isoformat() if header.endswith(day) else ""
    except ValueError:
        return ""


def _find_gold(question: Question, passages: Sequence[Passage]) -> tuple[Passage | None, str]:
    """Find the best passage that holds an answer, among the named ones if any are named."""
    named = [p for p in passages if not question.gold_ids or p.ids & set(question.gold_ids)]
    for answer in question.answers:
        for passage in named:
            quote = find_whole(answer, passage.text)
            if quote:
                return passage, quote
    return None, ""
