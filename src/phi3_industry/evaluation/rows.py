"""One answer to one question under one strategy, with what it was scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi3_industry.grounding.citations import parse_answer

__all__ = ["AnswerRow", "CitedPassage", "Passage"]


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
        gold: Whether the question names the cited passage; ``False`` if it names none.
    """

    marker: int
    node_id: str | None
    quote: str
    verified: bool
    gold: bool = False

    @property
    def right(self) -> bool:
        """Whether the claim stands there, and that is where the answer stands."""
        return self.verified and self.gold


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
        right: Whether the question was treated rightly. Where the documents hold an answer: the
            reference to the letter, or where the question gives none, the right value. Where they
            hold none: an abstention.
        exact_match: Whether the body equals an answer or the reference after normalisation.
        value_match: Whether the body gives the right value, whatever follows it.
        house_match: Whether the body is the reference to the letter.
        number_match: Whether the body gives the numbers of an answer and no others; ``None`` if
            the answers hold none.
        token_f1: Overlap of the body with the best of answers and reference, from 0 to 1.
        terms_right: Whether it uses no banned word; ``None`` without a glossary, and where the
            body names no term.
        gold_shown: Whether a gold passage was among those shown.
        citation_right: Whether it cites, and every citation is verified and leads to a gold
            passage.
        quotes: Quotes that it was given out with: of its citations, and in quotation marks.
        quotes_exact: Those of them that are exact substrings of their passages.
        abstained: Whether it says that it does not know.
        latency_s: Time of the query in seconds, from asking to the whole answer.
        machine_s: Its share of the machine's time in seconds: questions that are asked at once
            share the time until the last of them is answered.
        prompt_tokens: Tokens of the prompt, if the engine says.
        completion_tokens: Tokens of the answer, if the engine says.
        used_strategy: The strategy that the engine reports, of interest under ``auto``.
        reason: Why, in the engine's words.
        provenance: How much of it came from which passage and from the weights, if the engine
            says; see :func:`~phi3_industry.query_engine.provenance.trace_answer`.
        error: What went wrong; empty if nothing did. A failed query counts as wrong.
    """

    question_id: str
    strategy: str
    answer: str
    body: str
    citations: tuple[CitedPassage, ...]
    passages: tuple[str, ...]
    right: bool
    exact_match: bool | None
    value_match: bool | None
    house_match: bool | None
    number_match: bool | None
    token_f1: float | None
    gold_shown: bool | None
    citation_right: bool | None
    abstained: bool
    latency_s: float
    machine_s: float
    quotes: int = 0
    quotes_exact: int = 0
    terms_right: bool | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    used_strategy: str = ""
    reason: str = ""
    provenance: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def given_citations(self) -> tuple[CitedPassage, ...]:
        """The citations that it was given out with: an engine may have taken wrong ones out."""
        given = parse_answer(self.answer).markers
        return tuple(citation for citation in self.citations if citation.marker in given)

    @property
    def cites_gold(self) -> bool | None:
        """Whether any of its citations is right; ``None`` if the question names no passage."""
        if self.citation_right is None:
            return None
        return any(citation.right for citation in self.given_citations)
