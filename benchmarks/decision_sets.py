"""What the decision report is made of: documents, questions, and facts that change."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_index.core.schema import Document

from phi3_industry.grounding.questions import Question, load_questions
from phi3_industry.knowledge_base import KnowledgeBase

__all__ = ["CorpusSet", "FolderSet", "group_of", "open_set", "part_by_group"]

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass
class FolderSet:
    """Documents as files, ``documents/``, with ``questions.train.jsonl`` and ``.dev.jsonl``.

    The documents are copied, so that some of their facts can be changed after fine-tuning.

    Attributes:
        folder: Where they are.
        work: Where the copy goes.
        facts: Most facts to change: cells of CSV files that questions ask for, one of a row.
        seed: Seed of the draw.
    """

    folder: Path
    work: Path
    facts: int
    seed: int
    train: list[Question] = field(init=False)
    dev: list[Question] = field(init=False)

    def __post_init__(self) -> None:
        self.train = load_questions(self.folder / "questions.train.jsonl")
        self.dev = load_questions(self.folder / "questions.dev.jsonl")

    @property
    def note(self) -> str:
        """How the questions came about."""
        return f"{self.folder.name}: {len(self.train)} train and {len(self.dev)} dev questions"

    def fill(self, base: KnowledgeBase) -> None:
        """Put the documents into a knowledge base, as they were before fine-tuning."""
        shutil.rmtree(self._documents, ignore_errors=True)
        shutil.copytree(self.folder / "documents", self._documents)
        print(base.refresh(self._documents, show_progress=True))

    def change(
        self, base: KnowledgeBase, questions: Sequence[Question]
    ) -> tuple[list[Question], float]:
        """Change some facts that questions ask for, and index what changed.

        Returns:
            The questions about them with their new answers, and the seconds of indexing.
        """
        changed = _edit_cells(self._documents, questions, self.facts, random.Random(self.seed))
        started = time.monotonic()
        print(base.refresh(self._documents))
        return changed, time.monotonic() - started

    @property
    def _documents(self) -> Path:
        return self.work / "documents"


@dataclass
class CorpusSet:
    """Passages as ``corpus.jsonl`` with ``questions.train.jsonl`` and ``questions.dev.jsonl``.

    Such a set asks nothing that its passages cannot answer. So the documents of some questions
    are left out, and these questions have no answer then.

    Attributes:
        folder: Where they are.
        missing: Share of the groups of questions whose documents are left out.
        seed: Seed of the draw.
    """

    folder: Path
    missing: float
    seed: int
    train: list[Question] = field(init=False)
    dev: list[Question] = field(init=False)

    def __post_init__(self) -> None:
        parts = [
            load_questions(self.folder / f"questions.{name}.jsonl") for name in ("train", "dev")
        ]
        rng = random.Random(self.seed)
        self._left_out: set[str] = set()
        for part in parts:
            groups = sorted({group_of(question) for question in part})
            self._left_out |= set(rng.sample(groups, round(self.missing * len(groups))))
        self._gold = {
            gold
            for part in parts
            for question in part
            if group_of(question) in self._left_out
            for gold in question.gold_ids
        }
        self.train, self.dev = ([self._without(question) for question in part] for part in parts)

    @property
    def note(self) -> str:
        """How the questions came about."""
        return (
            f"{self.folder.name}: {len(self.train)} train and {len(self.dev)} dev questions; "
            f"documents left out: those of {len(self._left_out)} groups"
        )

    def fill(self, base: KnowledgeBase) -> None:
        """Put the passages into a knowledge base, each as a document."""
        lines = (self.folder / "corpus.jsonl").read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines if line.strip()]
        absent = {one["metadata"].get("doc_id") for one in records if one["id"] in self._gold}
        kept = [one for one in records if one["metadata"].get("doc_id") not in absent]
        documents = [_document(record) for record in kept]
        known = set(base.documents)
        for stale in known - {document.id_ for document in documents}:
            base.delete(stale)
        report = base.add(documents, show_progress=True)
        print(f"{len(kept)} of {len(records)} passages; {report}"[:300])

    def change(self, *_: object) -> tuple[list[Question], None]:
        """Change nothing: these passages have no cells that could be changed safely."""
        return [], None

    def _without(self, question: Question) -> Question:
        if group_of(question) not in self._left_out and self._gold.isdisjoint(question.gold_ids):
            return question
        return replace(question, answers=(), gold_ids=(), reference=None)


def open_set(
    folder: Path, work: Path, *, facts: int, missing: float, seed: int
) -> FolderSet | CorpusSet:
    """Open a folder of either form."""
    if (folder / "documents").is_dir():
        return FolderSet(folder, work, facts, seed)
    if (folder / "corpus.jsonl").is_file():
        return CorpusSet(folder, missing, seed)
    raise SystemExit(f"'{folder}' holds neither documents/ nor corpus.jsonl.")


def group_of(question: Question) -> str:
    """Name what a question is about: questions of one group stay together."""
    return str(question.metadata.get("group") or next(iter(question.gold_ids), question.id))


def part_by_group(
    questions: Sequence[Question], share: float, *, seed: int
) -> tuple[list[Question], list[Question]]:
    """Hold out about a share of the questions, whole groups of them.

    Returns:
        The questions that are left, and those held out.
    """
    groups = sorted({group_of(question) for question in questions})
    random.Random(seed).shuffle(groups)
    held: set[str] = set()
    sizes = Counter(group_of(question) for question in questions)
    for name in groups:
        if sum(sizes[one] for one in held) < share * len(questions):
            held.add(name)
    return (
        [question for question in questions if group_of(question) not in held],
        [question for question in questions if group_of(question) in held],
    )


def _document(record: dict[str, Any]) -> Document:
    metadata = {"title": record["title"]} if record.get("title") else {}
    return Document(text=record["text"], id_=record["id"], metadata=metadata)


def _edit_cells(
    documents: Path, questions: Sequence[Question], most: int, rng: random.Random
) -> list[Question]:
    """Change cells of CSV files that questions ask for; each other cell stays as it is."""
    changed: list[Question] = []
    edited: set[str] = set()
    for question in rng.sample(list(questions), len(questions)):
        gold = next(iter(question.gold_ids), "")
        path, _, row = gold.partition("#")
        if len(changed) >= most or not path.endswith(".csv") or not question.answers:
            continue
        old = question.answers[0]
        new = _another(old)
        if gold in edited or new == old:
            continue
        if _replace_cell(documents / path, row, old, new):
            edited.add(gold)
            changed.append(
                replace(
                    question,
                    id=f"changed {question.id}",
                    answers=(new,),
                    reference=(question.reference or "").replace(old, new) or None,
                    metadata={**question.metadata, "stratum": "changed"},
                )
            )
    return changed


def _another(value: str) -> str:
    """Give a value with another first number of as many decimals."""
    match = _NUMBER.search(value)
    if match is None:
        return value
    decimals = len(match.group().partition(".")[2])
    number = f"{1.2 * float(match.group()) + 1:.{decimals}f}"
    return value[: match.start()] + number + value[match.end() :]


def _replace_cell(path: Path, row: str, old: str, new: str) -> bool:
    """Replace the one cell of a row that holds a value; tell whether there was one."""
    text = path.read_text(encoding="utf-8")
    delimiter = csv.Sniffer().sniff(text.split("\n", 1)[0], delimiters=",;\t").delimiter
    cells = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    places = [
        (number, column)
        for number, line in enumerate(cells)
        if line and line[0] == row
        for column, cell in enumerate(line)
        if cell == old
    ]
    if len(places) != 1:
        return False
    number, column = places[0]
    cells[number][column] = new
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(cells)
    return True
