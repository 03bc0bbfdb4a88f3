"""What a row of each slice shows and wants, before it is put into the prompt."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from phi3_industry.finetuning.evidence import (
    Evidence,
    Passage,
    folded,
    is_house_knowledge,
    stale_answers,
)
from phi3_industry.finetuning.glossary import Glossary
from phi3_industry.finetuning.rows import Slice, Split, TrainingRow
from phi3_industry.finetuning.splits import random_for
from phi3_industry.finetuning.wordings import Wordings, fill
from phi3_industry.grounding.prompt import GroundingPrompt
from phi3_industry.grounding.relevance import RelevancePrompt

__all__ = ["Draft", "Drafter", "Renderer"]

_DIGIT = re.compile(r"\d")
_FIRST_DATE = date(2020, 1, 1)
_DATED_DAYS = 1800
_LEAST_DAYS_APART = 30


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One row to be.

    Attributes:
        slice: What it teaches.
        question_id: The question it is made from.
        question: What is asked.
        wanted: The answer without its citation; ``None`` to abstain.
        quote: What of it the cited passage has to hold word for word.
        passages: What is shown, in order; none for a question without passages.
        cited: The passage that the answer cites; ``None`` if it cites none.
        older: The older version of it and what it says, where two are shown.
    """

    slice: Slice
    question_id: str
    question: str
    wanted: str | None = None
    quote: str = ""
    passages: tuple[Passage, ...] = ()
    cited: Passage | None = None
    older: tuple[Passage, str] | None = None

    def shortened(self) -> Iterator[Draft]:
        """Give the draft, then ever fewer passages: the last goes first, what is needed stays."""
        needed = [self.cited, self.older[0] if self.older else None]
        passages = list(self.passages)
        yield self
        while True:
            spare = [p for p in passages if not any(p is one for one in needed)]
            if not spare or len(passages) == 1:
                return
            passages = [p for p in passages if p is not spare[-1]]
            yield replace(self, passages=tuple(passages))


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """Puts drafts into the prompts that serve.

    Attributes:
        prompt: The wording of questions with and without passages.
        relevance: The wording of the judgement of one passage.
        wordings: The other sentences.
    """

    prompt: GroundingPrompt
    relevance: RelevancePrompt
    wordings: Wordings

    def row(self, draft: Draft, split: Split) -> TrainingRow:
        """Write a draft as a row."""
        if draft.slice == "relevance":
            prompt = self.relevance.messages(draft.question, draft.passages[0].text)
        elif draft.passages:
            prompt = self.prompt.grounded(draft.question, [p.text for p in draft.passages])
        else:
            prompt = self.prompt.closed_book(draft.question)
        return TrainingRow(
            prompt=prompt,
            completion=[{"role": "assistant", "content": self._answer(draft)}],
            slice=draft.slice,
            split=split,
            question_id=draft.question_id,
            source_ids=tuple(passage.name for passage in draft.passages),
            node_ids=tuple(passage.node_id for passage in draft.passages),
        )

    def _answer(self, draft: Draft) -> str:
        if draft.wanted is None:
            return self.prompt.abstention_answer
        if draft.cited is None:
            return draft.wanted
        newest = self._cite(draft, draft.cited, draft.wanted)
        if draft.older is None:
            return newest
        older = self._cite(draft, *draft.older)
        return fill(self.wordings.conflict, newest=newest, older=older)

    def _cite(self, draft: Draft, passage: Passage, text: str) -> str:
        place = next(n for n, shown in enumerate(draft.passages, start=1) if shown is passage)
        return self.prompt.answer(text, marker=place)


@dataclass(frozen=True, kw_only=True)
class Drafter:
    """Draws what the rows of each slice show.

    Attributes:
        num_passages: The least and the most passages of a row.
        wordings: The sentences of hostile and dated passages and of questions for terms.
        relevance: The two verdicts.
        glossary: The house's terms, if it has any.
        answers_known: Whether what the model knows by itself may be answered, marked as such.
        seed: Seed of every draw.
        values: Answers of other questions, from which wrong ones are taken.
    """

    num_passages: tuple[int, int]
    wordings: Wordings
    relevance: RelevancePrompt
    glossary: Glossary | None
    answers_known: bool
    seed: int
    values: Sequence[str]

    def draft(self, item: Evidence, slice_: Slice, draw: int) -> Draft | None:
        """Draft a row of a question; ``None`` if the slice cannot be made of it."""
        rng = random_for(self.seed, item.question.id, slice_, draw)
        if slice_ in ("grounded", "replay"):
            return self._grounded(item, rng, slice_)
        if slice_ in ("missing", "missing_known"):
            return self._missing(item, rng, slice_)
        if slice_ == "conflict":
            return self._conflict(item, rng)
        if slice_ == "hostile":
            return self._hostile(item, rng)
        if slice_ == "terminology":
            return self._reworded(item, rng)
        if slice_ == "relevance":
            return self._relevance(item, rng, draw)
        return self._closed_book(item)

    def term_drafts(self) -> list[Draft]:
        """Draft the questions for the glossary's words and meanings, which need no passage."""
        terms = self.glossary.terms if self.glossary else ()
        drafts = []
        for term in terms:
            asked = [
                (fill(sentence, banned=banned), term.term)
                for banned in term.banned
                for sentence in self.wordings.term
            ]
            if term.definition:
                asked += [
                    (fill(sentence, term=term.term), term.definition)
                    for sentence in self.wordings.definition
                ]
            drafts += [
                Draft(
                    slice="terminology",
                    question_id=f"term:{term.term}",
                    question=question,
                    wanted=wanted,
                )
                for question, wanted in asked
            ]
        return drafts

    def _grounded(
        self, item: Evidence, rng: random.Random, slice_: Slice = "grounded"
    ) -> Draft | None:
        if item.gold is None:
            return None
        count = rng.randint(*self.num_passages)
        shown = [item.gold, *_distractors(item, count - 1, rng)]
        rng.shuffle(shown)
        return Draft(
            slice=slice_,
            question_id=item.question.id,
            question=item.question.question,
            wanted=item.wanted,
            quote=item.quote,
            passages=tuple(shown),
            cited=item.gold,
        )

    def _missing(self, item: Evidence, rng: random.Random, slice_: Slice) -> Draft | None:
        shown = _distractors(item, rng.randint(*self.num_passages), rng)
        if not shown:
            return None
        wanted = None
        if slice_ == "missing_known" and self.answers_known and item.question.answers:
            wanted = fill(self.wordings.unsourced, answer=item.question.answers[0])
        return Draft(
            slice=slice_,
            question_id=item.question.id,
            question=item.question.question,
            wanted=wanted,
            passages=tuple(shown),
        )

    def _conflict(self, item: Evidence, rng: random.Random) -> Draft | None:
        """Show two versions: those that the documents hold, or an older one made for it.

        The newer one has the lower number, as the query engine numbers versions.
        """
        draft = self._grounded(item, rng, "conflict")
        if draft is None or item.gold is None:
            return None
        if item.stale is not None:
            newer, older, value = item.gold, item.stale, stale_answers(item.question)[0]
        else:
            other = self._other_value(item, rng)
            if other is None or item.gold.text.count(item.quote) != 1:
                return None
            newer, older = self._two_versions(item.gold, item.quote, other, rng)
            value = other
        spare = [passage for passage in draft.passages if passage is not item.gold]
        shown = [newer, older, *spare[: max(0, self.num_passages[1] - 2)]]
        rng.shuffle(shown)
        places = sorted(n for n, passage in enumerate(shown) if passage in (newer, older))
        for place, version in zip(places, (newer, older), strict=True):
            shown[place] = version
        return replace(draft, passages=tuple(shown), cited=newer, older=(older, value))

    def _two_versions(
        self, gold: Passage, quote: str, old_value: str, rng: random.Random
    ) -> tuple[Passage, Passage]:
        """Give a passage a date, unless it has one, and make an older version of it."""
        later = _FIRST_DATE + timedelta(days=rng.randint(_DATED_DAYS // 2, _DATED_DAYS))
        if gold.date:
            later = date.fromisoformat(gold.date)
        earlier = later - timedelta(days=rng.randint(_LEAST_DAYS_APART, _DATED_DAYS // 2))
        old = gold.text.replace(quote, old_value)
        return self._dated(gold, later, gold.text), self._dated(gold, earlier, old)

    def _dated(self, gold: Passage, day: date, text: str) -> Passage:
        """Date a passage's text where the passages of dated documents are dated in serving."""
        header, on = gold.header, day.isoformat()
        if not header or not text.startswith(header):
            return replace(gold, text=fill(self.wordings.dated, date=on, passage=text))
        if gold.date:
            dated = header.removesuffix(gold.date) + on
        else:
            dated = fill(self.wordings.dated_header, header=header, date=on)
        return replace(gold, text=dated + text.removeprefix(header))

    def _hostile(self, item: Evidence, rng: random.Random) -> Draft | None:
        draft = self._grounded(item, rng, "hostile")
        wrong = self._other_value(item, rng) if draft else None
        if draft is None or wrong is None:
            return None
        order = fill(rng.choice(self.wordings.hostile), wrong=wrong)
        others = [passage for passage in draft.passages if passage is not item.gold]
        spoilt = rng.choice(others or list(draft.passages))
        hostile = replace(spoilt, text=f"{spoilt.text}\n{order}")
        return replace(
            draft,
            passages=tuple(hostile if p is spoilt else p for p in draft.passages),
            cited=hostile if spoilt is item.gold else item.gold,
        )

    def _reworded(self, item: Evidence, rng: random.Random) -> Draft | None:
        """Ask with a banned word; the answer is the house's all the same."""
        about = self.glossary.find(item.question.question) if self.glossary else None
        draft = self._grounded(item, rng, "terminology")
        if draft is None or about is None:
            return None
        term, spelled = about
        others = [name for name in term.banned if name.casefold() != spelled.casefold()]
        if not others:
            return draft if spelled.casefold() != term.term.casefold() else None
        return replace(draft, question=draft.question.replace(spelled, rng.choice(others), 1))

    def _relevance(self, item: Evidence, rng: random.Random, draw: int) -> Draft | None:
        """Show the right passage or the best of the wrong ones."""
        if item.gold is None or not item.distractors:
            return None
        is_right = (rng.random() < 0.5) != bool(draw % 2)
        return Draft(
            slice="relevance",
            question_id=item.question.id,
            question=item.question.question,
            wanted=self.relevance.true_text if is_right else self.relevance.false_text,
            passages=(item.gold if is_right else item.distractors[0],),
        )

    def _closed_book(self, item: Evidence) -> Draft:
        taught = is_house_knowledge(item.question)
        return Draft(
            slice="closed_book",
            question_id=item.question.id,
            question=item.question.question,
            wanted=item.wanted if taught else None,
        )

    def _other_value(self, item: Evidence, rng: random.Random) -> str | None:
        """Choose a wrong answer, of the same look as the right one if there is any."""
        right = {folded(answer) for answer in (item.quote, *item.question.answers)}
        others = [value for value in self.values if folded(value) not in right]
        alike = [value for value in others if _look(value) == _look(item.quote)]
        return rng.choice(alike or others) if others else None


def _distractors(item: Evidence, count: int, rng: random.Random) -> list[Passage]:
    """Choose distractors: one time in two the best ones, which serving would show.

    The best ones are the hardest, such as other facts of the thing that is asked about. Any of
    the retrieved ones, the other time, keep rows from being alike.
    """
    if rng.random() < 0.5:
        return list(item.distractors[:count])
    return rng.sample(item.distractors, min(count, len(item.distractors)))


def _look(text: str) -> str:
    return _DIGIT.sub("0", text)
