"""The answers of a comparison on disk, one line each, so that a stopped one can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from phi3_industry.errors import ConfigurationError
from phi3_industry.evaluation.rows import AnswerRow, CitedPassage, Passage
from phi3_industry.grounding.questions import Question
from phi3_industry.query_engine.calibration import Calibration

__all__ = ["Journal", "Record", "journal_settings"]

_FORMAT = "phi3-industry comparison journal"
_VERSION = 1

Record = tuple[AnswerRow, list[Passage], dict[str, str]]
"""A scored answer, the passages it was shown, and what the engine said that it is."""


class Journal:
    """A JSON Lines file of scored answers under a first line that says what they are of.

    Each answer is written as one line when it is there. A line that a kill cut off is dropped
    when the file is opened again.

    Args:
        path: The file; one that is there is read and gone on with.
        settings: What the answers depend on, by name.

    Raises:
        ConfigurationError: The file is of other settings, or no such file.
    """

    def __init__(self, path: str | PathLike[str], settings: Mapping[str, str]) -> None:
        self._path = Path(path)
        self.records: list[Record] = []
        """The answers that were there already, without failed ones: those are asked again."""
        self.judged: dict[str, dict[str, Any]] = {}
        """What a judge said already, by what it was asked."""
        lines = self._read()
        if lines:
            self._check(lines[0], settings)
            for number, line in enumerate(lines[1:], start=2):
                self._take(line, number)
        self._file: BinaryIO = self._path.open("ab")
        if not lines:
            self._write({"format": _FORMAT, "version": _VERSION, "settings": dict(settings)})

    def add(self, row: AnswerRow, passages: Sequence[Passage], said: Mapping[str, str]) -> None:
        """Append an answer."""
        self._write(
            {
                "row": asdict(row),
                "passages": [asdict(passage) for passage in passages],
                "said": dict(said),
            }
        )

    def add_judged(self, asked: str, outcome: dict[str, Any]) -> None:
        """Append what a judge said."""
        self.judged[asked] = outcome
        self._write({"judged": asked, "outcome": outcome})

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> list[bytes]:
        """Read the whole lines, and cut off one that was not finished."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        whole = content.rfind(b"\n") + 1
        if content and not whole and not content.startswith(b'{"format"'):
            raise self._no_journal("its first line has no end")
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)
        return content[:whole].splitlines()

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, default=str) + "\n"  # ASCII: half a surrogate pair survives it
        self._file.write(line.encode("ascii"))
        self._file.flush()

    def _check(self, line: bytes, settings: Mapping[str, str]) -> None:
        try:
            head = json.loads(line)
            kind, version, found = head["format"], head["version"], dict(head["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_journal(f"{type(error).__name__}: {error}") from error
        if (kind, version) != (_FORMAT, _VERSION):
            raise self._no_journal(f"it is '{kind}', version {version}")
        differing = [
            f"{name}: expected {settings.get(name, 'nothing')[:60]!r}, found "
            f"{str(found.get(name, 'nothing'))[:60]!r}"
            for name in sorted({*settings, *found})
            if settings.get(name) != found.get(name)
        ]
        if differing:
            raise ConfigurationError(
                f"'{self._path}' holds answers of another comparison ({'; '.join(differing)}). "
                "Give another file, or delete this one to begin again."
            )

    def _take(self, line: bytes, number: int) -> None:
        try:
            raw = json.loads(line)
            if "judged" in raw:
                self.judged[raw["judged"]] = dict(raw["outcome"])
                return
            row = raw["row"]
            row["citations"] = tuple(CitedPassage(**citation) for citation in row["citations"])
            row["passages"] = tuple(row["passages"])
            passages = [Passage(**passage) for passage in raw["passages"]]
            record = AnswerRow(**row), passages, dict(raw["said"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_journal(f"line {number}: {type(error).__name__}: {error}") from error
        if not record[0].error:
            self.records.append(record)

    def _no_journal(self, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"'{self._path}' is no journal of a comparison ({problem}). Give another file."
        )


def journal_settings(
    questions: Sequence[Question], engines: Mapping[str, object], glossary: object
) -> dict[str, str]:
    """Say what scored answers depend on, as far as it can be seen.

    Args:
        questions: The questions.
        engines: The engine of each way; its ``fingerprints()``, ``answer_settings`` and
            ``calibration`` count if it has them.
        glossary: The house's terms, or ``None``.

    Returns:
        Names and hashes.
    """
    facts = [asdict(question) for question in questions]
    settings = {
        "questions": _hash(json.dumps(facts, sort_keys=True, default=str)),
        "strategies": ", ".join(engines),
        "glossary": _hash(repr(glossary)),
    }
    for name, engine in engines.items():
        known: Any = getattr(engine, "fingerprints", None)
        calibration: Any = getattr(engine, "calibration", None)
        parts = [
            type(engine).__name__,
            known() if callable(known) else {},
            getattr(engine, "answer_settings", {}),
            # sorted: one that was just fitted and the same read from its file differ in order
            asdict(calibration) if isinstance(calibration, Calibration) else repr(calibration),
        ]
        settings[f"engine of {name}"] = _hash(json.dumps(parts, sort_keys=True, default=str))
    return settings


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="backslashreplace")).hexdigest()
