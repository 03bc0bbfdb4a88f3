"""What fine-tuning is measured on: an invented plant of its own size, and cells of real tables."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from real_table_cells import Cell, cells_of, possible_cells

from phi3_industry.grounding.questions import Question, load_questions

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from plant_devices import KINDS, Device, invent_devices
from plant_documents import write_papers
from plant_questions import ask_held_out, ask_training

__all__ = ["QuestionSet", "plant_set", "tables_set"]

_PER_HALL = 7
"""Devices of a kind for which ``tools/plant_documents.py`` writes papers."""

_MOST_COLUMN_WORDS = 6
_SPLIT_SEED = 20251120


@dataclass(frozen=True)
class QuestionSet:
    """Documents with questions to train on and held-out ones.

    Attributes:
        name: What tables call it.
        documents: Folder of the documents.
        train: Questions to train on.
        test: Questions about documents or devices that no training question is about.
        note: How it was made.
        by_row: Whether intervals draw the rows of tables, where there are too few documents.
    """

    name: str
    documents: Path
    train: list[Question]
    test: list[Question]
    note: str
    by_row: bool = False

    def cluster_of(self, question: Question) -> str:
        """Name the document, or the row, that a question is about."""
        gold = question.gold_ids[0] if question.gold_ids else question.id
        return gold if self.by_row else gold.partition("#")[0]


def plant_set(folder: Path, *, halls: int, train: int, test: int, unanswerable: int) -> QuestionSet:
    """Invent a plant of several halls, each with papers like those of ``examples/plant``.

    Args:
        folder: Where to write the documents and questions.
        halls: How many times the papers of the example; their devices all differ.
        train: Answerable training questions.
        test: Answerable held-out questions.
        unanswerable: Held-out questions without an answer; training has a fifth of ``train``.
    """
    rng = random.Random(_SPLIT_SEED)
    every = invent_devices(rng, per_kind=halls * _PER_HALL)
    devices: list[Device] = []
    places: dict[tuple[str, str], str] = {}
    for hall in range(halls):
        own = [
            _held_out_by_kind(replace(device, index=device.index % _PER_HALL))
            for device in every
            if device.index // _PER_HALL == hall
        ]
        papers = write_papers(own, rng)
        for path, content in papers.files.items():
            target = folder / "documents" / f"hall-{hall + 1}" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        places |= {fact: f"hall-{hall + 1}/{place}" for fact, place in papers.places.items()}
        devices += own
    asked = ask_training(devices, places, rng, again=0, unanswerable=train // 5)
    held = ask_held_out(
        devices,
        places,
        rng,
        answerable=min(test, sum(len(device.values) for device in devices if device.held_out)),
        unanswerable=unanswerable,
    )
    answerable = [record for record in asked if record["answers"]][:train]
    absent = [record for record in asked if not record["answers"]]
    return QuestionSet(
        name="plant",
        documents=folder / "documents",
        train=_questions(folder / "train.jsonl", answerable + absent),
        test=_questions(folder / "test.jsonl", held),
        note=f"{halls} halls, {len(devices)} invented devices; held out by device",
    )


def _held_out_by_kind(device: Device) -> Device:
    number = list(KINDS).index(device.kind)
    held_out = device.index in (number % _PER_HALL, (number + 3) % _PER_HALL)
    return replace(device, held_out=held_out)


def tables_set(
    folder: Path, sources: Sequence[Path], *, train: int, test: int, unanswerable: int
) -> QuestionSet:
    """Ask for cells of real CSV tables; the house wants the column's name after the value.

    Whole tables are held out. What cannot be asked for is left out by the rules of
    ``real_table_cells.py``; so are columns whose name is long.

    Args:
        folder: Where to copy the tables and write the questions.
        sources: Folders of CSV files.
        train: The most answerable training questions.
        test: The fewest answerable held-out questions, if there are as many.
        unanswerable: Held-out questions without an answer; training has a fifth of ``train``.
    """
    documents = folder / "documents"
    for source in sources:
        shutil.copytree(source, documents / source.resolve().parent.name, dirs_exist_ok=True)
    files = sorted(documents.rglob("*.csv"))
    cells = possible_cells(files, folder=documents)
    cells = list({cell.question.casefold(): cell for cell in cells}.values())
    cells = [cell for cell in cells if len(cell.column.split()) <= _MOST_COLUMN_WORDS]
    rng = random.Random(_SPLIT_SEED)
    names = sorted({cell.file for cell in cells})
    rng.shuffle(names)
    held: set[str] = set()
    for name in names:
        if sum(cell.file in held for cell in cells) < test:
            held.add(name)
    parts = [[c for c in cells if (c.file in held) == wanted] for wanted in (False, True)]
    drawn = [
        rng.sample(part, min(len(part), most))
        for part, most in zip(parts, (train, test), strict=True)
    ]
    every = [cell for file in files for cell in cells_of(file, folder=documents)[0]]
    taken = {cell.question.casefold() for cell in every}
    columns = sorted({cell.column for cell in cells})
    records = [
        [_cell_record(cell) for cell in chosen] + _absent(part, columns, taken, rng, count)
        for chosen, part, count in zip(drawn, parts, (train // 5, unanswerable), strict=True)
    ]
    return QuestionSet(
        name="tables",
        documents=documents,
        train=_questions(folder / "train.jsonl", records[0]),
        test=_questions(folder / "test.jsonl", records[1]),
        note=f"{len(files)} CSV tables of {', '.join(s.resolve().parent.name for s in sources)}; "
        f"{len(held)} tables held out; intervals draw rows, since few tables are large",
        by_row=True,
    )


def _cell_record(cell: Cell) -> dict[str, Any]:
    return {
        "id": f"{cell.file} | {cell.row} | {cell.column}",
        "question": cell.question,
        "answers": [cell.value],
        "gold_ids": [f"{cell.file}#{cell.row}", cell.file],
        "reference": f"{cell.value} | {cell.column}",
    }


def _absent(
    cells: Sequence[Cell], columns: Sequence[str], taken: set[str], rng: random.Random, count: int
) -> list[dict[str, Any]]:
    """Ask rows for columns that only other tables have."""
    rows = sorted({(cell.file, cell.row) for cell in cells})
    records: dict[str, dict[str, Any]] = {}
    for _ in range(100 * count):
        if len(records) >= count or not rows:
            break
        (file, row), column = rng.choice(rows), rng.choice(columns)
        asked = Cell(file, row, column, "")
        if asked.question.casefold() not in taken:
            identifier = f"absent | {row} | {column}"
            records[asked.question.casefold()] = {
                "id": identifier,
                "question": asked.question,
                "answers": [],
            }
    return list(records.values())


def _questions(path: Path, records: Sequence[dict[str, Any]]) -> list[Question]:
    """Write a questions file and read it as users' files are read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return load_questions(path)
