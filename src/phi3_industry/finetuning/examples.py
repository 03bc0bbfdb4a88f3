"""Rows become token ids with labels: the prompt as it is served, the answer as it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.models.chat_format import ChatFormat

__all__ = ["IGNORED", "TokenizedRow", "tokenize_rows"]

IGNORED = -100
"""Label of a token that carries no loss, as torch's cross-entropy has it."""


@dataclass(frozen=True, kw_only=True)
class TokenizedRow:
    """One row as the model sees it.

    Attributes:
        input_ids: Prompt, completion and the tokens that end the turn, ``(seq_len,)``.
        labels: The same with every prompt token replaced by :data:`IGNORED`, ``(seq_len,)``.
    """

    input_ids: list[int]
    labels: list[int]

    @property
    def trained(self) -> int:
        """How many tokens carry loss."""
        return sum(label != IGNORED for label in self.labels)


def tokenize_rows(
    rows: Sequence[TrainingRow], chat_format: ChatFormat, *, max_length: int
) -> list[TokenizedRow]:
    """Turn rows into token ids, by the code that serves.

    The mask follows from where the prompt ends and never from a search in the text, so no
    tokenizer that strips white space can shift it. The tokens that end the turn are trained in
    each row, whatever the padding token is.

    Args:
        rows: The rows.
        chat_format: The chat format of the model.
        max_length: The most tokens of a row.

    Returns:
        One tokenized row for each, in the same order.

    Raises:
        TrainingDataError: A row is too long, or its prompt or completion is empty.
    """
    end = chat_format.end_of_turn_ids
    tokenized = []
    for number, row in enumerate(rows, start=1):
        prompt = chat_format.encode_messages(row.prompt)
        answer = chat_format.encode_text(row.answer)
        if not answer:
            raise TrainingDataError(
                f"The row of question '{row.question_id}' has no answer to train on.",
                record=number,
                field="completion",
            )
        ids = [*prompt, *answer, *end]
        if len(ids) > max_length:
            raise TrainingDataError(
                f"The row of question '{row.question_id}' has {len(ids)} tokens and at most "
                f"{max_length} fit. Give TrainingSetBuilder the llm, so that it leaves passages "
                "out, or index the documents in smaller nodes.",
                record=number,
                field="prompt",
            )
        tokenized.append(
            TokenizedRow(input_ids=ids, labels=[IGNORED] * len(prompt) + [*answer, *end])
        )
    return tokenized
