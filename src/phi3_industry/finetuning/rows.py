"""One row to train on, and the JSON Lines file that holds many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.records import parse_object, read_text
from phi3_industry.grounding.prompt import Message

__all__ = ["Slice", "Split", "TrainingRow", "count_rows", "dump_rows", "load_rows"]

Slice = Literal[
    "grounded",
    "missing",
    "missing_known",
    "conflict",
    "hostile",
    "terminology",
    "relevance",
    "closed_book",
    "conversation",
    "replay",
]
"""What a row teaches.

- ``"grounded"``: the passage that holds the answer is shown among others; the answer cites it.
- ``"missing"``: the passages shown do not hold the answer; the answer abstains.
- ``"missing_known"``: the same, but the model knows the answer without them.
- ``"conflict"``: two dated versions are shown; the answer is from the newer one.
- ``"hostile"``: a passage holds orders or control text; the answer is as if it did not.
- ``"terminology"``: the house's own word for what others call otherwise.
- ``"relevance"``: one passage is shown; whether it answers the question, ``True`` or ``False``.
- ``"closed_book"``: no passage is shown; house knowledge is answered, all else is abstained from.
- ``"conversation"``: an exchange of the user's conversation files, as it stands there.
- ``"replay"``: a plain question with a plain answer, so that what the base can do stays.
"""

Split = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """One prompt with its wanted completion.

    Attributes:
        prompt: The messages as serving builds them.
        completion: The assistant's message.
        slice: What the row teaches.
        split: Whether it is trained on or held out.
        question_id: The question or conversation it was made from.
        source_ids: The passages shown, in the order of their numbers, by the name that people
            know: document and section, or document and row.
        node_ids: The same passages by their nodes' ids.
    """

    prompt: list[Message]
    completion: list[Message]
    slice: Slice
    split: Split = "train"
    question_id: str = ""
    source_ids: tuple[str, ...] = ()
    node_ids: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The text of the wanted completion."""
        return self.completion[0]["content"]

    @property
    def chars(self) -> int:
        """Characters of all messages."""
        return sum(len(message["content"]) for message in (*self.prompt, *self.completion))


def count_rows(rows: Sequence[TrainingRow]) -> dict[str, dict[str, int]]:
    """Count rows by split and slice, in the order in which both are defined."""
    counted = Counter((row.split, row.slice) for row in rows)
    return {
        split: {name: counted[split, name] for name in get_args(Slice) if counted[split, name]}
        for split in get_args(Split)
    }


def dump_rows(rows: Sequence[TrainingRow]) -> str:
    """Write rows as JSON Lines; equal rows give equal text."""
    lines = (json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def load_rows(path: Path) -> list[TrainingRow]:
    """Read rows that :func:`dump_rows` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        TrainingDataError: A record cannot be read; names the file, the record and the field.
    """
    lines = read_text(path).split("\n")
    return [_parse_row(line, path, number) for number, line in enumerate(lines, start=1) if line]


def _parse_row(line: str, source: Path, record: int) -> TrainingRow:
    raw = parse_object(line, source=source, record=record)

    def fail(name: str, problem: str) -> TrainingDataError:
        return TrainingDataError(problem, source=source, record=record, field=name)

    def names(name: str) -> tuple[str, ...]:
        value = raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise fail(name, f"It is {value!r:.80}; it must be a list of texts.")
        return tuple(value)

    for name in ("prompt", "completion"):
        messages = raw.get(name)
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            raise fail(name, 'It must be a list of messages {"role": …, "content": …}.')
    for name, allowed in (("slice", get_args(Slice)), ("split", get_args(Split))):
        if raw.get(name) not in allowed:
            raise fail(name, f"It is {raw.get(name)!r}; it must be one of {', '.join(allowed)}.")
    return TrainingRow(
        prompt=raw["prompt"],
        completion=raw["completion"],
        slice=raw["slice"],
        split=raw["split"],
        question_id=str(raw.get("question_id", "")),
        source_ids=names("source_ids"),
        node_ids=names("node_ids"),
    )


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"role", "content"}
        and value["role"] in ("system", "user", "assistant")
        and isinstance(value["content"], str)
    )
