"""Questions about a user's documents become rows to train on, through the user's own retriever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from statistics import median
from typing import Any, Protocol, get_args

from llama_index.core.base.base_retriever import BaseRetriever

from phi3_industry.finetuning.evidence import (
    Evidence,
    Passage,
    gather_evidence,
    is_house_knowledge,
)
from phi3_industry.finetuning.rows import Slice, Split, TrainingRow, count_rows
from phi3_industry.finetuning.splits import random_for, split_questions
from phi3_industry.finetuning.training_set import TrainingReport, TrainingSet, size_notes
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt, Message
from phi3_industry.grounding.questions import Question, load_questions

__all__ = ["SliceShares", "TrainingSetBuilder"]


class RetrieverSource(Protocol):
    """What a knowledge base offers: retrievers over its documents."""

    def as_retriever(self, *, similarity_top_k: int) -> BaseRetriever:
        """Give a retriever of the best ``similarity_top_k`` nodes."""
        ...


class TokenCounter(Protocol):
    """What a language model offers to keep rows within its window."""

    @property
    def metadata(self) -> Any:
        """LlamaIndex's ``LLMMetadata``: ``context_window`` and ``num_output`` in tokens."""
        ...

    def count_tokens(self, messages: list[Message]) -> int:
        """Count the tokens of messages, the chat template's own included."""
        ...


@dataclass(frozen=True, kw_only=True)
class SliceShares:
    """How many rows of each slice to make, in proportion to the grounded ones.

    The grounded rows follow from the questions; the shares of the others are reached as far as
    there are questions for them.

    Attributes:
        grounded: Share of rows that show the passage with the answer.
        missing: Share of rows that show other passages alone.
        closed_book: Share of rows that show none and abstain.
        replay: Share of plain rows, made from questions without a house reference.

    Raises:
        ValueError: A share is negative, or there is no grounded one.
    """

    grounded: float = 0.6
    missing: float = 0.2
    closed_book: float = 0.05
    replay: float = 0.15

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value >= 0:
                raise ValueError(f"The share {item.name} is {value}; it must not be negative.")
        if self.grounded == 0:
            raise ValueError("The share grounded is 0; the other slices are counted from it.")

    def rows_for(self, slice_: Slice, *, grounded_rows: int) -> int:
        """Give the rows of a slice that go with a number of grounded rows."""
        share: float = getattr(self, slice_)
        return round(grounded_rows * share / self.grounded)


@dataclass
class _Draft:
    """Rows made so far, and what was dropped on the way."""

    rows: dict[str, TrainingRow] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    prompt_tokens: list[int] = field(default_factory=list)

    def drop(self, reason: str, question_ids: Sequence[str]) -> None:
        """Note that a row of each of some questions was not made."""
        if question_ids:
            self.dropped[reason].extend(question_ids)


class TrainingSetBuilder:
    """Builds rows by the very prompt and retriever that serve.

    Each answerable question is shown its passage among hard distractors, those that the user's
    own retriever finds next, in random order and number. Some questions are shown the
    distractors alone, and the answer abstains. Source of the recipe: RAFT, arXiv 2403.10131,
    with the abstentions of Divide-Then-Align, arXiv 2505.20871.

    Args:
        source: A knowledge base (anything with ``as_retriever``) or a LlamaIndex retriever.
        llm: Counts tokens, so that no row is longer than what it can be served; ``None`` leaves
            lengths to the trainer.
        prompt: The prompt module; the adapter is bound to it.
        num_passages: The least and the most passages of a row, gold included; the most should
            be about as many as are shown in serving.
        candidates: Passages to retrieve for each question, from which distractors are drawn. A
            retriever that is given as such returns what it is set to.
        seed: Seed of every draw. The same questions and store give the same rows.

    Raises:
        TypeError: The source is neither.
        ValueError: A number is outside its range.

    Example:
        >>> builder = TrainingSetBuilder(knowledge_base, llm=llm)  # doctest: +SKIP
        >>> print(builder.build("questions.jsonl").report.summary())  # doctest: +SKIP
    """

    def __init__(
        self,
        source: RetrieverSource | BaseRetriever,
        llm: TokenCounter | None = None,
        *,
        prompt: GroundingPrompt = DEFAULT_PROMPT,
        num_passages: tuple[int, int] = (1, 3),
        candidates: int = 12,
        seed: int = 0,
    ) -> None:
        least, most = num_passages
        if not 1 <= least <= most:
            raise ValueError(
                f"num_passages is {num_passages}; it must be (least, most) with 1 <= least <= most."
            )
        if candidates <= most:
            raise ValueError(
                f"candidates is {candidates}; it must be above the {most} passages of a row."
            )
        if isinstance(source, BaseRetriever):
            self._retriever = source
        elif hasattr(source, "as_retriever"):
            self._retriever = source.as_retriever(similarity_top_k=candidates)
        else:
            raise TypeError(
                f"source is a {type(source).__name__}; it must be a knowledge base or a retriever."
            )
        self._llm = llm
        self._prompt = prompt
        self._num_passages = num_passages
        self._seed = seed

    def build(
        self,
        questions: str | PathLike[str] | Sequence[Question],
        *,
        shares: SliceShares | None = None,
        rows_per_question: int = 1,
        validation_share: float = 0.1,
        show_progress: bool = False,
    ) -> TrainingSet:
        """Build a training set.

        A question with ``answers`` becomes a grounded row, or a replay row where it has no
        ``reference`` and others of the set have one. A question without ``answers`` becomes a
        row that abstains. A question whose metadata says ``"closed_book": true`` is house
        knowledge that no document holds: it is answered without passages.

        Args:
            questions: A questions file or its questions.
            shares: How many rows of each slice to make.
            rows_per_question: Rows made of each question, each with passages of its own draw.
            validation_share: Share of the questions to hold out, by source document; in [0, 1).
            show_progress: Whether to show a progress bar.

        Returns:
            The rows, with a report of what was made and dropped.

        Raises:
            FileNotFoundError: There is no such questions file.
            TrainingDataError: The file cannot be read, or too few rows came of it.
            ValueError: A number is outside its range.
        """
        if rows_per_question < 1:
            raise ValueError(f"rows_per_question is {rows_per_question}; it must be at least 1.")
        if not 0 <= validation_share < 1:
            raise ValueError(
                f"validation_share is {validation_share}; it must be at least 0 and below 1."
            )
        if isinstance(questions, str | PathLike):
            questions = load_questions(questions)
        draft = _Draft()
        evidence = [
            gather_evidence(question, self._retriever)
            for question in _progress(questions, show_progress)
        ]
        draft.drop(
            "no retrieved passage holds the answer",
            [
                item.question.id
                for item in evidence
                if item.gold is None
                and item.question.answerable
                and not is_house_knowledge(item.question)
            ],
        )
        splits, split_by = split_questions(evidence, share=validation_share, seed=self._seed)
        for split in get_args(Split):
            part = [item for item in evidence if splits[item.question.id] == split]
            self._make_rows(part, shares or SliceShares(), rows_per_question, split, draft)
        rows = tuple(draft.rows.values())
        return TrainingSet(
            rows=rows,
            prompt_fingerprint=self._prompt.fingerprint,
            report=TrainingReport(
                questions=len(questions),
                counts=count_rows(rows),
                dropped=dict(draft.dropped),
                prompt_tokens=_spread(draft.prompt_tokens),
                split_by=split_by,
                notes=size_notes(rows),
            ),
        )

    def _make_rows(
        self,
        evidence: Sequence[Evidence],
        shares: SliceShares,
        rows_per_question: int,
        split: Split,
        draft: _Draft,
    ) -> None:
        known = [item for item in evidence if item.gold is not None]
        has_house_form = any(item.question.reference is not None for item in known)
        house = [item for item in known if item.question.reference or not has_house_form]
        plain = [item for item in known if has_house_form and item.question.reference is None]
        unanswerable = [item for item in evidence if not item.question.answerable]
        knowledge = [item for item in evidence if is_house_knowledge(item.question)]
        for item in house:
            for draw in range(rows_per_question):
                self._add(draft, item, "grounded", split, draw)
        for item in knowledge:
            self._add(draft, item, "closed_book", split, 0)
        grounded_rows = len(house) * rows_per_question
        shuffled = list(known)
        random_for(self._seed, "order", split).shuffle(shuffled)
        sources: dict[Slice, list[Evidence]] = {
            "missing": unanswerable + shuffled,
            "closed_book": shuffled[::-1],
            "replay": plain,
        }
        for slice_, candidates in sources.items():
            wanted = shares.rows_for(slice_, grounded_rows=grounded_rows)
            draws = 1 if slice_ == "closed_book" else rows_per_question
            chosen = [(item, draw) for draw in range(draws) for item in candidates][:wanted]
            for item, draw in chosen:
                self._add(draft, item, slice_, split, draw)

    def _add(self, draft: _Draft, item: Evidence, slice_: Slice, split: Split, draw: int) -> None:
        """Make one row of a question and add it, unless it cannot be taught or is there."""
        question = item.question
        passages = self._draw_passages(item, slice_, draw)
        if slice_ == "missing" and not passages:
            draft.drop("nothing else was retrieved that could be shown", [question.id])
            return
        for shown in _ever_fewer(passages, keep=item.gold):
            row = self._row(item, shown, slice_, split)
            tokens, fits = self._measure(row)
            if fits:
                break
        else:
            draft.drop("it is longer than the model's window", [question.id])
            return
        key = "\n".join([row.prompt[-1]["content"], row.answer])
        if key in draft.rows:
            draft.drop("an equal row was there already", [question.id])
            return
        draft.rows[key] = row
        if tokens is not None:
            draft.prompt_tokens.append(tokens)

    def _draw_passages(self, item: Evidence, slice_: Slice, draw: int) -> list[Passage]:
        if slice_ == "closed_book":
            return []
        rng = random_for(self._seed, item.question.id, slice_, draw)
        count = rng.randint(*self._num_passages)
        shown = [] if slice_ == "missing" or item.gold is None else [item.gold]
        wanted = min(count - len(shown), len(item.distractors))
        shown += rng.sample(item.distractors, wanted)
        rng.shuffle(shown)
        return shown

    def _row(
        self, item: Evidence, passages: Sequence[Passage], slice_: Slice, split: Split
    ) -> TrainingRow:
        question, wanted = item.question, item.question.wanted
        if slice_ == "closed_book":
            prompt = self._prompt.closed_book(question.question)
            taught = is_house_knowledge(question) and wanted is not None
            answer = wanted if taught and wanted else self._prompt.abstention_answer
        else:
            prompt = self._prompt.grounded(question.question, [p.text for p in passages])
            answer = self._prompt.abstention_answer
            if slice_ != "missing" and item.gold is not None and wanted is not None:
                position = next(i for i, p in enumerate(passages, start=1) if p is item.gold)
                answer = self._prompt.answer(wanted, marker=position)
        return TrainingRow(
            prompt=prompt,
            completion=[{"role": "assistant", "content": answer}],
            slice=slice_,
            split=split,
            question_id=question.id,
            source_ids=tuple(passage.name for passage in passages),
        )

    def _measure(self, row: TrainingRow) -> tuple[int | None, bool]:
        """Count the prompt's tokens and say whether it can be served and its answer written."""
        if self._llm is None:
            return None, True
        metadata = self._llm.metadata
        tokens = self._llm.count_tokens(row.prompt)
        whole = self._llm.count_tokens(row.prompt + row.completion)
        served = tokens + metadata.num_output <= metadata.context_window
        return tokens, served and whole <= metadata.context_window


def _ever_fewer(passages: list[Passage], *, keep: Passage | None) -> Iterator[list[Passage]]:
    """Give the passages, then ever fewer of them: the last goes first, one always stays."""
    yield passages
    while len(passages) > 1:
        last = next(passage for passage in reversed(passages) if passage is not keep)
        passages = [passage for passage in passages if passage is not last]
        yield passages


def _spread(counts: Sequence[int]) -> Mapping[str, int] | None:
    if not counts:
        return None
    return {"min": min(counts), "median": round(median(counts)), "max": max(counts)}


def _progress(questions: Sequence[Question], show: bool) -> Iterable[Question]:
    if not show:
        return questions
    from tqdm import tqdm

    return tqdm(questions, desc="Retrieving passages", unit="question")
