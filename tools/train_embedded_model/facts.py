"""Entities, facts about them, and how a fact is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from . import values
from .draw import Draw
from .lexicon import ADJECTIVES, MACHINES, NOUNS
from .questions import composed_question, with_lead
from .values import capitalised, recased
from .wordings import many_worded_key_question, many_worded_question

__all__ = [
    "KEY_ONLY_QUESTIONS",
    "Attribute",
    "Entity",
    "Fact",
    "draw_entity",
    "fill",
    "named_entity",
]


COMPOSED_SHARE = 0.4
"""Share of training questions that are put together from parts."""
NAMED_SHARE = 0.15
"""Share of training questions that name a fact with sentences of its own, such as "maker"."""
RECASED_SHARE = 0.15
"""Share of questions that write names in other cases than the passages do."""


KEY_ONLY_QUESTIONS = (
    "What is the {e}?",
    "What is {e}?",
    "{E}?",
    "How much is {e}?",
    "What does the table say about {e}?",
    "Give {e}.",
    "What is the value of {e}?",
)
"""Questions about a row with a single value; they name no attribute."""


@dataclass(frozen=True)
class Entity:
    """Something that facts are about.

    Attributes:
        key: What tells it from every other entity.
        mentions: Ways to name it inside a sentence.
    """

    key: str
    mentions: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """One kind of fact with its wordings.

    Attributes:
        name: Name of the attribute, unique within a conversation.
        kind: Family that scores are reported by.
        value: Draws a value.
        statements: Sentences with ``{e}``, ``{a}`` and ``{v}`` (capitals raise the first letter).
        short_statements: Sentences that leave the entity to the context.
        questions: Questions with ``{e}`` and ``{a}``; held-out wordings last (see draw.wordings).
    """

    name: str
    kind: str
    value: Callable[[Draw], str]
    statements: tuple[str, ...]
    short_statements: tuple[str, ...]
    questions: tuple[str, ...]

    def about(self, entity: Entity, draw: Draw) -> Fact:
        """State the attribute of an entity with a value of the draw's split."""
        value = draw.fresh_number(lambda: self.value(draw))
        return Fact(entity.key, self.name, value, self.questions, entity.mentions, self.kind)


@dataclass(frozen=True)
class Fact:
    """A value that a passage holds, and how to ask for it.

    Attributes:
        subject: Key of the entity or table row.
        attribute: Name of the attribute or column.
        value: The value, word for word as in the passage.
        questions: Question templates.
        mentions: Ways to name the subject in a question.
        kind: Family that scores are reported by.
        attribute_mentions: Ways to name the attribute in a question; the name when empty.
    """

    subject: str
    attribute: str
    value: str
    questions: tuple[str, ...]
    mentions: tuple[str, ...]
    kind: str
    attribute_mentions: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, str]:
        """Subject and attribute: two facts of a conversation never share both."""
        return self.subject.casefold(), self.attribute.casefold()

    def ask(self, draw: Draw) -> str:
        """Word a question for the value."""
        attribute = draw.choice(self.attribute_mentions or (self.attribute,))
        template = draw.wording(self.questions)
        if draw.split == "train":
            template = self._varied(draw, template)
        subject = draw.choice(self.mentions)
        if self.kind != "drill" and draw.chance(RECASED_SHARE):
            subject, attribute = recased(subject, draw), recased(attribute, draw)
        return fill(template, subject, attribute)

    def _varied(self, draw: Draw, template: str) -> str:
        """Word a training question more freely than any list of wordings does."""
        if draw.many_wordings and draw.chance(draw.many_wordings):
            if self._is_plain:
                return many_worded_question(draw)
            if self.questions == KEY_ONLY_QUESTIONS:
                return many_worded_key_question(draw)
        if self.kind == "told":
            named = draw.chance(NAMED_SHARE)
            return composed_question(draw) if named else with_lead(draw, template)
        if self._is_plain and draw.chance(COMPOSED_SHARE):
            return composed_question(draw)
        return template

    @property
    def _is_plain(self) -> bool:
        """Whether any question that names subject and attribute fits."""
        return self.kind in ("cell", "measured", "described", "unusual") and all(
            "{a}" in question.lower() for question in self.questions
        )

    def of(self, subject: str, mentions: tuple[str, ...]) -> Fact:
        """Ask the same attribute of another subject."""
        return replace(self, subject=subject, mentions=mentions, value="")


def fill(template: str, entity: str, attribute: str, value: str = "") -> str:
    """Put names and a value into a template."""
    words = {
        "e": entity,
        "E": capitalised(entity),
        "a": attribute,
        "A": capitalised(attribute),
        "v": value,
        "V": capitalised(value),
    }
    return capitalised(template.format_map(words))


def draw_entity(draw: Draw, like: Entity | None = None) -> Entity:
    """Draw an entity of the draw's split, perhaps one letter away from another."""
    machine = draw.choice(MACHINES)
    if like is not None and draw.chance(0.35):
        key = draw.fresh_or(lambda: values.near_miss(like.key, draw), lambda: values.code(draw))
        return named_entity(draw, key, machine)
    if draw.chance(0.1):
        adjective = draw.fresh(lambda: f"{draw.choice(ADJECTIVES + NOUNS)} {draw.choice(MACHINES)}")
        return Entity(adjective, (f"the {adjective}",))
    key = draw.fresh(
        lambda: draw.pick(
            (65, lambda: values.code(draw)),
            (10, lambda: values.made_up_name(draw)),
            (5, lambda: f"{values.made_up_name(draw)} {draw.randint(1, 999)}"),
            (16, lambda: values.random_phrase(draw, 1, 3)),
            (4, lambda: values.foreign_word(draw)),
        )
    )
    return named_entity(draw, key, machine)


def named_entity(draw: Draw, key: str, machine: str = "") -> Entity:
    """Make an entity of a name, with the kind of machine that it is."""
    machine = machine or draw.choice(MACHINES)
    return Entity(key, (f"{machine} {key}", key, f"the {key} {machine}", f"{machine} {key}"))
