"""The rows of a training set, slice by slice, and what was dropped on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from phi3_industry.finetuning.checks import row_problem
from phi3_industry.finetuning.drafts import Draft, Drafter, Renderer
from phi3_industry.finetuning.evidence import Evidence, is_house_knowledge
from phi3_industry.finetuning.rows import Slice, Split, TrainingRow
from phi3_industry.finetuning.shares import SliceShares
from phi3_industry.finetuning.splits import random_for
from phi3_industry.grounding.prompt import Message

__all__ = ["Assembly", "TokenCounter"]

_CHARS_PER_TOKEN = 64
"""No text has fewer tokens than one for so many characters, so a longer one need not be counted."""


class TokenCounter(Protocol):
    """What a language model offers to keep rows within its window."""

    @property
    def metadata(self) -> Any:
        """LlamaIndex's ``LLMMetadata``: ``context_window`` and ``num_output`` in tokens."""
        ...

    def count_tokens(self, messages: list[Message]) -> int:
        """Count the tokens of messages, the chat template's own included."""
        ...


class Assembly:
    """Collects rows that pass every check, each one once.

    Args:
        renderer: Puts drafts into the prompts that serve.
        counter: Counts tokens; ``None`` leaves lengths to the trainer.
    """

    def __init__(self, renderer: Renderer, counter: TokenCounter | None) -> None:
        self._renderer = renderer
        self._counter = counter
        self._rows: dict[str, TrainingRow] = {}
        self._dropped: dict[str, list[str]] = defaultdict(list)
        self._wanted: dict[str, int] = defaultdict(int)
        self.prompt_tokens: list[int] = []

    @property
    def rows(self) -> tuple[TrainingRow, ...]:
        """The rows so far."""
        return tuple(self._rows.values())

    @property
    def dropped(self) -> dict[str, list[str]]:
        """For each reason the ids of the questions of which a row was dropped."""
        return dict(self._dropped)

    @property
    def wanted(self) -> dict[str, int]:
        """Rows that were wanted of each slice for which there was something to make them of."""
        return dict(self._wanted)

    def drop(self, reason: str, question_ids: Sequence[str]) -> None:
        """Note that a row of each of some questions was not made."""
        if question_ids:
            self._dropped[reason].extend(question_ids)

    def make(
        self,
        evidence: Sequence[Evidence],
        drafter: Drafter,
        *,
        shares: SliceShares,
        rows_per_question: int,
        split: Split,
        known: frozenset[str],
        exchanges: Sequence[TrainingRow],
    ) -> None:
        """Make the rows of one split.

        Args:
            evidence: Its questions with their passages.
            drafter: Draws what rows show.
            shares: How many rows of each slice to make.
            rows_per_question: Rows made of each question.
            split: The split.
            known: Ids of the questions that the model answers by itself.
            exchanges: Rows of the user's conversations and of replay.
        """
        with_gold = [item for item in evidence if item.gold is not None]
        has_house_form = any(item.question.reference is not None for item in with_gold)
        house = [i for i in with_gold if i.question.reference or not has_house_form]
        plain = [i for i in with_gold if has_house_form and i.question.reference is None]
        knowledge = [item for item in evidence if is_house_knowledge(item.question)]
        grounded = len(house) * rows_per_question
        self._fill("grounded", house, rows_per_question, grounded, drafter, split)
        self._fill("closed_book", knowledge, 1, len(knowledge), drafter, split)

        shuffled = list(with_gold)
        random_for(drafter.seed, "order", split).shuffle(shuffled)
        unanswerable = [item for item in evidence if not item.question.answerable]
        familiar = [item for item in shuffled if item.question.id in known]
        others = [item for item in shuffled if item.question.id not in known]
        sources: dict[Slice, Sequence[Evidence]] = {
            "missing": unanswerable + others,
            "missing_known": familiar,
            "conflict": sorted(shuffled, key=lambda item: item.stale is None),
            "hostile": shuffled[::-1],
            "terminology": house if drafter.glossary else [],
            "relevance": shuffled,
            "closed_book": shuffled[::-1],
            "replay": plain,
        }
        for slice_, items in sources.items():
            draws = {"relevance": 2 * rows_per_question, "closed_book": 1}
            wanted = shares.rows_for(slice_, grounded_rows=grounded)
            self._fill(slice_, items, draws.get(slice_, rows_per_question), wanted, drafter, split)
        if split == "train":
            for draft in drafter.term_drafts():
                self._add_draft(draft, split)
        self._add_exchanges(exchanges, shares.rows_for("replay", grounded_rows=grounded), split)

    def _fill(
        self,
        slice_: Slice,
        items: Sequence[Evidence],
        draws: int,
        wanted: int,
        drafter: Drafter,
        split: Split,
    ) -> None:
        """Make rows of a slice until there are enough; what cannot be made does not count."""
        if items:
            self._wanted[slice_] += wanted
        count = 0
        for item, draw in ((item, draw) for draw in range(draws) for item in items):
            if count >= wanted:
                return
            draft = drafter.draft(item, slice_, draw)
            if draft is not None:
                count += self._add_draft(draft, split)
            elif slice_ == "missing":
                why = "nothing else was retrieved that could be shown"
                self.drop(why, [item.question.id])

    def _add_exchanges(self, rows: Sequence[TrainingRow], replayed: int, split: Split) -> None:
        """Add the user's conversations whole, and of replay as much as is still wanted."""
        made = sum(row.slice == "replay" and row.split == split for row in self._rows.values())
        chats = [row for row in rows if row.slice != "replay"]
        general = [row for row in rows if row.slice == "replay"]
        if self._rows or chats:
            general = general[: max(0, replayed - made)] if replayed else general
        for row in (*chats, *general):
            if self._measure(row)[1]:
                self._add(row, [])
            else:
                self.drop("it is longer than the model's window", [row.question_id])

    def _add_draft(self, draft: Draft, split: Split) -> bool:
        """Make one row of a draft with as many of its passages as fit, and add it."""
        for shown in draft.shortened():
            row = self._renderer.row(shown, split)
            tokens, fits = self._measure(row)
            if fits:
                break
        else:
            self.drop("it is longer than the model's window", [draft.question_id])
            return False
        texts = [passage.text for passage in shown.passages]
        added = self._add(row, texts, quote=draft.quote)
        if added and tokens is not None:
            self.prompt_tokens.append(tokens)
        return added

    def _add(self, row: TrainingRow, passages: Sequence[str], *, quote: str = "") -> bool:
        """Add a row, unless it must not be taught or is there already."""
        problem = row_problem(row, passages, quote=quote)
        key = "\n".join([*(message["content"] for message in row.prompt), row.answer])
        if problem is None and key in self._rows:
            problem = "an equal row was there already"
        if problem is not None:
            self.drop(problem, [row.question_id])
            return False
        self._rows[key] = row
        return True

    def _measure(self, row: TrainingRow) -> tuple[int | None, bool]:
        """Count the prompt's tokens and say whether it can be served and its answer written."""
        if self._counter is None:
            return None, True
        metadata = self._counter.metadata
        window: int = metadata.context_window
        if row.chars > _CHARS_PER_TOKEN * window:
            return None, False
        tokens = self._counter.count_tokens(row.prompt)
        whole = self._counter.count_tokens(row.prompt + row.completion)
        budget: int = getattr(self._counter, "prompt_budget", None) or window
        served = tokens <= min(budget, window - metadata.num_output)
        return tokens, served and whole <= window
