"""Whether other passages of the same prompt answer a question otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.schema import NodeWithScore

from phi3_industry.grounding.citations import parse_answer, verify
from phi3_industry.grounding.matching import stands_in
from phi3_industry.query_engine.answers import CheckedAnswer, check_answer
from phi3_industry.query_engine.evidence import EvidenceRules, source_text
from phi3_industry.query_engine.models import chat_messages
from phi3_industry.query_engine.planning import Plan

__all__ = ["Conflict", "Conflicts", "bears", "find_conflict"]

Conflicts = Literal["ignore", "mark", "show", "abstain"]
"""What becomes of an answer that other passages contradict."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Two answers from different passages of one prompt, with the numbers of that prompt.

    Attributes:
        preferred: The one from the more trusted document, else from the newer one, else the one
            that was given first.
        other: The other one.
    """

    preferred: CheckedAnswer
    other: CheckedAnswer

    @property
    def reason(self) -> str:
        """A sentence that says which passages answer what."""
        said = [
            f"{parse_answer(answer.text).body} by passage {answer.bearing[0].marker}"
            for answer in (self.preferred, self.other)
        ]
        return f"The passages answer differently: {', '.join(said)}."

    def answer(self, how: Conflicts, *, abstention: str) -> CheckedAnswer:
        """Give the answer that is given out.

        Args:
            how: ``"mark"`` gives the preferred one, ``"show"`` both, a line each, ``"abstain"``
                none.
            abstention: What an abstaining answer is to say, whole.
        """
        if how == "mark":
            return self.preferred
        both = replace(
            self.preferred,
            text=f"{self.preferred.text}\n{self.other.text}",
            citations=self.preferred.citations + self.other.citations,
            quotes=self.preferred.quotes + self.other.quotes,
        )
        return both if how == "show" else replace(both, text=abstention, abstained=True)

    def describe(self, node_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Give both answers as plain JSON, the preferred one first.

        Args:
            node_ids: Ids of the passages' nodes, in the order of their numbers.
        """
        return [
            {"answer": answer.text, "citations": answer.describe(node_ids)["citations"]}
            for answer in (self.preferred, self.other)
        ]


def find_conflict(
    plan: Plan, answer: CheckedAnswer, *, rules: EvidenceRules
) -> tuple[Conflict | None, ChatResponse | None]:
    """Ask again, over the passages that do not say what an answer says.

    What the LLM answers from them is checked as any answer is. It contradicts the first one if a
    passage bears it, and neither of the two stands in the other.

    Args:
        plan: What was asked.
        answer: The checked answer, which a passage bears.
        rules: Tell which document is to be preferred.

    Returns:
        The conflict, ``None`` if there is none; and what the LLM replied, ``None`` if all
        passages say the same and it was not asked.
    """
    sources = [source_text(node) for node in plan.shown]
    claims = [citation.claim for citation in answer.bearing]
    left = [i for i, text in enumerate(sources) if not any(bears(text, c) for c in claims)]
    if plan.llm is None or not left:
        return None, None
    messages = plan.prompt.grounded(plan.question, [plan.shown_texts[index] for index in left])
    reply = plan.llm.chat(chat_messages(messages))
    second = check_answer(
        (reply.message.content or "").strip(),
        [sources[index] for index in left],
        prompt=plan.prompt,
        abstention=plan.prompt.abstention_answer,
    )
    if second.abstained or _hold_one_another(answer, second):
        return None, reply
    second = second.renumbered(left)
    if rules.prefers(_first_source(second, plan), _first_source(answer, plan)):
        return Conflict(preferred=second, other=answer), reply
    return Conflict(preferred=answer, other=second), reply


def bears(passage: str, claim: str) -> bool:
    """Tell whether a passage bears what an answer claims."""
    return verify(f"[1] {claim}", [passage])[0].verified


def _hold_one_another(answer: CheckedAnswer, other: CheckedAnswer) -> bool:
    """Tell whether a quote of one answer stands in a quote of the other."""
    pairs = [(one.quote, two.quote) for one in answer.bearing for two in other.bearing]
    return any(stands_in(one, two) or stands_in(two, one) for one, two in pairs)


def _first_source(answer: CheckedAnswer, plan: Plan) -> NodeWithScore:
    """Give the node of an answer's first verified citation."""
    return plan.shown[answer.bearing[0].marker - 1]
