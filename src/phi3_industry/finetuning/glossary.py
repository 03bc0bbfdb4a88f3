"""A house's glossary: the terms it uses and avoids, its units, and the form of its answers."""

from __future__ import annotations

import csv
import io
import json
import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.evidence import find_whole
from phi3_industry.finetuning.records import check_text, read_text
from phi3_industry.finetuning.wordings import fill
from phi3_industry.grounding.questions import Question

__all__ = ["Glossary", "Term", "load_glossary", "with_house_form"]

_FIELDS = ("term", "banned", "unit", "answer_format", "definition")
_SEPARATOR = ";"


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of a house.

    Attributes:
        term: The word that the house uses.
        banned: Words for the same that it avoids.
        unit: The unit in which it is given; empty if it has none.
        answer_format: What an answer about it looks like, such as ``"{value} | PDIS"``, where
            ``{value}`` is the fact, ``{term}`` and ``{unit}`` what stands here; empty if the
            fact alone is wanted.
        definition: What it means; empty if nothing is to be taught of that.
    """

    term: str
    banned: tuple[str, ...] = ()
    unit: str = ""
    answer_format: str = ""
    definition: str = ""

    def answer(self, value: str) -> str:
        """Write a fact as the house does."""
        return fill(self.answer_format or "{value}", value=value, term=self.term, unit=self.unit)


@dataclass(frozen=True)
class Glossary:
    """The terms of a house.

    Attributes:
        terms: The terms, each one once.
    """

    terms: Sequence[Term] = field(default_factory=tuple)

    def find(self, text: str) -> tuple[Term, str] | None:
        """Find the term that a text is about: the longest word of the glossary that it holds.

        Returns:
            The term, and its name or banned name as the text spells it.
        """
        found = [
            (term, spelled)
            for term in self.terms
            for name in (term.term, *term.banned)
            if (spelled := find_whole(name, text))
        ]
        return max(found, key=lambda pair: len(pair[1]), default=None)

    def banned_in(self, text: str) -> str | None:
        """Find a banned word in a text; one that is part of a good word in it does not count."""
        for term in self.terms:
            text = text.replace(find_whole(term.term, text) or term.term, "\n")
        banned = (name for term in self.terms for name in term.banned)
        return next((name for name in banned if find_whole(name, text)), None)


def with_house_form(questions: Sequence[Question], glossary: Glossary) -> list[Question]:
    """Give a reference in the house's form to each question about a term that has none."""
    formed = []
    for question in questions:
        found = glossary.find(question.question) if question.reference is None else None
        if found and found[0].answer_format and question.answerable:
            question = replace(question, reference=found[0].answer(question.answers[0]))
        formed.append(question)
    return formed


def load_glossary(path: str | PathLike[str]) -> Glossary:
    """Read a glossary.

    Args:
        path: A JSON, TOML or CSV file in UTF-8. JSON holds a list of terms, or an object with
            ``terms`` and an ``answer_format`` for all of them that have none of their own; TOML
            the same as ``[[terms]]``. CSV has the columns ``term``, ``banned`` (several parted
            by semicolons), ``unit``, ``answer_format`` and ``definition``, of which only the
            first is needed.

    Returns:
        The glossary.

    Raises:
        FileNotFoundError: There is no such file.
        TrainingDataError: It cannot be read, or its terms contradict each other; names the
            file, the record and the field.
    """
    source = Path(path)
    text = read_text(source)
    readers = {".json": _json_records, ".toml": _toml_records, ".csv": _csv_records}
    reader = readers.get(source.suffix.casefold())
    if reader is None:
        raise TrainingDataError(
            f"A glossary is a file that ends in {', '.join(readers)}.", source=source
        )
    records, shared = reader(text, source)
    terms = [
        _parse(raw, source=source, record=number, shared=shared)
        for number, raw in enumerate(records, start=1)
    ]
    if not terms:
        raise TrainingDataError("The glossary holds no term.", source=source)
    _check_names(terms, source)
    return Glossary(tuple(terms))


def _json_records(text: str, source: Path) -> tuple[list[Any], Any]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TrainingDataError(f"It is not JSON ({error}).", source=source) from error
    return _listed({"terms": value} if isinstance(value, list) else value, source)


def _toml_records(text: str, source: Path) -> tuple[list[Any], Any]:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingDataError(f"It is not TOML ({error}).", source=source) from error
    return _listed(value, source)


def _listed(value: Any, source: Path) -> tuple[list[Any], Any]:
    if not isinstance(value, dict) or not isinstance(value.get("terms"), list):
        raise TrainingDataError("It must be a list of terms.", source=source, field="terms")
    unknown = sorted(set(value) - {"terms", "answer_format"})
    if unknown:
        raise TrainingDataError(
            "A glossary has the keys terms and answer_format only.", source=source, field=unknown[0]
        )
    return value["terms"], value.get("answer_format", "")


def _csv_records(text: str, source: Path) -> tuple[list[Any], Any]:
    reader = csv.DictReader(io.StringIO(text), restkey="")
    try:
        rows = [{name: cell for name, cell in row.items() if cell} for row in reader]
    except csv.Error as error:
        raise TrainingDataError(f"It is not CSV ({error}).", source=source) from error
    for row in rows:
        if isinstance(row.get("banned"), str):
            parts = (part.strip() for part in row["banned"].split(_SEPARATOR))
            row["banned"] = [part for part in parts if part]
    return list(rows), ""


def _parse(raw: Any, *, source: Path, record: int, shared: Any) -> Term:
    def fail(name: str, problem: str) -> TrainingDataError:
        return TrainingDataError(problem, source=source, record=record, field=name)

    if not isinstance(raw, dict):
        raise TrainingDataError(
            f"It holds a {type(raw).__name__} where an object is wanted.",
            source=source,
            record=record,
        )
    for name in raw:
        if name not in _FIELDS:
            raise fail(str(name), f"There is no such field; a term has {', '.join(_FIELDS)}.")
    texts = {
        name: check_text(raw[name], partial(fail, name)).strip()
        for name in ("unit", "answer_format", "definition")
        if raw.get(name)
    }
    if shared and "answer_format" not in texts:
        texts["answer_format"] = check_text(shared, partial(fail, "answer_format"))
    if "answer_format" in texts and "{value}" not in texts["answer_format"]:
        raise fail("answer_format", f"It is {texts['answer_format']!r} and lacks {{value}}.")
    banned = raw.get("banned", [])
    if not isinstance(banned, list):
        raise fail("banned", "It must be a list of texts.")
    return Term(
        term=check_text(raw.get("term"), partial(fail, "term")).strip(),
        banned=tuple(check_text(name, partial(fail, "banned")).strip() for name in banned),
        **texts,
    )


def _check_names(terms: Sequence[Term], source: Path) -> None:
    """Check that no word stands for two things, and none is both used and avoided."""
    seen: dict[str, int] = {}
    for number, name_field, name in _names(terms):
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in seen:
            raise TrainingDataError(
                f"'{name}' stands in record {seen[key]} already; a word is the name of one term "
                "or is banned in favour of one.",
                source=source,
                record=number,
                field=name_field,
            )
        seen[key] = number


def _names(terms: Sequence[Term]) -> Iterator[tuple[int, str, str]]:
    for number, term in enumerate(terms, start=1):
        yield number, "term", term.term
        for name in term.banned:
            yield number, "banned", name
