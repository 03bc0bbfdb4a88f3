"""One passage and a question become the messages that ask whether the passage answers it.

Training rows that teach this judgement and the reranker that asks for it have the same wording.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from phi3_industry.grounding.prompt import Message

__all__ = ["DEFAULT_RELEVANCE", "RelevancePrompt"]

_PLACE = re.compile(r"\{(?:question|passage)\}")


@dataclass(frozen=True, kw_only=True)
class RelevancePrompt:
    """The wording of the judgement.

    Attributes:
        instructions: System text; none if empty.
        template: User text; ``{question}`` and ``{passage}`` stand for the two.
        true_text: The verdict on a passage that answers the question.
        false_text: The verdict on one that does not.
    """

    instructions: str = (
        "You judge whether a passage answers a question. Reply with True or False alone."
    )
    template: str = (
        "Question: {question}\n\nPassage: {passage}\n\nDoes the passage answer the question?"
    )
    true_text: str = "True"
    false_text: str = "False"

    def messages(self, question: str, passage: str) -> list[Message]:
        """Build the messages that ask for a verdict on one passage."""
        texts = {"{question}": question, "{passage}": passage}
        # in one go: a question that spells out a place is no place
        user = _PLACE.sub(lambda place: texts[place[0]], self.template)
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return [*system, {"role": "user", "content": user}]


DEFAULT_RELEVANCE = RelevancePrompt()
"""What ``Phi3Rerank`` asks unless it is told otherwise."""
