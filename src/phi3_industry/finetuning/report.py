"""What became of the questions, and whether the set that came of them can teach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from phi3_industry.finetuning.rows import TrainingRow

__all__ = ["TrainingReport", "Verdict", "judge", "spread"]

FEWEST_QUESTIONS = 100
"""Questions with an answer of the house below which a set is called too small to teach.

A judgement. What it rests on was tried once, on an earlier embedded model and by no script that is
kept: below some eighty questions few held-out answers took the house's form, with several hundred
most did. ``benchmarks/finetune_settings.py --train-questions`` measures it.
"""

_MOST_UNFOUND = 0.2
_MOST_SUSPECTS = 0.1
_MOST_REPEATED = 0.5
_SHOWN_IDS = 5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a set can teach.

    Attributes:
        teaches: Whether nothing speaks against it.
        reasons: What speaks against it, and what the held-out rows can show; with numbers.
    """

    teaches: bool
    reasons: Sequence[str] = ()

    def __str__(self) -> str:
        opening = "This set can teach." if self.teaches else "This set is not fit to teach."
        return " ".join((opening, *self.reasons))


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What became of the questions.

    Attributes:
        questions: Questions that were given.
        counts: Rows by split and slice.
        wanted: Rows of each slice that the shares ask for, both splits together.
        dropped: For each reason the ids of the questions of which a row was dropped, once a row.
        leaks: Ids of held-out questions that were taken out since training has a near-duplicate.
        repeated: Ids of training questions that are near-duplicates of an earlier one.
        unfound: Ids of questions by which the retriever does not find their passage; it was found
            with the answer beside the question.
        suspects: For each reason the ids of questions whose label looks wrong; they are kept.
        prompt_tokens: Least, median and most tokens of a prompt; ``None`` if no model counted.
        answer_chars: The same of the characters of an answer.
        split_by: What the validation rows were held out by: ``"document"``, or ``"passage"``
            where the answers stand in too few documents.
        verdict: Whether the set can teach.
    """

    questions: int
    counts: Mapping[str, Mapping[str, int]]
    wanted: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    leaks: Sequence[str] = ()
    repeated: Sequence[str] = ()
    unfound: Sequence[str] = ()
    suspects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prompt_tokens: Mapping[str, int] | None = None
    answer_chars: Mapping[str, int] | None = None
    split_by: str = "document"
    verdict: Verdict | None = None

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Say it in a few lines."""
        lines = [f"{self.questions} questions; held out by {self.split_by}"]
        for split, slices in self.counts.items():
            listed = ", ".join(f"{name} {count}" for name, count in slices.items())
            lines.append(f"{split}: {sum(slices.values())} rows ({listed})")
        for what, counts in (
            ("prompt tokens", self.prompt_tokens),
            ("characters of an answer", self.answer_chars),
        ):
            if counts:
                listed = ", ".join(f"{name} {count}" for name, count in counts.items())
                lines.append(f"{what}: {listed}")
        lines += [
            _line(f"dropped {len(ids)} rows: {why}", ids) for why, ids in self.dropped.items()
        ]
        if self.leaks:
            lines.append(_line(f"held out no more, near-duplicates: {len(self.leaks)}", self.leaks))
        if self.repeated:
            lines.append(_line(f"near-duplicates in training: {len(self.repeated)}", self.repeated))
        if self.unfound:
            lines.append(_line(f"not found by the question: {len(self.unfound)}", self.unfound))
        lines += [_line(f"suspect, {len(ids)}: {why}", ids) for why, ids in self.suspects.items()]
        return "\n".join([*lines, *([str(self.verdict)] if self.verdict else [])])

    def markdown(self) -> str:
        """Write it as a page for people, with every id."""
        lines = ["# Training set", "", str(self.verdict or ""), "", "## Rows", ""]
        splits = list(self.counts)
        names = list(dict.fromkeys([*self.wanted, *(n for s in splits for n in self.counts[s])]))
        total = sum(sum(slices.values()) for slices in self.counts.values())
        lines.append(f"| slice | {' | '.join(splits)} | share | asked for |")
        lines.append("| --- |" + " ---: |" * (len(splits) + 2))
        for name in names:
            counts = [self.counts[split].get(name, 0) for split in splits]
            share = f"{sum(counts) / total:.1%}" if total else "-"
            asked = str(self.wanted.get(name, "-"))
            lines.append(f"| {' | '.join([name, *map(str, counts), share, asked])} |")
        lines += ["", f"{self.questions} questions; held out by {self.split_by}.", ""]
        if self.prompt_tokens:
            lines += [f"Prompt tokens: {_listed(self.prompt_tokens)}.", ""]
        if self.answer_chars:
            lines += [f"Characters of an answer: {_listed(self.answer_chars)}.", ""]
        for heading, groups in (
            ("Dropped", self.dropped),
            ("Retrieval", {"passage not found by the question": self.unfound}),
            ("Suspect labels", self.suspects),
            ("Near-duplicates", {"held out no more": self.leaks, "in training": self.repeated}),
        ):
            filled = {why: ids for why, ids in groups.items() if ids}
            if filled:
                lines += [f"## {heading}", ""]
                lines += [
                    f"- {len(ids)}: {why}: {', '.join(dict.fromkeys(ids))}"
                    for why, ids in filled.items()
                ]
                lines.append("")
        return "\n".join(lines)


def judge(
    rows: Sequence[TrainingRow],
    *,
    questions: int,
    repeated: int,
    suspects: int,
    unfound: int = 0,
) -> Verdict:
    """Say with numbers whether a set can teach.

    Args:
        rows: All rows.
        questions: Questions that were given.
        repeated: How many training questions are near-duplicates of another one.
        suspects: How many questions have a suspect label.
        unfound: By how many questions the retriever does not find their passage.
    """
    train = [row for row in rows if row.split == "train"]
    held_out = len(rows) - len(train)
    taught = len({row.question_id for row in train if _is_taught(row)})
    against = []
    if taught - repeated < FEWEST_QUESTIONS:
        again = f", {repeated} of them near-duplicates of others," if repeated else ""
        against.append(
            f"Too small: {taught} training questions{again} have an answer to learn, and below "
            f"{FEWEST_QUESTIONS} a format that the base does not know is seldom learned. Give "
            f"{FEWEST_QUESTIONS - taught + repeated} more, or use retrieval alone."
        )
    if taught and repeated > _MOST_REPEATED * taught:
        against.append(f"Too alike: {repeated} of {taught} training questions repeat others.")
    if questions and suspects > _MOST_SUSPECTS * questions:
        against.append(
            f"Too noisy: {suspects} of {questions} questions have a suspect label "
            f"({suspects / questions:.0%}; more than {_MOST_SUSPECTS:.0%} is too many)."
        )
    advice = []
    if questions and unfound > _MOST_UNFOUND * questions:
        advice.append(
            f"The retriever does not find the passage of {unfound} of {questions} questions: "
            "improve retrieval first, since no adapter can read what is not shown."
        )
    return Verdict(teaches=not against, reasons=(*against, *advice, _power(held_out)))


def _is_taught(row: TrainingRow) -> bool:
    return row.slice in ("grounded", "terminology", "conversation")


def _power(held_out: int) -> str:
    if not held_out:
        return "No row is held out, so nothing shows whether training helped."
    points = 100 * 0.98 / math.sqrt(held_out)  # half of a 95 % interval at 50 %
    return (
        f"{held_out} rows are held out: a share measured on them is uncertain by "
        f"{points:.0f} points."
    )


def spread(counts: Sequence[int]) -> Mapping[str, int] | None:
    """Give the least, the median and the most of some counts; ``None`` if there are none."""
    if not counts:
        return None
    return {"min": min(counts), "median": round(median(counts)), "max": max(counts)}


def _line(text: str, ids: Sequence[str]) -> str:
    different = list(dict.fromkeys(ids))
    more = ", …" if len(different) > _SHOWN_IDS else ""
    return f"{text} ({', '.join(different[:_SHOWN_IDS])}{more})"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
