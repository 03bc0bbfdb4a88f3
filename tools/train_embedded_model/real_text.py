"""Real text for the training mixture, from data folders given on the command line.

A folder holds ``corpus.jsonl`` (passages) and ``questions.train.jsonl`` and
``questions.dev.jsonl``. Documents that a development question relies on, and all passages that
are tables, measure the library and are never trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .draw import Draw, held_out

__all__ = ["RealQuestions", "RealText", "load_real_text"]

_MAX_PASSAGE = 700
_MAX_ANSWER = 90
_GAPS = (
    'What comes after "{left}"?',
    'What follows the words "{left}"?',
    "Complete: {left} ...",
    "{left} ... what?",
)


@dataclass(frozen=True)
class RealQuestions:
    """Passages and questions about them.

    Attributes:
        passages: The passages.
        questions: ``(question, number of the passage or 0, answer)``.
    """

    passages: tuple[str, ...]
    questions: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class RealText:
    """Passages, their sentences, and what people asked.

    Attributes:
        passages: Texts.
        asked: ``(passage, question, answer)``; the answer stands in the passage word for word.
        sentences: Sentences of the passages.
    """

    passages: tuple[str, ...]
    asked: tuple[tuple[str, str, str], ...]
    sentences: tuple[str, ...]

    def words(self, draw: Draw, low: int, high: int) -> str:
        """Draw neighbouring words of a sentence, without the punctuation around them."""
        words = draw.choice(self.sentences).split()
        count = min(len(words), draw.randint(low, high))
        start = draw.randint(0, len(words) - count)
        return " ".join(words[start : start + count]).strip(" .,;:()[]\"'") or words[0]

    def sentence(self, draw: Draw) -> str:
        """Draw a sentence."""
        return draw.choice(self.sentences)

    def draw(self, draw: Draw, *, passages: int) -> RealQuestions:
        """Draw passages with questions that people asked, and with gaps to fill.

        Args:
            draw: Source of chance.
            passages: Number of passages.
        """
        asked = [draw.choice(self.asked) for _ in range(passages)] if self.asked else []
        shown = [passage for passage, _, _ in asked if draw.chance(0.5)]
        while len(shown) < passages:
            shown.append(draw.choice(self.passages))
        shown = list(dict.fromkeys(shown))
        draw.shuffle(shown)
        questions = [
            (question, shown.index(passage) + 1 if passage in shown else 0, answer)
            for passage, question, answer in asked
        ]
        for number, passage in enumerate(shown, start=1):
            questions += [(q, number, answer) for q, answer in _gaps(draw, passage)]
        draw.shuffle(questions)
        return RealQuestions(tuple(shown), tuple(questions))


def _gaps(draw: Draw, passage: str) -> Iterator[tuple[str, str]]:
    """Take words out of a passage and ask for them by those before."""
    words = passage.split()
    for _ in range(2):
        if len(words) < 12:
            return
        start = draw.randrange(len(words) - 10)
        middle = start + draw.randint(3, 5)
        left = " ".join(words[start:middle])
        right = " ".join(words[middle : middle + draw.randint(1, 7)])
        if f"{left} {right}" in passage and passage.count(left) == 1:
            yield draw.choice(_GAPS).replace("{left}", left), right


def load_real_text(folders: Sequence[Path]) -> RealText | None:
    """Read what may be trained on from data folders.

    Args:
        folders: Data folders; those without ``corpus.jsonl`` are passed over.

    Returns:
        The text, or None when there is none.
    """
    passages: dict[str, str] = {}
    asked: list[tuple[str, str, str]] = []
    for folder in folders:
        if not (folder / "corpus.jsonl").exists():
            continue
        measured = _measured(folder)
        own = {
            record["id"]: _clean(record["text"])
            for record in _records(folder / "corpus.jsonl")
            if record["metadata"].get("kind") != "table"
            and record["metadata"]["doc_id"] not in measured
        }
        own = {key: text for key, text in own.items() if 60 <= len(text) <= _MAX_PASSAGE}
        passages |= own
        for record in _records(folder / "questions.train.jsonl"):
            asked += _spans(record, own)
    if not passages:
        return None
    sentences = [s for text in passages.values() for s in _sentences(text)]
    return RealText(tuple(passages.values()), tuple(asked), tuple(sentences))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _measured(folder: Path) -> set[str]:
    """Documents of the development questions."""
    documents = {str(r["id"]): r["metadata"]["doc_id"] for r in _records(folder / "corpus.jsonl")}
    measured = set()
    for question in _records(folder / "questions.dev.jsonl"):
        measured.add(str(question["metadata"].get("group", "")))
        measured.update(documents[gold] for gold in question["gold_ids"] if gold in documents)
    return measured


def _clean(text: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # markdown links keep their words
    text = re.sub(r"[ \t]+", " ", text.replace("*", "").replace("`", ""))
    return text.replace("{", "(").replace("}", ")").strip()


def _sentences(text: str) -> Iterator[str]:
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", text):
        letters = sum(character.isalpha() or character == " " for character in sentence)
        is_prose = 20 <= len(sentence) <= 160 and letters > 0.8 * len(sentence)
        if is_prose and " " in sentence and not held_out(sentence):
            yield " ".join(sentence.split())


def _spans(record: dict[str, Any], passages: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for answer in record["answers"]:
        if not 1 < len(answer) <= _MAX_ANSWER or held_out(answer):
            continue
        for gold in record["gold_ids"]:
            if answer in passages.get(gold, ""):
                yield passages[gold], record["question"], answer
                return
