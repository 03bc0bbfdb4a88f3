"""Real tables for the training mixture, from data folders given on the command line.

A folder holds ``tables.jsonl`` (``{"id", "rows"}``) and ``questions.dev.jsonl``. Tables that a
development question relies on, and those laid out beside it as ``tables/<id>.csv``, measure the
library and are never trained on. Rows whose key and cells whose number is held out are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .draw import held_out
from .tables import Table

__all__ = ["load_training_tables"]


def load_training_tables(folder: Path, *, max_rows: int = 30) -> list[Table]:
    """Read the tables of a folder that no development question touches.

    Args:
        folder: Data folder.
        max_rows: Rows kept of a table.

    Returns:
        Tables with one header row, a key in the first column, and at least two rows.

    Raises:
        FileNotFoundError: The folder lacks one of the two files.
    """
    measured = _measured_documents(folder)
    tables = []
    with (folder / "tables.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if _document(record["id"]) in measured:
                continue
            table = _table(record["rows"], max_rows)
            if table is not None:
                tables.append(table)
    return tables


def _measured_documents(folder: Path) -> set[str]:
    measured = {_document(path.stem) for path in (folder / "tables").glob("*.csv")}
    with (folder / "questions.dev.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            question = json.loads(line)
            measured.update(_document(passage) for passage in question["gold_ids"])
            measured.add(str(question.get("metadata", {}).get("group", "")))
    return measured


def _document(passage_id: str) -> str:
    return passage_id.rsplit("-", 1)[0] if passage_id.count("-") > 1 else passage_id


def _table(rows: list[list[str]], max_rows: int) -> Table | None:
    """Take the last row without a key as the header, and the rows with key and values below it."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    headers = [i for i, row in enumerate(cells) if not row[0] and sum(map(bool, row[1:])) >= 1]
    full = [i for i in headers if all(cells[i][1:])]
    if not full:
        return None
    columns = cells[full[-1]][1:]
    if len({column.casefold() for column in columns}) < len(columns):
        return None
    body = list(_rows(cells[full[-1] + 1 :], max_rows))
    if len(body) < 2:
        return None
    periods = all(any(character.isdigit() for character in column) for column in columns)
    return Table("Table", ("Item", *columns), tuple(body), periods=periods)


def _rows(cells: list[list[str]], max_rows: int) -> Iterator[tuple[str, ...]]:
    seen: set[str] = set()
    for row in cells[:max_rows]:
        usable = row[0] and any(row[1:]) and "{" not in "".join(row) and len(row[0]) < 90
        if usable and row[0].casefold() not in seen:
            seen.add(row[0].casefold())
            kept = tuple(row[0:1]) + tuple("" if _is_held_out(cell) else cell for cell in row[1:])
            if not held_out(row[0]) and any(kept[1:]):
                yield kept


def _is_held_out(cell: str) -> bool:
    return any(character.isdigit() for character in cell) and held_out(cell)
