"""Score a checkpoint: greedy answers to held-out questions, asked in the project's own prompt."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phi3_industry.grounding.prompt import DEFAULT_PROMPT

from .conversations import Conversation, Turn, draw_conversation
from .draw import Draw
from .encoding import Encoder
from .stages import STAGES
from .tables import CELL_QUESTIONS, Table, row_text

__all__ = ["Reader", "Score", "ScoreRow", "format_scores", "held_out_rows", "real_cells_row"]


class Reader:
    """A checkpoint that answers greedily.

    Args:
        folder: Checkpoint folder.
        max_new_tokens: Longest answer.
    """

    def __init__(self, folder: Path, *, max_new_tokens: int = 64) -> None:
        import torch
        from transformers import AutoTokenizer, Phi3ForCausalLM

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = Phi3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._encoder = Encoder(self._tokenizer)
        self._max_new_tokens = max_new_tokens
        self.parameters = sum(p.numel() for p in self._model.parameters())

    def answer(self, question: str, passages: Sequence[str]) -> str:
        """Answer one question, as the first turn of a conversation."""
        torch = self._torch
        prompt = torch.tensor([self._encoder.prompt(DEFAULT_PROMPT.grounded(question, passages))])
        with torch.inference_mode():
            output: Any = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
            )
        text: str = self._tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
        return text.strip()


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
        seconds: Time of all answers.
    """

    answerable: int = 0
    value: int = 0
    cited: int = 0
    refused: int = 0
    unanswerable: int = 0
    abstained: int = 0
    seconds: float = 0.0

    def add(self, turn: Turn, answer: str, seconds: float = 0.0) -> None:
        """Count one answer."""
        self.seconds += seconds
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
            "milliseconds_per_answer": round(
                1000 * self.seconds / max(1, self.answerable + self.unanswerable)
            ),
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
    reader: Reader, *, answerable: int, seed: int, failures: list[dict[str, Any]] | None = None
) -> Iterator[ScoreRow]:
    """Score each kind of context on names, numbers and wordings that training never held.

    Args:
        reader: The checkpoint.
        answerable: Answerable questions of each row; about half as many unanswerable ones come
            with them.
        seed: Seed of the questions.
        failures: Takes a record of each wrong answer.
    """
    for name, passages, changes in _ROWS:
        difficulty = replace(
            STAGES[-1].difficulty,
            passages=(passages, passages),
            questions=3,
            default_prompt=1.0,
            closed_book=0.0,
            **changes,  # type: ignore[arg-type]  # the shares above
        )
        draw = Draw(seed, "eval")
        score = Score()
        while score.answerable < answerable:
            conversation = draw_conversation(draw, difficulty)
            for turn in conversation.turns:
                _ask(reader, conversation, turn, score, failures)
        yield ScoreRow(name, score.shares())


def _ask(
    reader: Reader,
    conversation: Conversation,
    turn: Turn,
    score: Score,
    failures: list[dict[str, Any]] | None,
) -> None:
    began = time.perf_counter()
    answer = reader.answer(turn.question, conversation.passages)
    score.add(turn, answer, time.perf_counter() - began)
    if failures is not None and answer != turn.answer:
        failures.append(
            {
                "shape": conversation.shape,
                "kind": turn.kind,
                "passages": conversation.passages,
                "question": turn.question,
                "wanted": turn.answer,
                "answer": answer,
            }
        )


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
    score = Score()
    while score.answerable < questions:
        table = draw.choice(tables)
        rows = draw.sample(table.rows, min(passages, len(table.rows)))
        place, column = draw.randrange(len(rows)), draw.randrange(1, len(table.columns))
        value = rows[place][column]
        if not value:
            continue
        template = draw.choice(CELL_QUESTIONS[:4])
        name = table.columns[column]
        question = template.format(a=name, A=name, e=rows[place][0], E=rows[place][0])
        contents = tuple(f"{table.header}\n{row_text(table.columns, row)}" for row in rows)
        turn = Turn(question, f"[{place + 1}] {value}", place + 1, value, "cell")
        conversation = Conversation("real table row", contents, (turn,), [])
        _ask(reader, conversation, turn, score, failures)
    return ScoreRow(f"{folder.parent.name} cells, up to {passages} rows", score.shares())


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
    ("over_refusal", "over-refusal %"),
    ("unanswerable", "n unanswerable"),
    ("abstained", "abstained %"),
    ("milliseconds_per_answer", "ms per answer"),
)


def format_scores(rows: Sequence[ScoreRow]) -> str:
    """Write the rows as a markdown table."""
    lines = ["| context | " + " | ".join(title for _, title in _COLUMNS) + " |"]
    lines.append("| --- |" + " ---: |" * len(_COLUMNS))
    for row in rows:
        cells = ["–" if row.shares[key] is None else str(row.shares[key]) for key, _ in _COLUMNS]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
