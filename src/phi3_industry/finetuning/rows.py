"""One row to train on, and the JSON Lines file that holds many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from phi3_industry.errors import TrainingDataError
from phi3_industry.grounding.prompt import Message

__all__ = [
    "Slice",
    "Split",
    "TrainingRow",
    "count_rows",
    "dump_rows",
    "load_rows",
    "parse_object",
    "read_text",
]

Slice = Literal["grounded", "missing", "closed_book", "replay"]
"""What a row teaches.

- ``"grounded"``: the passage that holds the answer is shown among others; the answer cites it.
- ``"missing"``: the passages shown do not hold the answer; the answer abstains.
- ``"closed_book"``: no passage is shown; house knowledge is answered, all else is abstained from.
- ``"replay"``: a plain question with a plain answer, so that the base's own reading stays.
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
        question_id: The question it was made from.
        source_ids: The passages shown, in the order of their numbers.
    """

    prompt: list[Message]
    completion: list[Message]
    slice: Slice
    split: Split = "train"
    question_id: str = ""
    source_ids: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The text of the wanted completion."""
        return self.completion[0]["content"]


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
    for name in ("prompt", "completion"):
        messages = raw.get(name)
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            raise TrainingDataError(
                'It must be a list of messages {"role": …, "content": …}.',
                source=source,
                record=record,
                field=name,
            )
    for name, allowed in (("slice", get_args(Slice)), ("split", get_args(Split))):
        if raw.get(name) not in allowed:
            raise TrainingDataError(
                f"It is {raw.get(name)!r}; it must be one of {', '.join(allowed)}.",
                source=source,
                record=record,
                field=name,
            )
    return TrainingRow(
        prompt=raw["prompt"],
        completion=raw["completion"],
        slice=raw["slice"],
        split=raw["split"],
        question_id=str(raw.get("question_id", "")),
        source_ids=tuple(raw.get("source_ids", ())),
    )


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"role", "content"}
        and value["role"] in ("system", "user", "assistant")
        and isinstance(value["content"], str)
    )


def parse_object(text: str, *, source: Path, record: int | None) -> dict[str, Any]:
    """Read one JSON object, or say where there is none."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TrainingDataError(
            f"It is not JSON ({error}).", source=source, record=record
        ) from error
    if not isinstance(value, dict):
        raise TrainingDataError(
            f"It holds a {type(value).__name__} where an object is wanted.",
            source=source,
            record=record,
        )
    return value


def read_text(path: Path) -> str:
    """Read a file of a training set as UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"'{path.parent}' holds no training set: there is no '{path.name}' in it."
        ) from error
    except UnicodeDecodeError as error:
        raise TrainingDataError(
            f"The file is not UTF-8 text (byte {error.start}).", source=path
        ) from error
