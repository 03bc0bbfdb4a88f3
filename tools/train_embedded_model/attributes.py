"""The kinds of fact that prose and spec sheets state, with their wordings."""

from __future__ import annotations

from collections.abc import Callable

from . import values
from .draw import Draw
from .facts import Attribute
from .lexicon import ATTRIBUTE_FAMILIES, COLOURS, MATERIALS, PARTS, QUALIFIERS
from .told import procedure_attribute, told_attribute

__all__ = ["draw_attribute", "plain_attribute", "related_attribute"]


def draw_attribute(draw: Draw) -> Attribute:
    """Draw one of the kinds of fact that prose states."""
    return draw.pick(
        (34, lambda: _measured(draw)),
        (22, lambda: _described(draw)),
        (22, lambda: _unusual(draw)),
        (26, lambda: told_attribute(draw)),
        (6, lambda: procedure_attribute(draw)),
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
