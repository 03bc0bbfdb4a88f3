"""Score what a query engine answered, whoever's engine it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.schema import MetadataMode, NodeWithScore

from phi3_industry.evaluation.metrics import (
    citation_right,
    exact_match,
    house_match,
    token_f1,
    value_match,
)
from phi3_industry.evaluation.numbers import number_match
from phi3_industry.evaluation.rows import AnswerRow, CitedPassage, Passage
from phi3_industry.grounding.citations import parse_answer, verify
from phi3_industry.grounding.questions import Question
from phi3_industry.grounding.quotes import repair_quotes

__all__ = ["Terms", "failed_row", "score_response"]


class Terms(Protocol):
    """A house's terms; :class:`~phi3_industry.finetuning.glossary.Glossary` is one."""

    def find(self, text: str, /) -> object | None:
        """Find a term that a text names, by its name or by a banned one."""

    def banned_in(self, text: str, /) -> str | None:
        """Find a banned word in a text."""


def score_response(
    question: Question,
    strategy: str,
    response: RESPONSE_TYPE,
    *,
    latency_s: float,
    machine_s: float | None = None,
    terms: Terms | None = None,
) -> tuple[AnswerRow, list[Passage]]:
    """Score what a query engine answered.

    The keys of our own engine's ``response.metadata`` are used where they are there; for any
    other engine the citations are read from the text and checked against the source nodes.

    Args:
        question: The question.
        strategy: The strategy it was asked under.
        response: What the engine gave; a streamed one is read to its end.
        latency_s: Time of the query in seconds.
        machine_s: Its share of the machine's time; ``None`` if it had the machine to itself.
        terms: The house's terms, if there is a glossary.

    Returns:
        The scored answer, and the passages it was shown.
    """
    text = _text(response)
    facts: Mapping[str, Any] = response.metadata or {}  # of a stream, whole only at its end
    passages = [_passage(node) for node in response.source_nodes]
    parsed = parse_answer(text)
    names = {passage.node_id: passage.names for passage in passages}
    gold = set(question.gold_ids) if question.answerable else set()
    citations = _citations(text, facts, passages, gold)
    abstained = bool(facts.get("abstained", parsed.abstained))
    body = "" if abstained else parsed.body
    quotes = [] if abstained else _quotes(text, citations, passages)
    usage = facts.get("usage") or {}
    row = AnswerRow(
        question_id=question.id,
        strategy=strategy,
        answer=text,
        body=parsed.body,
        citations=citations,
        passages=tuple(passage.node_id for passage in passages),
        **_answer_scores(question, body, abstained=abstained),
        gold_shown=any(not gold.isdisjoint(known) for known in names.values()) if gold else None,
        citation_right=not abstained
        and citation_right(
            [names.get(citation.node_id or "", frozenset()) for citation in citations],
            [citation.verified for citation in citations],
            gold,
        )
        if gold
        else None,
        quotes=len(quotes),
        quotes_exact=sum(quotes),
        terms_right=_terms_right(body, terms),
        abstained=abstained,
        latency_s=latency_s,
        machine_s=latency_s if machine_s is None else machine_s,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        used_strategy=str(facts.get("strategy", "")),
        reason=str(facts.get("reason", "")),
        provenance=facts.get("provenance"),
    )
    return row, passages


def failed_row(
    question: Question,
    strategy: str,
    error: Exception,
    *,
    latency_s: float,
    machine_s: float | None = None,
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
        **_answer_scores(question, "", abstained=False),
        gold_shown=False if has_gold else None,
        citation_right=False if has_gold else None,
        abstained=False,
        latency_s=latency_s,
        machine_s=latency_s if machine_s is None else machine_s,
        error=f"{type(error).__name__}: {error}",
    )


def _answer_scores(question: Question, body: str, *, abstained: bool) -> dict[str, Any]:
    if not question.answerable:
        scores = dict.fromkeys(
            ("exact_match", "value_match", "house_match", "number_match", "token_f1")
        )
        return {"right": abstained, **scores}
    wanted = question.wanted or ""
    accepted = [*question.answers, wanted]
    in_house_format, value = house_match(body, wanted), value_match(body, accepted)
    return {
        "right": value if question.reference is None else in_house_format,
        "exact_match": exact_match(body, accepted),
        "value_match": value,
        "house_match": in_house_format,
        "number_match": number_match(body, accepted, question=question.question),
        "token_f1": token_f1(body, accepted),
    }


def _terms_right(body: str, terms: Terms | None) -> bool | None:
    if terms is None or terms.find(body) is None:
        return None
    return terms.banned_in(body) is None


def _quotes(
    text: str, citations: Sequence[CitedPassage], passages: Sequence[Passage]
) -> list[bool]:
    """Tell of each quote that an answer is given out with whether it stands in its passage.

    It is compared here, character by character, whatever the engine says of it.
    """
    texts = {passage.node_id: passage.text for passage in passages}
    exact = [
        citation.quote in texts.get(citation.node_id or "", "")
        for citation in citations
        if citation.quote
    ]
    if passages:
        _, quoted = repair_quotes(text, list(texts.values()))
        exact += [quote.outcome == "exact" for quote in quoted]
    return exact


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
    text: str, facts: Mapping[str, Any], passages: list[Passage], gold: set[str]
) -> tuple[CitedPassage, ...]:
    known = {passage.node_id: passage.names for passage in passages}
    found: list[tuple[int, str | None, str, bool]]
    if "citations" in facts:
        found = [
            (int(one["marker"]), one["node_id"], str(one["quote"]), bool(one["verified"]))
            for one in facts["citations"]
        ]
    else:
        found = [
            (
                citation.marker,
                None if citation.index is None else passages[citation.index].node_id,
                citation.quote,
                citation.verified,
            )
            for citation in verify(text, [passage.text for passage in passages])
        ]
    return tuple(
        CitedPassage(
            marker=marker,
            node_id=node_id,
            quote=quote,
            verified=verified,
            gold=not gold.isdisjoint(known.get(node_id or "", ())),
        )
        for marker, node_id, quote, verified in found
    )
