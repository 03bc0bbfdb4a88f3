"""Numbered passages and a question become messages, for training and for serving alike.

The answer begins with its citation, ``[2] 38.2 bar``: a reader that names the passage first has
to find it before it speaks. "No passage holds it" is the choice zero, ``[0] I don't know.``
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from phi3_industry.errors import PromptTooLongError

__all__ = ["ABSTENTION", "DEFAULT_PROMPT", "FittedPrompt", "GroundingPrompt", "Message"]

Message = dict[str, str]
"""One chat message: ``{"role": "system" | "user" | "assistant", "content": text}``."""

ABSTENTION = "I don't know."
"""What an answer says when the passages do not hold it."""


@dataclass(frozen=True, kw_only=True)
class FittedPrompt:
    """A grounded prompt that fits its budget.

    Attributes:
        messages: The messages.
        kept: Indexes of the passages that are in it, in the order of their numbers; passage
            ``kept[i]`` has the number ``i + 1``.
        dropped: Indexes of the passages that had to be left out, ascending.
        tokens: Tokens of the messages, as counted by the caller's function.
    """

    messages: list[Message]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class GroundingPrompt:
    """The wording of grounded and closed-book questions.

    Attributes:
        instructions: System text when passages are given; ``{abstention}`` in it stands for
            citation zero and the sentence that abstains.
        closed_book_instructions: System text when none are; empty for no system message.
        context_label: Line before the passages.
        question_label: Text before the question.
        abstention: The sentence of an answer that abstains.
    """

    instructions: str = (
        "Answer only from the numbered passages. Begin with the number of the passage that holds "
        "the answer, in square brackets, and then give the answer in the passage's own words. If "
        "no passage holds the answer, write: {abstention}"
    )
    closed_book_instructions: str = ""
    context_label: str = "Context:"
    question_label: str = "Question: "
    abstention: str = ABSTENTION

    @property
    def abstention_answer(self) -> str:
        """The whole answer of a reader that abstains: citation zero and the sentence."""
        return f"[0] {self.abstention}"

    @property
    def system_text(self) -> str:
        """The system text of a grounded question: the instructions with the abstention in them."""
        # no str.format: a text of the user's may hold braces
        return self.instructions.replace("{abstention}", self.abstention_answer)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that shapes the prompt, as hexadecimal text."""
        layout = {"version": 1, **asdict(self)}
        return hashlib.sha256(json.dumps(layout, sort_keys=True).encode()).hexdigest()

    def answer(self, text: str, *, marker: int) -> str:
        """Write an answer the way the prompt asks for it: citation first."""
        return f"[{marker}] {text}"

    def grounded(self, question: str, passages: Sequence[str]) -> list[Message]:
        """Build the messages that ask a question about numbered passages.

        Args:
            question: The question.
            passages: The passages, numbered from 1 in this order.

        Returns:
            A system and a user message. Context comes first and the question last, so that
            questions about the same passages share their prompt's beginning.
        """
        numbered = "\n".join(f"[{n}] {passage}" for n, passage in enumerate(passages, start=1))
        content = f"{self.context_label}\n{numbered}\n\n{self.question_label}{question}"
        return [
            {"role": "system", "content": self.system_text},
            {"role": "user", "content": content},
        ]

    def closed_book(self, question: str) -> list[Message]:
        """Build the messages that ask a question without any passage."""
        user = {"role": "user", "content": f"{self.question_label}{question}"}
        if not self.closed_book_instructions:
            return [user]
        return [{"role": "system", "content": self.closed_book_instructions}, user]

    def fit(
        self,
        question: str,
        passages: Sequence[str],
        *,
        count_tokens: Callable[[list[Message]], int],
        context_window: int,
        max_new_tokens: int,
        order: Sequence[int] | None = None,
    ) -> FittedPrompt:
        """Build a grounded prompt within a token budget by leaving out whole passages.

        The best passages are expected first. Passages are taken in order, and one that does
        not fit any more is left out while later, shorter ones may still enter. No passage is
        ever cut.

        Args:
            question: The question.
            passages: The passages, best first.
            count_tokens: Counts the tokens of messages, the chat template's own included.
            context_window: Tokens the model can hold.
            max_new_tokens: Tokens kept free for the answer.
            order: All indexes of passages in the order in which those that are kept are
                numbered; ``None`` numbers the best first.

        Returns:
            The prompt with what was kept and what was left out.

        Raises:
            PromptTooLongError: Not even one passage fits beside the question.
        """
        available = context_window - max_new_tokens
        bare = count_tokens(self.grounded(question, []))
        if bare > available:
            raise PromptTooLongError(
                needed=bare,
                available=available,
                context_window=context_window,
                max_new_tokens=max_new_tokens,
                advice="Shorten the question.",
            )
        places = {index: place for place, index in enumerate(order or range(len(passages)))}
        kept: list[int] = []
        messages = self.grounded(question, [])
        tokens = bare
        smallest = 0
        for index in range(len(passages)):
            chosen = sorted((*kept, index), key=places.__getitem__)
            trial = self.grounded(question, [passages[i] for i in chosen])
            needed = count_tokens(trial)
            if needed <= available:
                kept, messages, tokens = chosen, trial, needed
            elif not kept:
                smallest = min(smallest, needed) if smallest else needed
        if passages and not kept:
            raise PromptTooLongError(
                needed=smallest,
                available=available,
                context_window=context_window,
                max_new_tokens=max_new_tokens,
                advice="Index the documents in smaller nodes, or shorten the question.",
            )
        return FittedPrompt(
            messages=messages,
            kept=tuple(kept),
            dropped=tuple(i for i in range(len(passages)) if i not in kept),
            tokens=tokens,
        )


DEFAULT_PROMPT = GroundingPrompt()
"""The wording that the embedded model was trained with and that adapters use by default."""
