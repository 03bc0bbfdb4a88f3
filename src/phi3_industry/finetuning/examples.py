"""Rows become token ids with labels: the prompt as it is served, the answer as it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phi3_industry.errors import ConfigurationError, TrainingDataError
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.models.chat_format import ChatFormat

__all__ = ["IGNORED", "TokenizedRow", "tokenize_rows"]

IGNORED = -100
"""Label of a token that carries no loss, as torch's cross-entropy has it."""

_MOST_CHARACTERS_A_TOKEN = 128
"""No token of the family is longer: the longest are runs of spaces in Phi-4's vocabulary."""


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
        ConfigurationError: The chat template writes the prompt otherwise once an answer follows.
        TrainingDataError: A row is too long, or its prompt or completion is empty.
    """
    tokenized = []
    for number, row in enumerate(rows, start=1):
        characters = sum(len(message["content"]) for message in [*row.prompt, *row.completion])
        if characters > max_length * _MOST_CHARACTERS_A_TOKEN:
            raise TrainingDataError(
                f"The row of question '{row.question_id}' has {characters} characters, which "
                f"cannot fit into {max_length} tokens. Index the documents in smaller nodes.",
                record=number,
                field="prompt",
            )
        prompt, completion = _encode(row, chat_format)
        if len(completion) <= len(chat_format.end_of_turn_ids):
            raise TrainingDataError(
                f"The row of question '{row.question_id}' has no answer to train on.",
                record=number,
                field="completion",
            )
        ids = [*prompt, *completion]
        if len(ids) > max_length:
            raise TrainingDataError(
                f"The row of question '{row.question_id}' has {len(ids)} tokens and at most "
                f"{max_length} fit. Give TrainingSetBuilder the llm, so that it leaves passages "
                "out, or index the documents in smaller nodes.",
                record=number,
                field="prompt",
            )
        tokenized.append(TokenizedRow(input_ids=ids, labels=[IGNORED] * len(prompt) + completion))
    return tokenized


def _encode(row: TrainingRow, chat_format: ChatFormat) -> tuple[list[int], list[int]]:
    """Give the ids that serving would send, and those that the model is to answer with."""
    prompt = chat_format.encode_messages(row.prompt)
    whole = chat_format.encode_messages([*row.prompt, *row.completion], add_generation_prompt=False)
    if whole[: len(prompt)] != prompt:
        raise ConfigurationError(
            "The chat template writes a conversation with its answer otherwise than it asks for "
            "the answer, so training would not see what serving sends. Use the checkpoint's own "
            "chat template."
        )
    answer = whole[len(prompt) :]
    ends = (place for place, token in enumerate(answer, 1) if token in chat_format.stop_token_ids)
    return prompt, answer[: next(ends, None)]
