"""The questions file: questions, their answers, and the passages that hold them, as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import TrainingDataError

__all__ = ["IN_CORPUS", "UNANSWERABLE", "Question", "load_questions"]

IN_CORPUS = "in_corpus"
"""Stratum of a question that names none: the documents answer it."""

UNANSWERABLE = "unanswerable"
"""Stratum of a question that the documents cannot answer."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a questions file.

    Attributes:
        id: Its name, unique in the file.
        question: Its text.
        answers: Right answers, any one of which suffices; empty if the documents hold none.
        gold_ids: The passages that hold the answer, each as a node id, a ``source_id``
            (``"pumps.csv#P-4471"``) or a document id.
        reference: The wanted answer without its citation, in the house's own format, such as
            ``"38.2 bar | PDIS"``; ``None`` if the first answer is as good.
        metadata: Anything else that the file says about it, such as its ``"stratum"``.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold_ids: tuple[str, ...] = ()
    reference: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answerable(self) -> bool:
        """Whether the documents hold an answer."""
        return bool(self.answers)

    @property
    def wanted(self) -> str | None:
        """The answer in the wanted form; ``None`` if the documents hold none."""
        if self.reference is not None:
            return self.reference
        return self.answers[0] if self.answers else None

    @property
    def stratum(self) -> str:
        """What kind of question it is, by ``metadata["stratum"]``.

        Usual names are ``"in_corpus"``, which stands where there is none, ``"changed"`` for facts
        that changed after fine-tuning, ``"terminology"`` and ``"general"``; any other will do.
        One that the documents cannot answer is ``"unanswerable"`` whatever it names.
        """
        if not self.answerable:
            return UNANSWERABLE
        return str(self.metadata.get("stratum") or IN_CORPUS)


def load_questions(path: str | PathLike[str]) -> list[Question]:
    """Read a questions file.

    Args:
        path: A JSON Lines file in UTF-8. Empty lines are passed over.

    Returns:
        The questions in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        TrainingDataError: A record cannot be read; names the file, the record and the field.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingDataError(
            f"The file is not UTF-8 text (byte {error.start}). Save it as UTF-8.", source=source
        ) from error
    questions: list[Question] = []
    seen: dict[str, int] = {}
    # str.splitlines() would also break at U+2028 and the like, which JSON allows inside texts
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        question = _parse(line, source=source, record=number)
        if question.id in seen:
            raise TrainingDataError(
                f"The id '{question.id}' stands in record {seen[question.id]} already. "
                "Give each question an id of its own.",
                source=source,
                record=number,
                field="id",
            )
        seen[question.id] = number
        questions.append(question)
    if not questions:
        raise TrainingDataError("The file holds no question.", source=source)
    return questions


def _parse(line: str, *, source: Path, record: int) -> Question:
    try:
        raw = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TrainingDataError(
            f"The line is not JSON ({error}). Write one JSON object a line.",
            source=source,
            record=record,
        ) from error
    if not isinstance(raw, dict):
        raise TrainingDataError(
            f"The line holds a {type(raw).__name__}. Write one JSON object a line.",
            source=source,
            record=record,
        )

    def fail(name: str, wanted: str) -> TrainingDataError:
        found = f"is {raw[name]!r:.80}" if name in raw else "is missing"
        return TrainingDataError(
            f"It {found}; it must be {wanted}.", source=source, record=record, field=name
        )

    def texts(name: str) -> tuple[str, ...]:
        value = raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise fail(name, "a list of texts")
        return tuple(value)

    question = raw.get("question")
    if not isinstance(question, str) or not question.strip():
        raise fail("question", "a text that is not empty")
    if "answers" not in raw:
        raise fail("answers", "a list of texts, empty if the documents hold no answer")
    answers = texts("answers")
    if any(not answer.strip() for answer in answers):
        raise fail("answers", "a list of texts of which none is empty")
    reference = raw.get("reference")
    if reference is not None and (not isinstance(reference, str) or not reference.strip()):
        raise fail("reference", "a text that is not empty")
    metadata = raw.get("metadata", {})
    if not isinstance(metadata, dict):
        raise fail("metadata", "an object")
    if not isinstance(metadata.get("stratum", ""), str):
        raise fail("metadata", "an object whose stratum is a text")
    return Question(
        id=str(raw.get("id", record)),
        question=question,
        answers=answers,
        gold_ids=texts("gold_ids"),
        reference=reference,
        metadata=metadata,
    )
