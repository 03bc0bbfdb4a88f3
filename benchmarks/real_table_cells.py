"""Ask about cells of tables that the library has never seen, and count the right answers.

Every CSV file of a folder goes into a fresh knowledge base; cells are drawn at random and asked
for with the embedded model (or another), the embedded embedding and plain RAG::

    python benchmarks/real_table_cells.py --data my-tables/ --cells 50 --seed 0

The question is always "What is the {column} of {row}?", in the file's own words, where ``row`` is
the first cell of the row. A cell can be drawn if a person could ask about it so:

- the first row of the file names every column but perhaps the first, each one differently;
- the row's first cell is not empty, at most 12 words, and stands once in its column;
- the cell is not empty, at most 12 words, and holds no link or picture (``](``);
- no other table of the folder gives another value for the same row and column.

An answer is right if it gives the cell's value (``value_match``), and from the right row if its
verified citation leads to a passage that holds this cell under its column's name or, where
ingestion made no such passage, to a passage of this row.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from textwrap import shorten

from llama_index.core.schema import BaseNode

from phi3_industry.embeddings import load_embedding
from phi3_industry.evaluation.arms import Rate
from phi3_industry.evaluation.compare import compare_strategies
from phi3_industry.evaluation.result import ComparisonResult
from phi3_industry.evaluation.table import rate_with_interval
from phi3_industry.evaluation.wording import duration
from phi3_industry.grounding.questions import Question
from phi3_industry.knowledge_base import KnowledgeBase
from phi3_industry.llms import Phi3LLM

MAX_WORDS = 12
MAX_PRINTED = 160


@dataclass(frozen=True)
class Cell:
    """A cell that a person could ask about."""

    file: str
    row: str
    column: str
    value: str

    @property
    def question(self) -> str:
        """The question, in the file's own words."""
        return f"What is the {self.column} of {self.row}?"


def cells_of(file: Path, *, folder: Path) -> tuple[list[Cell], list[Cell]]:
    """Find the cells of one table: all that have a column name, and those that can be asked for."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = [[" ".join(cell.split()) for cell in row] for row in csv.reader(opened)]
    rows = [row for row in rows if any(row)]
    if not rows:
        return [], []
    header, *body = rows
    name = file.relative_to(folder).as_posix()
    every = [
        Cell(name, row[0], column, value)
        for row in body
        for column, value in zip(header[1:], row[1:], strict=False)
        if column
    ]
    columns = [column.casefold() for column in header[1:]]
    if not all(columns) or len(set(columns)) < len(columns):
        return every, []
    keys = Counter(row[0].casefold() for row in body)
    return every, [
        cell
        for cell in every
        if can_be_asked(cell.row) and can_be_asked(cell.value) and keys[cell.row.casefold()] == 1
    ]


def can_be_asked(text: str) -> bool:
    """Tell whether a person would ask about a text, or with it."""
    return 0 < len(text.split()) <= MAX_WORDS and "](" not in text


def possible_cells(files: Iterable[Path], *, folder: Path) -> list[Cell]:
    """Find the cells of all tables that can be asked for and have one answer in all of them."""
    values: dict[str, set[str]] = defaultdict(set)
    possible: list[Cell] = []
    for file in files:
        every, askable = cells_of(file, folder=folder)
        possible += askable
        for cell in every:
            values[cell.question.casefold()].add(cell.value.casefold())
    return [cell for cell in possible if len(values[cell.question.casefold()]) == 1]


def draw(cells: list[Cell], *, count: int, seed: int) -> list[Cell]:
    """Draw cells with different questions."""
    different = list({cell.question.casefold(): cell for cell in cells}.values())
    return random.Random(seed).sample(different, min(count, len(different)))


def holds(node: BaseNode, cell: Cell) -> bool:
    """Tell whether a passage holds this value for this row and column, of whichever table."""
    text = f"{' '.join(node.get_content().split())};".casefold()
    return all(
        part.casefold() in text for part in (f": {cell.row};", f"{cell.column}: {cell.value};")
    )


def to_questions(cells: list[Cell], nodes: list[BaseNode]) -> list[Question]:
    """Write the questions, with the passages that hold their answers."""
    return [
        Question(
            id=f"{cell.file} | {cell.row} | {cell.column}",
            question=cell.question,
            answers=(cell.value,),
            # ingestion may have read the header otherwise; the row is to be found all the same
            gold_ids=tuple(node.node_id for node in nodes if holds(node, cell))
            or (f"{cell.file}#{cell.row}",),
        )
        for cell in cells
    ]


def measure(folder: Path, *, model: str, cells: int, seed: int, top_k: int) -> dict[str, object]:
    """Index a folder's tables, ask about cells of them, and give the figures."""
    files = sorted(folder.rglob("*.csv"))
    possible = possible_cells(files, folder=folder)
    chosen = draw(possible, count=cells, seed=seed)
    if not chosen:
        sys.exit(f"'{folder}' holds {len(files)} CSV files and no cell that can be asked about.")
    llm = Phi3LLM(model)
    with tempfile.TemporaryDirectory() as place:
        embed_model = load_embedding("embedded")
        with KnowledgeBase.open(Path(place) / "kb", embed_model=embed_model) as kb:
            started = time.perf_counter()
            report = kb.add(folder)
            indexed_s = time.perf_counter() - started
            questions = to_questions(chosen, kb.vector_store.get_nodes())
            engine = kb.as_query_engine(llm, strategy="rag", similarity_top_k=top_k)
            result = compare_strategies(engine, questions=questions, strategies=["rag"], seed=seed)
    return {
        "data": "/".join(folder.resolve().parts[-2:]),
        "tables": len(files),
        "possible_cells": len(possible),
        "cells": len(chosen),
        "tables_asked_about": len({cell.file for cell in chosen}),
        "seed": seed,
        "similarity_top_k": top_k,
        "skipped": report.skipped,
        "indexed_s": round(indexed_s, 2),
        "hardware": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {
            name: metadata.version(name) for name in ("llama-index-core", "torch", "transformers")
        },
        "model": result.settings.get("model", model),
        **figures(result),
    }


def figures(result: ComparisonResult) -> dict[str, object]:
    """Count what was right, and list what was wrong."""
    arm, rows = result.arms["rag"], result.by_strategy["rag"]
    questions = {question.id: question for question in result.questions}
    wrong = [
        {
            "question": questions[row.question_id].question,
            "file": row.question_id.partition(" | ")[0],
            "wanted": questions[row.question_id].answers[0],
            "answered": row.error or row.answer,
            "row_shown": row.gold_shown,
            "right_row_cited": row.citation_right,
        }
        for row in rows
        if not row.value_match
    ]
    both = Rate.of(bool(row.value_match and row.citation_right) for row in rows)
    read = Rate.of(row.value_match for row in rows if row.gold_shown)
    return {
        "rates": {
            "right value": asdict(arm.value_match),
            "right row cited": asdict(arm.citation_right),
            "right value from the right row": asdict(both),
            "right row among the passages": asdict(arm.gold_shown),
            "right value where its row was shown": asdict(read),
            "abstained": asdict(arm.over_refusal),
            "failed": {"successes": arm.failed, "trials": len(rows)},
        },
        "latency_p50_s": round(arm.latency_p50_s, 4),
        "latency_p95_s": round(arm.latency_p95_s, 4),
        "wrong": wrong,
    }


def show(found: dict[str, object]) -> None:
    """Print the figures for people."""
    print(
        f"{found['data']}: {found['cells']} cells of {found['tables_asked_about']} tables, drawn "
        f"from {found['possible_cells']} cells of {found['tables']} tables, seed {found['seed']}; "
        f"{found['similarity_top_k']} passages, model {found['model']}"
    )
    for name, rate in found["rates"].items():  # type: ignore[attr-defined]
        counted = Rate(**rate)
        print(f"  {name:36}{counted.successes:4} of {counted.trials:<4}", end="")
        print(rate_with_interval(counted))
    print(
        f"  an answer takes {duration(found['latency_p50_s'])} (median), "  # type: ignore[arg-type]
        f"{duration(found['latency_p95_s'])} (95 %)"  # type: ignore[arg-type]
    )
    for one in found["wrong"]:  # type: ignore[attr-defined]
        place = "" if one["row_shown"] else "   (row not found)"
        print(f"\n  {one['question']}   [{one['file']}]{place}")
        print(f"    wanted   {one['wanted']}")
        print(f"    answered {shorten(one['answered'], MAX_PRINTED, placeholder=' ...')}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with CSV files")
    parser.add_argument("--cells", type=int, default=50, help="cells to ask about (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0)")
    parser.add_argument("--top-k", type=int, default=3, help="passages per prompt (default 3)")
    parser.add_argument("--model", default="embedded", help="folder or hub id of another model")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"there is no folder '{options.data}'")
    if options.cells < 1:
        parser.error("--cells must be at least 1")
    found = measure(
        options.data,
        model=options.model,
        cells=options.cells,
        seed=options.seed,
        top_k=options.top_k,
    )
    show(found)
    if options.json:
        text = json.dumps(found, ensure_ascii=False, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
