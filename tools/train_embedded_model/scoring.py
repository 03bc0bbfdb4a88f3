"""Score a checkpoint: greedy answers to held-out questions, asked in the project's own prompt."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from phi3_industry.evaluation.metrics import exact_match, token_f1
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.grounding.questions import load_questions
from phi3_industry.models.loading import Quantization, load_base_model

from .conversations import Turn, draw_conversation
from .draw import Draw, Split
from .encoding import Encoder
from .stages import ALL_SHAPES
from .tables import CELL_QUESTIONS, Table, row_text

__all__ = [
    "Asked",
    "Reader",
    "Score",
    "ScoreRow",
    "format_scores",
    "held_out_questions",
    "held_out_rows",
    "median_milliseconds",
    "real_cells_row",
    "real_spans_row",
]


class Reader:
    """A checkpoint that answers greedily, in 32 bits unless it is quantised.

    Args:
        folder: Checkpoint folder.
        quantization: How the linear layers are stored: ``"nf4"``, ``"int8"`` or not at all.
        max_new_tokens: Longest answer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quantization: Quantization | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        import torch

        self._torch = torch
        loaded = load_base_model(str(folder), dtype="float32", quantization=quantization)
        self._tokenizer = loaded.tokenizer
        self._model = loaded.model
        self._encoder = Encoder(self._tokenizer)
        self._max_new_tokens = max_new_tokens
        self.parameters = sum(p.numel() for p in self._model.parameters())

    def answers(self, asked: Sequence[Asked], *, batch_size: int = 16) -> list[str]:
        """Answer questions, each as the first turn of its own conversation."""
        prompts = [
            self._encoder.prompt(DEFAULT_PROMPT.grounded(item.turn.question, item.passages))
            for item in asked
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, str] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            texts = self._generate([prompts[i] for i in chosen])
            found.update(zip(chosen, texts, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _generate(self, prompts: Sequence[list[int]]) -> list[str]:
        torch = self._torch
        length = max(map(len, prompts))
        pads = [length - len(prompt) for prompt in prompts]
        ids = torch.tensor(
            [[self._encoder.pad] * pad + p for pad, p in zip(pads, prompts, strict=True)]
        )
        mask = torch.tensor([[0] * pad + [1] * (length - pad) for pad in pads])
        with torch.inference_mode():
            output: Any = self._model.generate(
                ids, attention_mask=mask, max_new_tokens=self._max_new_tokens, do_sample=False
            )
        texts = self._tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        return [text.strip() for text in texts]


@dataclass(frozen=True)
class Asked:
    """A question and what is shown with it."""

    shape: str
    passages: tuple[str, ...]
    turn: Turn


@dataclass
class Score:
    """Counts over answers.

    Attributes:
        answerable: Questions that a passage answers.
        value: Of these, answers whose value is exact.
        cited: Of those with the exact value, answers that name the right passage.
        refused: Of the answerable, answers that abstain.
        unanswerable: Questions that no passage answers.
        abstained: Of these, answers that abstain.
    """

    answerable: int = 0
    value: int = 0
    cited: int = 0
    refused: int = 0
    unanswerable: int = 0
    abstained: int = 0

    def add(self, turn: Turn, answer: str) -> None:
        """Count one answer."""
        abstains = answer.startswith("[0]")
        if turn.marker == 0:
            self.unanswerable += 1
            self.abstained += abstains
            return
        self.answerable += 1
        self.refused += abstains
        marker, _, value = answer.partition(" ")
        if value == turn.value:
            self.value += 1
            self.cited += marker == f"[{turn.marker}]"

    def shares(self) -> dict[str, float | int | None]:
        """Return counts and shares in per cent; ``None`` where nothing was asked."""

        def share(part: int, whole: int) -> float | None:
            return round(100 * part / whole, 1) if whole else None

        return {
            "answerable": self.answerable,
            "value_right": share(self.value, self.answerable),
            "citation_right_of_right_values": share(self.cited, self.value),
            "value_and_citation_right": share(self.cited, self.answerable),
            "over_refusal": share(self.refused, self.answerable),
            "unanswerable": self.unanswerable,
            "abstained": share(self.abstained, self.unanswerable),
        }


@dataclass(frozen=True)
class ScoreRow:
    """One line of the score table."""

    name: str
    shares: dict[str, float | int | None]


_ROWS: tuple[tuple[str, int, dict[str, float]], ...] = (
    ("all shapes, 1 passage", 1, {}),
    ("all shapes, 3 passages", 3, {}),
    ("all shapes, 5 passages", 5, {}),
    ("table rows, 3 passages", 3, {"table_share": 1.0, "mixed_share": 0.0}),
    ("table rows, 5 passages", 5, {"table_share": 1.0, "mixed_share": 0.0}),
    ("documents, 5 passages", 5, {"table_share": 0.0, "mixed_share": 0.0}),
)


def held_out_rows(
    reader: Reader,
    *,
    answerable: int,
    seed: int,
    names: Collection[str] | None = None,
    failures: list[dict[str, Any]] | None = None,
) -> Iterator[ScoreRow]:
    """Score each kind of context on names, numbers and wordings that training never held.

    Args:
        reader: The checkpoint.
        answerable: Answerable questions of each row; about half as many unanswerable ones come
            with them.
        seed: Seed of the questions.
        names: Rows to score; all when None.
        failures: Takes a record of each wrong answer.
    """
    for name, passages, changes in _ROWS:
        if names is not None and name not in names:
            continue
        asked: list[Asked] = []
        for item in held_out_questions(passages, changes, seed):
            asked.append(item)
            if sum(item.turn.marker > 0 for item in asked) == answerable:
                break
        yield _row(name, reader, asked, failures)


def held_out_questions(
    passages: int, changes: Mapping[str, float], seed: int, *, split: Split = "eval"
) -> Iterator[Asked]:
    """Draw questions of all kinds, each to be asked on its own in the project's prompt.

    Args:
        passages: Passages shown with each.
        changes: Changes of the last stage's difficulty.
        seed: Seed.
        split: Which names, values and wordings they are made of.
    """
    difficulty = replace(
        ALL_SHAPES,
        passages=(passages, passages),
        questions=3,
        default_prompt=1.0,
        closed_book=0.0,
        **changes,  # type: ignore[arg-type]  # the shares above
    )
    draw = Draw(seed, split)
    while True:
        conversation = draw_conversation(draw, difficulty)
        for turn in conversation.turns:
            yield Asked(conversation.shape, conversation.passages, turn)


def median_milliseconds(reader: Reader, *, passages: int, questions: int, seed: int) -> float:
    """Time answers one at a time, tokenisation included, and return the median."""
    times = []
    for item in islice(held_out_questions(passages, {}, seed), questions):
        began = time.perf_counter()
        reader.answers([item])
        times.append(1000 * (time.perf_counter() - began))
    return round(median(times), 1)


def _row(
    name: str, reader: Reader, asked: Sequence[Asked], failures: list[dict[str, Any]] | None
) -> ScoreRow:
    score = Score()
    for item, answer in zip(asked, reader.answers(asked), strict=True):
        score.add(item.turn, answer)
        if failures is not None and answer != item.turn.answer:
            failures.append(
                {
                    "row": name,
                    "shape": item.shape,
                    "kind": item.turn.kind,
                    "passages": item.passages,
                    "question": item.turn.question,
                    "wanted": item.turn.answer,
                    "answer": answer,
                }
            )
    return ScoreRow(name, score.shares())


def real_cells_row(
    reader: Reader,
    folder: Path,
    *,
    questions: int,
    passages: int,
    seed: int,
    failures: list[dict[str, Any]] | None = None,
) -> ScoreRow:
    """Ask for cells of CSV files that nobody trained on, beside other rows of the same table.

    Args:
        reader: The checkpoint.
        folder: Folder with CSV files; the first column names the rows.
        questions: Number of questions.
        passages: Rows shown with a question.
        seed: Seed of the choice of cells.
        failures: Takes a record of each wrong answer.
    """
    tables = [table for path in sorted(folder.glob("*.csv")) if (table := _read_csv(path))]
    draw = Draw(seed, "train")
    asked: list[Asked] = []
    while len(asked) < questions:
        table = draw.choice(tables)
        rows = draw.sample(table.rows, min(passages, len(table.rows)))
        place, column = draw.randrange(len(rows)), draw.randrange(1, len(table.columns))
        value = rows[place][column]
        if not value:
            continue
        name, key = table.columns[column], rows[place][0]
        question = draw.choice(CELL_QUESTIONS[:4]).format(a=name, A=name, e=key, E=key)
        contents = tuple(f"{table.header}\n{row_text(table.columns, row)}" for row in rows)
        turn = Turn(question, f"[{place + 1}] {value}", place + 1, value, "cell")
        asked.append(Asked("real table row", contents, turn))
    return _row(f"{folder.parent.name} cells, up to {passages} rows", reader, asked, failures)


def real_spans_row(reader: Reader, folder: Path) -> ScoreRow:
    """Ask the development questions of a data set, each with the passage that holds its answer.

    Args:
        reader: The checkpoint.
        folder: Folder with ``corpus.jsonl`` and ``questions.dev.jsonl``.
    """
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    passages = {record["id"]: record["text"] for record in records}
    questions = load_questions(folder / "questions.dev.jsonl")
    asked = [
        Asked("real text", (passages[q.gold_ids[0]],), Turn(q.question, "", 1, "", "span"))
        for q in questions
    ]
    exact = refused = 0
    overlap = 0.0
    for question, answer in zip(questions, reader.answers(asked), strict=True):
        body = answer.partition("] ")[2]
        refused += answer.startswith("[0]")
        exact += exact_match(body, question.answers)
        overlap += token_f1(body, question.answers)
    count = len(questions)
    shares: dict[str, float | int | None] = {
        "answerable": count,
        "value_right": round(100 * exact / count, 1),
        "token_f1": round(100 * overlap / count, 1),
        "over_refusal": round(100 * refused / count, 1),
    }
    return ScoreRow(f"{folder.name} dev spans, gold passage", shares)


def _read_csv(path: Path, *, max_value_chars: int = 80) -> Table | None:
    """Read a table with unique keys and cells that are short enough to be answers."""
    with path.open(encoding="utf-8", newline="") as file:
        cells = [[" ".join(cell.split()) for cell in row] for row in csv.reader(file)]
    if len(cells) < 3 or not all(cells[0]) or len(cells[0]) < 2:
        return None
    rows = [tuple(row) for row in cells[1:] if len(row) == len(cells[0]) and row[0]]
    keys = [row[0].casefold() for row in rows]
    unique = [
        row
        for row in rows
        if keys.count(row[0].casefold()) == 1 and max(map(len, row)) <= max_value_chars
    ]
    if len(unique) < 2:
        return None
    return Table(path.stem.replace("_", " ").replace("-", " "), tuple(cells[0]), tuple(unique))


_COLUMNS = (
    ("answerable", "n"),
    ("value_right", "value right %"),
    ("citation_right_of_right_values", "citation right of these %"),
    ("value_and_citation_right", "both right %"),
    ("token_f1", "token F1 %"),
    ("over_refusal", "over-refusal %"),
    ("unanswerable", "n unanswerable"),
    ("abstained", "abstained %"),
)


def format_scores(rows: Sequence[ScoreRow]) -> str:
    """Write the rows as a markdown table."""
    lines = ["| context | " + " | ".join(title for _, title in _COLUMNS) + " |"]
    lines.append("| --- |" + " ---: |" * len(_COLUMNS))
    for row in rows:
        cells = [
            "–" if row.shares.get(key) is None else str(row.shares[key]) for key, _ in _COLUMNS
        ]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
