"""A finished answer is checked against its passages; what they do not bear is abstained from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from phi3_industry.grounding.citations import Citation, parse_answer, renumber, repair, verify
from phi3_industry.grounding.prompt import GroundingPrompt
from phi3_industry.grounding.quotes import Quote, repair_quotes

__all__ = ["CheckedAnswer", "Unsupported", "check_answer", "check_closed_book"]

Unsupported = Literal["abstain", "mark"]
"""What becomes of an answer that its passages do not bear."""


@dataclass(frozen=True, kw_only=True)
class CheckedAnswer:
    """An answer as it is given out.

    Attributes:
        text: Its text; every citation in it is verified and every quote stands in its passage.
        abstained: Whether it says that it does not know.
        supported: Whether its passages bear it; ``None`` if it abstains by itself or was given
            without passages.
        citations: The citations, checked; of a wrong one the marker is no longer in the text.
        quotes: What stood in quotation marks, checked.
    """

    text: str
    abstained: bool
    supported: bool | None
    citations: tuple[Citation, ...] = ()
    quotes: tuple[Quote, ...] = ()

    @property
    def bearing(self) -> list[Citation]:
        """The verified citations."""
        return [citation for citation in self.citations if citation.verified]

    def renumbered(self, indexes: Sequence[int]) -> CheckedAnswer:
        """Give the same answer with the numbers of a longer list of passages.

        Args:
            indexes: Where each passage stands in the longer list, counted from 0.
        """
        numbers = [index + 1 for index in indexes]
        return replace(
            self,
            text=renumber(self.text, numbers),
            citations=tuple(
                citation
                if citation.index is None
                else replace(
                    citation, marker=numbers[citation.index], index=indexes[citation.index]
                )
                for citation in self.citations
            ),
            quotes=tuple(
                quote if quote.index is None else replace(quote, index=indexes[quote.index])
                for quote in self.quotes
            ),
        )

    def describe(self, node_ids: Sequence[str]) -> dict[str, Any]:
        """Give what was checked as plain JSON.

        Args:
            node_ids: Ids of the passages' nodes, in the order of their numbers.
        """
        facts: dict[str, Any] = {
            "abstained": self.abstained,
            "supported": self.supported,
            "citations": [
                {
                    "marker": citation.marker,
                    "node_id": None if citation.index is None else node_ids[citation.index],
                    "quote": citation.quote,
                    "verified": citation.verified,
                }
                for citation in self.citations
            ],
        }
        if self.quotes:
            facts["quotes"] = [
                {
                    "text": quote.text,
                    "node_id": None if quote.index is None else node_ids[quote.index],
                    "outcome": quote.outcome,
                }
                for quote in self.quotes
            ]
        return facts


def check_answer(
    raw: str,
    passages: Sequence[str],
    *,
    prompt: GroundingPrompt,
    abstention: str,
    unsupported: Unsupported = "abstain",
) -> CheckedAnswer:
    """Check an answer from passages.

    Wrong citations are put right or taken out, an answer without any gets the number of a passage
    that bears it, quotes become exact or are taken out. The passages support an answer if a
    citation is verified after all that.

    Args:
        raw: The answer as the model gave it.
        passages: The passages in the order of their numbers.
        prompt: The prompt it was asked with.
        abstention: What an abstaining answer is to say, whole.
        unsupported: Whether an answer that no passage bears is abstained from or only marked.
    """
    if parse_answer(raw, abstention=prompt.abstention).abstained:
        return CheckedAnswer(text=abstention, abstained=True, supported=None)
    text, citations = repair(raw, passages)
    if not citations:
        text, citations = _cite(text, passages, prompt)
    text, quotes = repair_quotes(text, passages)
    if any(quote.outcome == "removed" for quote in quotes):
        text, citations = repair(text, passages)  # without its quote a claim may bear no more
    supported = any(citation.verified for citation in citations)
    if not supported and unsupported == "abstain":
        text = abstention
    return CheckedAnswer(
        text=text,
        abstained=not supported and unsupported == "abstain",
        supported=supported,
        citations=tuple(citations),
        quotes=tuple(quotes),
    )


def check_closed_book(raw: str, *, prompt: GroundingPrompt, abstention: str) -> CheckedAnswer:
    """Check an answer that was given without passages: it can cite none."""
    if parse_answer(raw, abstention=prompt.abstention).abstained:
        return CheckedAnswer(text=abstention, abstained=True, supported=None)
    text, citations = repair(raw, [])
    return CheckedAnswer(text=text, abstained=False, supported=None, citations=tuple(citations))


def _cite(
    text: str, passages: Sequence[str], prompt: GroundingPrompt
) -> tuple[str, list[Citation]]:
    """Cite the first passage that bears an answer which cites none."""
    for number in range(1, len(passages) + 1):
        cited = prompt.answer(text, marker=number)
        citations = verify(cited, passages)
        if citations and citations[0].verified:
            return cited, citations
    return text, []
