"""Rows to train on, and the folder that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.folders import replaced_folder
from phi3_industry.finetuning.records import parse_object, read_text
from phi3_industry.finetuning.report import TrainingReport, Verdict
from phi3_industry.finetuning.rows import Split, TrainingRow, dump_rows, load_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["MINIMUM_ROWS", "Layout", "TrainingReport", "TrainingSet"]

MINIMUM_ROWS = 2
"""Fewer training rows than this are refused: one row has no order and no other to differ from."""

Layout = Literal["messages", "conversations"]
"""``"messages"`` is what TRL, Axolotl and OpenAI's service read; ``"conversations"`` is ShareGPT's
form, which the Phi-3 cookbook's training script reads."""

_FORMAT_VERSION = 2
_REPORT_FILE = "report.json"
_PAGE_FILE = "report.md"
_NO_SET = "The folder holds no training set: there is no '{path}'."


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
        for name in get_args(Split):
            digest.update(dump_rows(self.split(name)).encode())
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
        """Write the rows as ``train.jsonl`` and ``validation.jsonl``, and the report beside them.

        TRL reads the rows by ``datasets.load_dataset("json", data_files=…)``. The report is there
        for programs as ``report.json`` and for people as ``report.md``.

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
            for name in get_args(Split):
                _write(working / f"{name}.jsonl", dump_rows(self.split(name)))
            _write(working / _PAGE_FILE, self.report.markdown())
            _write(working / _REPORT_FILE, json.dumps(header, indent=2, ensure_ascii=False) + "\n")
        return Path(folder)

    def export(self, path: str | PathLike[str], *, split: Split, layout: Layout) -> Path:
        """Write the rows of a split for other trainers, as JSON Lines.

        Such a trainer has to be told to train on the last message alone.

        Args:
            path: The file to write; it must not be there yet.
            split: The split.
            layout: The form of a row.

        Returns:
            The file.

        Raises:
            FileExistsError: The file is there.
        """
        shape = _LAYOUTS[layout]
        lines = (
            json.dumps(shape([*row.prompt, *row.completion]), ensure_ascii=False)
            for row in self.split(split)
        )
        with Path(path).open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        return Path(path)

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
        path = Path(folder)
        header = _read_header(path / _REPORT_FILE)
        rows = [row for name in get_args(Split) for row in load_rows(path / f"{name}.jsonl")]
        loaded = cls(
            rows=tuple(rows),
            prompt_fingerprint=header["prompt_fingerprint"],
            report=_read_report(dict(header["report"])),
        )
        if loaded.fingerprint != header["fingerprint"]:
            raise TrainingDataError(
                f"The rows have the fingerprint {loaded.fingerprint[:12]}…, but the set was saved "
                f"with {str(header['fingerprint'])[:12]}…: a file was changed. Build the set "
                "again, or save a changed one with TrainingSet.save().",
                source=path,
            )
        return loaded


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _as_messages(messages: list[dict[str, str]]) -> dict[str, Any]:
    return {"messages": messages}


def _as_conversations(messages: list[dict[str, str]]) -> dict[str, Any]:
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": speakers[m["role"]], "value": m["content"]} for m in messages]
    return {"conversations": turns}


_LAYOUTS: dict[str, Callable[[list[dict[str, str]]], dict[str, Any]]] = {
    "messages": _as_messages,
    "conversations": _as_conversations,
}


def _read_header(path: Path) -> dict[str, Any]:
    header = parse_object(read_text(path, missing=_NO_SET), source=path, record=None)
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


def _read_report(raw: dict[str, Any]) -> TrainingReport:
    verdict = raw.pop("verdict", None)
    if verdict is None:
        return TrainingReport(**raw)
    found = Verdict(teaches=verdict["teaches"], reasons=tuple(verdict["reasons"]))
    return TrainingReport(**raw, verdict=found)
