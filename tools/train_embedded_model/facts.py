"""Entities, and the kinds of fact that prose and spec sheets state about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from . import values
from .draw import Draw
from .lexicon import (
    ADJECTIVES,
    ATTRIBUTE_FAMILIES,
    COLOURS,
    MACHINES,
    MATERIALS,
    NOUNS,
    PARTS,
    QUALIFIERS,
    VERBS,
)
from .questions import composed_question
from .values import capitalised, recased
from .wordings import many_worded_key_question, many_worded_question

__all__ = [
    "KEY_ONLY_QUESTIONS",
    "Attribute",
    "Entity",
    "Fact",
    "draw_attribute",
    "draw_entity",
    "fill",
    "named_entity",
    "plain_attribute",
    "related_attribute",
]


COMPOSED_SHARE = 0.4
"""Share of training questions that are put together from parts."""
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
        if draw.split == "train" and self._is_plain and draw.chance(COMPOSED_SHARE):
            template = composed_question(draw)
        if draw.split == "train" and draw.many_wordings and draw.chance(draw.many_wordings):
            template = self._many_worded(draw) or template
        subject = draw.choice(self.mentions)
        if self.kind != "drill" and draw.chance(RECASED_SHARE):
            subject, attribute = recased(subject, draw), recased(attribute, draw)
        return fill(template, subject, attribute)

    def _many_worded(self, draw: Draw) -> str | None:
        if self._is_plain:
            return many_worded_question(draw)
        if self.questions == KEY_ONLY_QUESTIONS:
            return many_worded_key_question(draw)
        return None

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


def draw_attribute(draw: Draw) -> Attribute:
    """Draw one of the kinds of fact that prose states."""
    return draw.pick(
        (34, lambda: _measured(draw)),
        (22, lambda: _described(draw)),
        (22, lambda: _unusual(draw)),
        (26, lambda: _told(draw)),
        (6, lambda: _procedure(draw)),
    )


_STATEMENTS = (
    "The {a} of {e} is {v}.",
    "{E} has a {a} of {v}.",
    "The {a} for {e} is {v}.",
    "For {e}, the {a} is {v}.",
    "{A} of {e}: {v}.",
    "{E} {a}: {v}.",
    "On {e}, the {a} is {v}.",
    "{V} is the {a} of {e}.",
    "The manual gives {v} as the {a} of {e}.",
    "{E} uses {v} as its {a}.",
)
_NUMERIC_STATEMENTS = (
    *_STATEMENTS,
    "Set the {a} of {e} to {v}.",
    "The {a} of {e} must be {v}.",
    "The {a} of {e} must not exceed {v}.",
    "{E} runs with a {a} of {v}.",
    "{E} is designed for a {a} of {v}.",
    "Keep the {a} of {e} at {v}.",
)
_SHORT = (
    "Its {a} is {v}.",
    "The {a} is {v}.",
    "It has a {a} of {v}.",
    "{A}: {v}.",
    "The {a} is specified as {v}.",
    "The {a} was set to {v}.",
)
_QUESTIONS = (
    "What is the {a} of {e}?",
    "What is the {a} for {e}?",
    "Which {a} does {e} have?",
    "{E}: what is the {a}?",
    "Tell me the {a} of {e}.",
    "Give the {a} for {e}.",
    "What {a} is specified for {e}?",
    "What {a} does {e} have?",
    "What is {e}'s {a}?",
    "State the {a} of {e}.",
    "I need the {a} of {e}.",
    "{A} of {e}?",
    "What does the manual say about the {a} of {e}?",
    "{E}: {a}?",
    "I am at {e} and need its {a}.",
    "I work on {e}. What is its {a}?",
    "Can you tell me the {a} of {e}?",
    "What's the {a} of {e}?",
    "About {e}: which {a} applies?",
    "What do you know about the {a} of {e}?",
    "For {e}, what is the {a}?",
    "According to the documents, what is the {a} of {e}?",
    "{E} - {a}?",
    "Do you know the {a} of {e}?",
    "What was given as the {a} of {e}?",
    "Was ist {a} von {e}?",
    "Quel est {a} de {e} ?",
    "Jaké je {a} u {e}?",
    "{e} 的 {a} 是多少？",
    "{e} の {a} は何ですか？",
    "Каков {a} для {e}?",
    "Vad är {a} för {e}?",
    "¿Cuál es {a} de {e}?",
    "I stand before {e}. What is its {a}?",
    "Which {a} was noted for {e}?",
    "{E} needs which {a}?",
    "What do the papers give as the {a} of {e}?",
    "Please find the {a} of {e}.",
)
_NUMERIC_QUESTIONS = (
    "How high is the {a} of {e}?",
    "What should the {a} of {e} be?",
    "To what value is the {a} of {e} set?",
    *_QUESTIONS,
)


def plain_attribute(
    name: str, kind: str, value: Callable[[Draw], str], *, numeric: bool
) -> Attribute:
    """Make an attribute that any statement and any question fits."""
    statements = _NUMERIC_STATEMENTS if numeric else _STATEMENTS
    questions = _NUMERIC_QUESTIONS if numeric else _QUESTIONS
    return Attribute(name, kind, value, statements, _SHORT, questions)


def related_attribute(draw: Draw, family: tuple[tuple[str, ...], tuple[str, ...]]) -> Attribute:
    """Draw a measured attribute of a family, such as one of several pressures."""
    return _measured(draw, family)


def _measured(
    draw: Draw, family: tuple[tuple[str, ...], tuple[str, ...]] | None = None
) -> Attribute:
    nouns, units = family or draw.choice(ATTRIBUTE_FAMILIES)
    name = draw.choice(nouns)
    if draw.chance(0.7):
        name = f"{draw.choice(QUALIFIERS)} {name}"
    elif draw.chance(0.3):
        name = f"{draw.choice(PARTS)} {name.split()[-1]}"
    return plain_attribute(name, "measured", lambda d: values.quantity(d, units), numeric=True)


def _described(draw: Draw) -> Attribute:
    def row(names: str, value: Callable[[Draw], str]) -> tuple[str, Callable[[Draw], str]]:
        return draw.choice(names.split(",")), value

    def part_material() -> tuple[str, Callable[[Draw], str]]:
        return f"{draw.choice(PARTS)} material", lambda d: d.choice(MATERIALS)

    name, value = draw.choice(
        (
            part_material(),
            row("paint colour,cover colour,lamp colour,cable colour", lambda d: d.choice(COLOURS)),
            row(
                "lubricant,grease type,oil type,hydraulic fluid,coolant,cleaning agent,sealant",
                lambda d: f"{values.made_up_name(d)} {d.choice((str(d.randint(2, 99)), 'oil'))}",
            ),
            row(
                "spare part number,serial number,part number,order code,asset number,fuse type,"
                "drawing number,article number,firmware version,bearing type,document number",
                lambda d: d.choice((values.code(d), f"{values.code(d)}-{d.randint(10, 99)}")),
            ),
            row("supplier,service partner,owner,dealer", values.organisation),
            row(
                "responsible technician,operator,shift leader,contact person,inspector,author",
                values.person,
            ),
            row("storage place,destination,home base,key location", values.place),
            row(
                "protection class,hazard class,accuracy class,thread,voltage class",
                lambda d: d.choice(("IP", "class ", "M", "type ")) + str(d.randint(1, 99)),
            ),
            row("next inspection date,delivery date,last service,due date", values.date),
            (values.noun_phrase(draw, 2, 3), lambda d: values.noun_phrase(d, 1, 3)),
        )
    )
    return plain_attribute(name, "described", value, numeric=False)


def _unusual(draw: Draw) -> Attribute:
    return plain_attribute(
        values.random_phrase(draw, 1, 4), "unusual", values.any_value, numeric=False
    )


def _told(draw: Draw) -> Attribute:
    """Facts with sentences of their own: alarms, places, causes, intervals and the like."""
    return draw.choice(_TOLD)(draw)


def _own(
    name: str,
    value: Callable[[Draw], str],
    statements: Sequence[str],
    short_statements: Sequence[str],
    questions: Sequence[str],
    *,
    kind: str = "told",
) -> Attribute:
    return Attribute(
        name, kind, value, tuple(statements), tuple(short_statements), tuple(questions)
    )


def _location(_draw: Draw) -> Attribute:
    return _own(
        "place",
        values.place,
        ("{E} is located in {v}.", "{E} stands in {v}.", "You will find {e} in {v}."),
        ("It is located in {v}.", "It stands in {v}."),
        (
            "Where is {e}?",
            "Where is {e} located?",
            "In which place is {e}?",
            "Where can I find {e}?",
        ),
    )


def _interval(draw: Draw) -> Attribute:
    part = draw.choice(PARTS)
    return _own(
        f"{part} interval",
        lambda d: (
            f"every {d.randint(1, 9999)} {d.choice(('hours', 'days', 'weeks', 'months', 'cycles'))}"
        ),
        (
            f"The {part} of {{e}} must be replaced {{v}}.",
            f"Replace the {part} of {{e}} {{v}}.",
            f"On {{e}}, replace the {part} {{v}}.",
        ),
        (f"Replace the {part} {{v}}.", f"The {part} must be replaced {{v}}."),
        (
            f"How often must the {part} of {{e}} be replaced?",
            f"When should I replace the {part} of {{e}}?",
            f"What is the replacement interval of the {part} on {{e}}?",
            f"How often should I replace the {part} on {{e}}?",
        ),
    )


def _alarm(draw: Draw) -> Attribute:
    mark = draw.choice("EFAW") + draw.choice(("", "-")) + str(draw.randint(1, 999))
    word = draw.choice(("alarm", "error", "fault code", "code", "warning"))
    big = capitalised(word)
    return _own(
        mark,
        lambda d: f"{d.choice(ADJECTIVES)} {d.choice(PARTS + NOUNS)}",
        (
            f"{big} {mark} on {{e}} means {{v}}.",
            f"On {{e}}, {word} {mark} means {{v}}.",
            f"{big} {mark} on {{e}} indicates {{v}}.",
            f"{big} {mark} of {{e}}: {{v}}.",
        ),
        (f"{big} {mark} means {{v}}.", f"{mark} indicates {{v}}.", f"{big} {mark}: {{v}}."),
        (
            f"What does {word} {mark} mean on {{e}}?",
            f"What does {mark} on {{e}} mean?",
            f"{{E}} shows {mark}. What does it mean?",
            f"What is the meaning of {word} {mark} on {{e}}?",
        ),
    )


def _builder(_draw: Draw) -> Attribute:
    return _own(
        "builder",
        values.person,
        ("{V} built {e}.", "{E} was built by {v}.", "{V} designed and built {e}."),
        ("It was built by {v}.", "{V} built it."),
        ("Who built {e}?", "By whom was {e} built?", "Who was the builder of {e}?"),
    )


def _year(_draw: Draw) -> Attribute:
    return _own(
        "installation year",
        lambda d: str(d.randint(1850, 2039)),
        ("{E} was installed in {v}.", "{E} was put into service in {v}.", "In {v}, {e} was built."),
        ("It was installed in {v}.", "It entered service in {v}."),
        (
            "When was {e} installed?",
            "What year was {e} put into service?",
            "In which year was {e} installed?",
        ),
    )


def _stop(_draw: Draw) -> Attribute:
    return _own(
        "stop condition",
        lambda d: f"the {d.choice(PARTS + NOUNS)} is {d.choice(ADJECTIVES)}",
        ("{E} stops when {v}.", "{E} shuts down if {v}.", "When {v}, {e} stops."),
        ("It stops when {v}.", "It shuts down if {v}."),
        ("When does {e} stop?", "What makes {e} stop?", "When does {e} shut down?"),
    )


def _tool(draw: Draw) -> Attribute:
    task = f"{draw.choice(VERBS)} the {draw.choice(PARTS)}"
    return _own(
        f"tool to {task}",
        lambda d: f"a {values.noun_phrase(d, 1, 2)}",
        (
            f"Use {{v}} to {task} of {{e}}.",
            f"To {task} of {{e}}, use {{v}}.",
            f"{{V}} is used to {task} of {{e}}.",
        ),
        (f"Use {{v}} to {task}.",),
        (
            f"What should I use to {task} of {{e}}?",
            f"Which tool do I need to {task} of {{e}}?",
            f"What is used to {task} of {{e}}?",
        ),
    )


def _made_of(draw: Draw) -> Attribute:
    part = draw.choice(PARTS)
    return _own(
        f"{part} material",
        lambda d: d.choice(MATERIALS),
        (
            f"The {part} of {{e}} is made of {{v}}.",
            f"{{E}} has a {part} made of {{v}}.",
            f"The {part} on {{e}} consists of {{v}}.",
        ),
        (f"The {part} is made of {{v}}.", f"Its {part} is made of {{v}}."),
        (
            f"What is the {part} of {{e}} made of?",
            f"What is the material of the {part} of {{e}}?",
            f"Which material is the {part} of {{e}} made of?",
        ),
    )


def _maker(_draw: Draw) -> Attribute:
    return _own(
        "maker",
        values.organisation,
        ("{E} is made by {v}.", "{V} makes {e}.", "{V} is the maker of {e}."),
        ("It is made by {v}.",),
        ("Who makes {e}?", "Which company makes {e}?", "Who is the maker of {e}?"),
    )


def _count(draw: Draw) -> Attribute:
    part = draw.choice(PARTS)
    return _own(
        f"number of {part}s",
        lambda d: str(d.randint(1, 99)),
        (
            f"{{E}} has {{v}} {part}s.",
            f"There are {{v}} {part}s on {{e}}.",
            f"{{E}} is fitted with {{v}} {part}s.",
        ),
        (f"It has {{v}} {part}s.", f"There are {{v}} {part}s."),
        (
            f"How many {part}s does {{e}} have?",
            f"How many {part}s are on {{e}}?",
            f"How many {part}s are there on {{e}}?",
        ),
    )


def _cause(draw: Draw) -> Attribute:
    effect = f"{draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}"
    return _own(
        f"cause of {effect}",
        lambda d: f"a {d.choice(ADJECTIVES)} {d.choice(PARTS + NOUNS)}",
        (
            f"{capitalised(effect)} on {{e}} is caused by {{v}}.",
            f"{{V}} causes {effect} on {{e}}.",
            f"On {{e}}, {effect} comes from {{v}}.",
        ),
        (f"{capitalised(effect)} is caused by {{v}}.",),
        (
            f"What causes {effect} on {{e}}?",
            f"Why is there {effect} on {{e}}?",
            f"What is the cause of {effect} on {{e}}?",
        ),
    )


def _remedy(draw: Draw) -> Attribute:
    state = f"{draw.choice(PARTS + NOUNS)} is {draw.choice(ADJECTIVES)}"
    return _own(
        f"remedy when the {state}",
        values.step,
        (f"If the {state} on {{e}}, {{v}}.", f"When the {state} on {{e}}, {{v}}."),
        (f"If the {state}, {{v}}.",),
        (
            f"What should I do if the {state} on {{e}}?",
            f"The {state} on {{e}}. What should I do?",
            f"What must I do when the {state} on {{e}}?",
        ),
    )


def _driver(_draw: Draw) -> Attribute:
    return _own(
        "drive",
        lambda d: d.choice((f"the {values.noun_phrase(d, 1, 2)}", values.made_up_name(d))),
        ("{E} is driven by {v}.", "{V} drives {e}."),
        ("It is driven by {v}.",),
        ("What drives {e}?", "How is {e} driven?", "What is {e} driven by?"),
    )


_TOLD: tuple[Callable[[Draw], Attribute], ...] = (
    _alarm, _alarm, _builder, _cause, _count, _driver, _interval, _location, _made_of, _maker,
    _remedy, _stop, _tool, _year,
)  # fmt: skip


def _procedure(draw: Draw) -> Attribute:
    task = f"{draw.choice(VERBS)} the {draw.choice(PARTS)}"
    return _own(
        task,
        lambda d: d.choice(("; ", "\n")).join(
            f"{n}. {values.step(d)}" for n in range(1, d.randint(2, 4) + 1)
        ),
        (
            f"To {task} of {{e}}: {{v}}.",
            f"Procedure to {task} of {{e}}: {{v}}.",
            f"How to {task} of {{e}}: {{v}}.",
        ),
        (f"To {task}: {{v}}.",),
        (
            f"How do I {task} of {{e}}?",
            f"What are the steps to {task} of {{e}}?",
            f"List the steps to {task} of {{e}}.",
            f"How to {task} of {{e}}?",
        ),
        kind="procedure",
    )
