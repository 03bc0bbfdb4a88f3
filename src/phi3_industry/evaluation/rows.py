"""One answer to one question under one strategy, scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.schema import MetadataMode, NodeWithScore

from phi3_industry.evaluation.metrics import (
    citation_right,
    exact_match,
    house_match,
    token_f1,
    value_match,
)
from phi3_industry.grounding.citations import parse_answer, verify
from phi3_industry.grounding.questions import Question

__all__ = ["AnswerRow", "CitedPassage", "Passage", "failed_row", "score_response"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A passage that a strategy was shown.

    Attributes:
        node_id: Its id in the store.
        source_id: Its name for people, such as ``"pumps.csv#P-4471"``; the node id if it has none.
        document_id: The document it comes from; the node id if it names none.
        text: What the model read.
    """

    node_id: str
    source_id: str
    document_id: str
    text: str

    @property
    def names(self) -> frozenset[str]:
        """Everything that a question may call it by."""
        return frozenset({self.node_id, self.source_id, self.document_id})


@dataclass(frozen=True, kw_only=True)
class CitedPassage:
    """One citation of an answer.

    Attributes:
        marker: The number that the answer wrote, counted from 1.
        node_id: The cited passage; ``None`` if there is none of that number.
        quote: What of the answer stands in the passage.
        verified: Whether any of it does.
    """

    marker: int
    node_id: str | None
    quote: str
    verified: bool


@dataclass(frozen=True, kw_only=True)
class AnswerRow:
    """One answer, with its scores.

    A score is ``None`` where it makes no sense: those of an answer where the documents hold none,
    those of sources where the question names no gold passage.

    Attributes:
        question_id: The question.
        strategy: The strategy it was asked under.
        answer: The answer's text; empty if the query failed.
        body: The answer without its citations.
        citations: The citations, checked.
        passages: Node ids of the passages that were shown, in order.
        exact_match: Whether the body equals an answer or the reference after normalisation.
        value_match: Whether the body gives the right value, whatever follows it.
        house_match: Whether the body is the reference to the letter.
        token_f1: Overlap of the body with the best of answers and reference, from 0 to 1.
        gold_shown: Whether a gold passage was among those shown.
        citation_right: Whether it cites, and every citation is verified and leads to a gold
            passage.
        abstained: Whether it says that it does not know.
        latency_s: Time of the query in seconds.
        prompt_tokens: Tokens of the prompt, if the engine says.
        completion_tokens: Tokens of the answer, if the engine says.
        used_strategy: The strategy that the engine reports, of interest under ``auto``.
        reason: Why, in the engine's words.
        error: What went wrong; empty if nothing did. A failed query counts as wrong.
    """

    question_id: str
    strategy: str
    answer: str
    body: str
    citations: tuple[CitedPassage, ...]
    passages: tuple[str, ...]
    exact_match: bool | None
    value_match: bool | None
    house_match: bool | None
    token_f1: float | None
    gold_shown: bool | None
    citation_right: bool | None
    abstained: bool
    latency_s: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    used_strategy: str = ""
    reason: str = ""
    error: str = ""


def score_response(
    question: Question, strategy: str, response: RESPONSE_TYPE, *, latency_s: float
) -> tuple[AnswerRow, list[Passage]]:
    """Score what a query engine answered.

    The keys of our own engine's ``response.metadata`` are used where they are there; for any
    other engine the citations are read from the text and checked against the source nodes.

    Args:
        question: The question.
        strategy: The strategy it was asked under.
        response: What the engine gave; a streamed one is read to its end.
        latency_s: Time of the query in seconds.

    Returns:
        The scored answer, and the passages it was shown.
    """
    text = _text(response)
    facts: Mapping[str, Any] = response.metadata or {}  # of a stream, whole only at its end
    passages = [_passage(node) for node in response.source_nodes]
    parsed = parse_answer(text)
    citations = _citations(text, facts, passages)
    abstained = bool(facts.get("abstained", parsed.abstained))
    names = {passage.node_id: passage.names for passage in passages}
    gold = set(question.gold_ids) if question.answerable else set()
    usage = facts.get("usage") or {}
    row = AnswerRow(
        question_id=question.id,
        strategy=strategy,
        answer=text,
        body=parsed.body,
        citations=citations,
        passages=tuple(passage.node_id for passage in passages),
        **_answer_scores(question, "" if abstained else parsed.body),
        gold_shown=any(not gold.isdisjoint(known) for known in names.values()) if gold else None,
        citation_right=not abstained
        and citation_right(
            [names.get(citation.node_id or "", frozenset()) for citation in citations],
            [citation.verified for citation in citations],
            gold,
        )
        if gold
        else None,
        abstained=abstained,
        latency_s=latency_s,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        used_strategy=str(facts.get("strategy", "")),
        reason=str(facts.get("reason", "")),
    )
    return row, passages


def failed_row(
    question: Question, strategy: str, error: Exception, *, latency_s: float
) -> AnswerRow:
    """Record a query that failed: an answer that is wrong in every respect, with the error."""
    has_gold = question.answerable and bool(question.gold_ids)
    return AnswerRow(
        question_id=question.id,
        strategy=strategy,
        answer="",
        body="",
        citations=(),
        passages=(),
        **_answer_scores(question, ""),
        gold_shown=False if has_gold else None,
        citation_right=False if has_gold else None,
        abstained=False,
        latency_s=latency_s,
        error=f"{type(error).__name__}: {error}",
    )


def _answer_scores(question: Question, body: str) -> dict[str, Any]:
    if not question.answerable:
        return dict.fromkeys(("exact_match", "value_match", "house_match", "token_f1"))
    wanted = question.wanted or ""
    accepted = [*question.answers, wanted]
    return {
        "exact_match": exact_match(body, accepted),
        "value_match": value_match(body, accepted),
        "house_match": house_match(body, wanted),
        "token_f1": token_f1(body, accepted),
    }


def _text(response: RESPONSE_TYPE) -> str:
    # str() of an empty answer would be the text "None"
    return "" if getattr(response, "response", "") is None else str(response)


def _passage(found: NodeWithScore) -> Passage:
    node = found.node
    source = node.source_node
    return Passage(
        node_id=node.node_id,
        source_id=str(node.metadata.get("source_id", node.node_id)),
        document_id=source.node_id if source else node.node_id,
        text=node.get_content(metadata_mode=MetadataMode.LLM),
    )


def _citations(
    text: str, facts: Mapping[str, Any], passages: list[Passage]
) -> tuple[CitedPassage, ...]:
    if "citations" in facts:
        return tuple(
            CitedPassage(
                marker=int(citation["marker"]),
                node_id=citation["node_id"],
                quote=str(citation["quote"]),
                verified=bool(citation["verified"]),
            )
            for citation in facts["citations"]
        )
    return tuple(
        CitedPassage(
            marker=citation.marker,
            node_id=None if citation.index is None else passages[citation.index].node_id,
            quote=citation.quote,
            verified=citation.verified,
        )
        for citation in verify(text, [passage.text for passage in passages])
    )
