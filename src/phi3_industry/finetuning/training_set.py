"""Rows to train on: a prompt as it is served, and the answer that is wanted for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.folders import replaced_folder
from phi3_industry.finetuning.rows import (
    Split,
    TrainingRow,
    dump_rows,
    load_rows,
    parse_object,
    read_text,
)

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["MINIMUM_ROWS", "TrainingReport", "TrainingSet", "size_notes"]

MINIMUM_ROWS = 2
"""Fewer training rows than this are refused: one row has no order and no other to differ from."""

_FEW_ROWS = 50
_FORMAT_VERSION = 1
_ROWS_FILE = "rows.jsonl"
_REPORT_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What became of the questions.

    Attributes:
        questions: Questions that were given.
        counts: Rows by split and slice.
        dropped: For each reason the ids of the questions of which a row was dropped, once a row.
        prompt_tokens: Least, median and most tokens of a prompt; ``None`` if no model counted.
        split_by: What the validation rows were held out by: ``"document"``, or ``"passage"``
            where the answers stand in too few documents.
        notes: Anything that was adjusted or that limits what the set can teach.
    """

    questions: int
    counts: Mapping[str, Mapping[str, int]]
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prompt_tokens: Mapping[str, int] | None = None
    split_by: str = "document"
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Say it in a few lines."""
        lines = [f"{self.questions} questions; held out by {self.split_by}"]
        for split, slices in self.counts.items():
            listed = ", ".join(f"{name} {count}" for name, count in slices.items())
            lines.append(f"{split}: {sum(slices.values())} rows ({listed})")
        if self.prompt_tokens:
            listed = ", ".join(f"{name} {count}" for name, count in self.prompt_tokens.items())
            lines.append(f"prompt tokens: {listed}")
        for reason, ids in self.dropped.items():
            first = ", ".join(dict.fromkeys(ids[:3]))
            more = ", …" if len(set(ids)) > len(set(ids[:3])) else ""
            lines.append(f"dropped {len(ids)} rows: {reason} ({first}{more})")
        lines.extend(self.notes)
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Rows to train on, with the prompt that they were built by.

    Attributes:
        rows: All rows, held-out ones included.
        prompt_fingerprint: Fingerprint of the prompt module that built them; an adapter carries
            it, and serving with another prompt is refused.
        report: What became of the questions.
    """

    rows: tuple[TrainingRow, ...]
    prompt_fingerprint: str
    report: TrainingReport

    def __post_init__(self) -> None:
        count = len(self.split("train"))
        if count < MINIMUM_ROWS:
            reasons = "; ".join(
                f"{len(ids)} dropped because {reason}"
                for reason, ids in self.report.dropped.items()
            )
            raise TrainingDataError(
                f"The training set has {count} training row(s) and at least {MINIMUM_ROWS} are "
                f"needed; a few hundred teach a house format. {reasons or 'Nothing was dropped'}. "
                "Give more questions whose answers stand in the documents."
            )

    def split(self, name: Split) -> list[TrainingRow]:
        """Give the rows of one split."""
        return [row for row in self.rows if row.split == name]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the prompt's fingerprint and every row, as hexadecimal text."""
        digest = hashlib.sha256(self.prompt_fingerprint.encode())
        digest.update(dump_rows(self.rows).encode())
        return digest.hexdigest()

    def to_dataset(self, split: Split | None = None) -> Dataset:
        """Give the rows as a conversational prompt–completion dataset, as TRL reads it.

        Args:
            split: Only the rows of this split; ``None`` is all of them.

        Returns:
            A dataset with the columns ``prompt``, ``completion``, ``slice`` and ``split``.
        """
        from datasets import Dataset

        rows = self.rows if split is None else self.split(split)
        columns = ("prompt", "completion", "slice", "split")
        return Dataset.from_list([{name: getattr(row, name) for name in columns} for row in rows])

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the set as ``rows.jsonl`` and ``report.json``.

        Args:
            folder: The folder to write; an earlier training set in it is replaced.

        Returns:
            The folder.

        Raises:
            FileExistsError: The folder holds something else.
        """
        header = {
            "format_version": _FORMAT_VERSION,
            "prompt_fingerprint": self.prompt_fingerprint,
            "fingerprint": self.fingerprint,
            "report": asdict(self.report),
        }
        with replaced_folder(folder, marker=_REPORT_FILE) as working:
            (working / _ROWS_FILE).write_text(dump_rows(self.rows), encoding="utf-8", newline="\n")
            text = json.dumps(header, indent=2, ensure_ascii=False)
            (working / _REPORT_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> TrainingSet:
        """Read a set that :meth:`save` wrote.

        Args:
            folder: Its folder.

        Returns:
            The set.

        Raises:
            FileNotFoundError: There is no training set in the folder.
            TrainingDataError: A file is damaged or was changed since it was saved.
        """
        report_path, rows_path = Path(folder) / _REPORT_FILE, Path(folder) / _ROWS_FILE
        header = _read_header(report_path)
        rows = load_rows(rows_path)
        loaded = cls(
            rows=tuple(rows),
            prompt_fingerprint=header["prompt_fingerprint"],
            report=TrainingReport(**header["report"]),
        )
        if loaded.fingerprint != header["fingerprint"]:
            raise TrainingDataError(
                f"The rows have the fingerprint {loaded.fingerprint[:12]}…, but the set was saved "
                f"with {str(header['fingerprint'])[:12]}…: the file was changed. Build the set "
                "again, or save a changed one with TrainingSet.save().",
                source=rows_path,
            )
        return loaded


def size_notes(rows: Sequence[TrainingRow]) -> list[str]:
    """Say in words what a small set cannot do."""
    count = sum(row.split == "train" for row in rows)
    notes = []
    if count < _FEW_ROWS:
        notes.append(
            f"only {count} training rows: fewer than {_FEW_ROWS} seldom teach a format that holds"
        )
    if count == len(rows):
        notes.append("no row is held out, so nothing shows whether training helped")
    return notes


def _read_header(path: Path) -> dict[str, Any]:
    header = parse_object(read_text(path), source=path, record=None)
    version = header.get("format_version")
    if version != _FORMAT_VERSION:
        raise TrainingDataError(
            f"It is {version!r}; this version of the library reads {_FORMAT_VERSION}. Build the "
            "training set again.",
            source=path,
            field="format_version",
        )
    for name, kind in (("prompt_fingerprint", str), ("fingerprint", str), ("report", dict)):
        if not isinstance(header.get(name), kind):
            raise TrainingDataError(
                "It is missing or of another type. Build the training set again.",
                source=path,
                field=name,
            )
    known = set(TrainingReport.__dataclass_fields__)
    if not {"questions", "counts"} <= set(header["report"]) <= known:
        raise TrainingDataError(
            f"It has the keys {sorted(header['report'])}. Build the training set again.",
            source=path,
            field="report",
        )
    return header
