"""Names, codes, numbers, dates and phrases: everything that is to be copied, never known."""

from __future__ import annotations

from .draw import Draw
from .lexicon import (
    ADJECTIVES,
    COLOURS,
    FIRST_NAMES,
    MACHINES,
    MATERIALS,
    MONTHS,
    NOUNS,
    ORGANISATIONS,
    PARTS,
    RESOURCES,
    SCOPES,
    SCRIPTS,
    SYLLABLES,
    VERBS,
)

__all__ = [
    "any_value", "capitalised", "code", "date", "foreign_word", "identifier", "made_up_name",
    "near_miss", "noun_phrase", "number", "organisation", "person", "place", "price",
    "quantity", "random_phrase", "random_word", "recased", "sentence", "step",
]  # fmt: skip

_CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_UNITS = (
    "MB", "GB", "KB", "GiB", "USD", "EUR", "million", "thousand", "points", "items", "days",
    "hours", "seconds", "ms", "kg", "bar", "IOPS", "characters", "percent", "mg", "pieces",
)  # fmt: skip
_FLAGS = (
    "Yes", "No", "Unlimited", "None", "Default", "Not applicable", "Optional", "Required", "True",
    "False", "Enabled", "Disabled", "N/A", "Supported", "Not supported", "Low", "Medium", "High",
    "✓", "✔", "—", "-",
)  # fmt: skip


def capitalised(text: str) -> str:
    """Raise the first letter, leaving the rest as it is."""
    return text[:1].upper() + text[1:]


def recased(text: str, draw: Draw) -> str:
    """Write a name as people type it: in small letters, in capitals, or Like a Title."""
    return draw.choice((text.lower, text.lower, text.upper, text.title))()


def _digits(draw: Draw, count: int) -> str:
    return str(draw.randint(1, 9)) + "".join(str(draw.randint(0, 9)) for _ in range(count - 1))


def _capitals(draw: Draw, count: int) -> str:
    return "".join(draw.choice(_CAPITALS) for _ in range(count))


def made_up_name(draw: Draw) -> str:
    """Draw a pronounceable capitalised name."""
    return "".join(draw.choice(SYLLABLES) for _ in range(draw.choice((2, 2, 3)))).capitalize()


def code(draw: Draw) -> str:
    """Draw an equipment, part or document code."""
    return draw.pick(
        (35, lambda: f"{_capitals(draw, 1)}-{_digits(draw, draw.choice((2, 3, 3, 4, 4)))}"),
        (18, lambda: f"{_capitals(draw, 2)}-{_digits(draw, draw.choice((1, 2, 3, 4)))}"),
        (15, lambda: f"{_capitals(draw, 2)}{_digits(draw, draw.choice((2, 3, 4)))}"),
        (8, lambda: f"{_capitals(draw, 1)}-{_digits(draw, 3)}{_capitals(draw, 1)}"),
        (8, lambda: f"{_capitals(draw, 3)}-{_digits(draw, 2)}-{_capitals(draw, 1)}"),
        (6, lambda: f"{_digits(draw, 2)}-{_capitals(draw, 2)}-{_digits(draw, 2)}"),
        (5, lambda: _digits(draw, draw.choice((3, 4, 5)))),
        (5, lambda: f"{draw.choice(_LETTERS)}{_digits(draw, 1)}.{random_word(draw).lower()}"),
    )


def near_miss(name: str, draw: Draw) -> str:
    """Change one letter or digit of a name."""
    places = [i for i, character in enumerate(name) if character.isascii() and character.isalnum()]
    if not places:
        return name + draw.choice(_LETTERS)
    i = draw.choice(places)
    old = name[i]
    alphabet = "0123456789" if old.isdigit() else _CAPITALS if old.isupper() else _LETTERS
    new = draw.choice([character for character in alphabet if character != old])
    return name[:i] + new + name[i + 1 :]


def number(draw: Draw) -> str:
    """Draw a number as documents write it: 7, 38.2, 1,000, 0.15, -12."""
    return draw.pick(
        (22, lambda: _digits(draw, 1)),
        (25, lambda: _digits(draw, 2)),
        (13, lambda: _digits(draw, 3)),
        (8, lambda: _digits(draw, 4)),
        (7, lambda: f"{_digits(draw, draw.choice((1, 1, 2, 3)))},{draw.randint(0, 999):03d}"),
        (15, lambda: f"{_digits(draw, draw.choice((1, 2)))}.{draw.randint(0, 9)}"),
        (7, lambda: f"0.{_digits(draw, draw.choice((1, 2)))}"),
        (3, lambda: f"-{_digits(draw, 2)}"),
    )


def quantity(draw: Draw, units: tuple[str, ...]) -> str:
    """Draw a number with one of the units, sometimes a range or a tolerance."""
    unit = draw.choice(units)
    gap = "" if unit == "%" else " "
    return draw.pick(
        (85, lambda: f"{number(draw)}{gap}{unit}"),
        (9, lambda: f"{number(draw)} to {number(draw)}{gap}{unit}"),
        (6, lambda: f"{number(draw)} ± {_digits(draw, 1)}{gap}{unit}"),
    )


def price(draw: Draw) -> str:
    """Draw an amount of money."""
    amount = number(draw).lstrip("-")
    return draw.choice(
        (f"${amount}", f"$ {amount}", f"€{amount}", f"{amount} EUR", f"({amount})", f"${amount}")
    )


def date(draw: Draw) -> str:
    """Draw a date."""
    day, month, year = draw.randint(1, 28), draw.randint(1, 12), draw.randint(1900, 2039)
    name = MONTHS[month - 1]
    return draw.choice(
        (
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{year}",
        )
    )


def noun_phrase(draw: Draw, low: int = 1, high: int = 3) -> str:
    """Draw a phrase of common words, such as "worn oil filter"."""
    if draw.text is not None and draw.chance(0.2):
        return draw.text.words(draw, low, high).lower()
    count = draw.randint(low, high)
    words = [draw.choice(ADJECTIVES)] if draw.chance(0.6) else []
    while len(words) < count:
        words.append(draw.choice(NOUNS))
    return " ".join(words)


def random_word(draw: Draw) -> str:
    """Draw a word that nobody has seen before."""
    if draw.chance(0.5):
        word = "".join(draw.choice(SYLLABLES) for _ in range(draw.randint(2, 3)))
    else:
        word = "".join(draw.choice(_LETTERS) for _ in range(draw.randint(3, 8)))
    return draw.pick(
        (55, lambda: word),
        (30, word.capitalize),
        (8, word.upper),
        (7, lambda: f"{word}{draw.choice('_-.')}{draw.choice(NOUNS)}"),
    )


def foreign_word(draw: Draw) -> str:
    """Draw a word of another script, letter by letter."""
    alphabet = draw.choice(SCRIPTS)
    return "".join(draw.choice(alphabet) for _ in range(draw.randint(2, 5)))


def random_phrase(draw: Draw, low: int, high: int) -> str:
    """Draw a phrase in which most words are unknown."""
    if draw.text is not None and draw.chance(0.35):
        return draw.text.words(draw, low, high)
    return " ".join(
        random_word(draw) if draw.chance(0.6) else draw.choice(NOUNS + ADJECTIVES + MACHINES)
        for _ in range(draw.randint(low, high))
    )


def identifier(draw: Draw) -> str:
    """Draw a technical name: snake_case, dotted.name, kebab-name, CamelName, path."""
    words = [draw.choice((draw.choice(NOUNS), random_word(draw).lower())) for _ in range(2)]
    return draw.choice(
        (
            "_".join(words),
            ".".join(words),
            "-".join(words),
            "".join(capitalised(word) for word in words),
            "/" + "/".join(words),
            f"{words[0]}_{_digits(draw, 1)}",
            f"{words[0]}:{words[1]}:{_digits(draw, 1)}/{draw.choice(NOUNS)}",
            f"{draw.choice(VERBS)}-{'-'.join(words)}",
            capitalised(draw.choice(VERBS)) + "".join(capitalised(word) for word in words),
        )
    )


def person(draw: Draw) -> str:
    """Draw a person's name."""
    return f"{draw.choice(FIRST_NAMES)} {made_up_name(draw)}"


def organisation(draw: Draw) -> str:
    """Draw a company's name."""
    name = made_up_name(draw)
    return f"{name} {draw.choice(ORGANISATIONS)}" if draw.chance(0.7) else name


def place(draw: Draw) -> str:
    """Draw a place in a plant or a town."""
    room = draw.choice(("bay", "hall", "room", "line", "rack", "building", "zone", "cabinet"))
    return draw.pick(
        (3, lambda: f"{room} {_digits(draw, draw.choice((1, 2)))}"),
        (2, lambda: f"{room} {draw.choice(_CAPITALS)}"),
        (2, lambda: f"the {noun_phrase(draw, 2, 3)}"),
        (2, lambda: made_up_name(draw)),
        (2, lambda: f"bay {_digits(draw, 1)} of hall {draw.choice(_CAPITALS)}"),
    )


def step(draw: Draw) -> str:
    """Draw one step of a procedure, without a full stop."""
    thing = draw.choice(PARTS) if draw.chance(0.7) else draw.choice(NOUNS)
    adjective = f"{draw.choice(ADJECTIVES)} " if draw.chance(0.3) else ""
    text = f"{draw.choice(VERBS)} the {adjective}{thing}"
    return draw.pick(
        (60, lambda: text),
        (15, lambda: f"{text} to {_digits(draw, 2)} {draw.choice(('Nm', 'bar', 'mm'))}"),
        (12, lambda: f"{text} for {_digits(draw, 2)} {draw.choice(('minutes', 'seconds'))}"),
        (13, lambda: f"{text} with {noun_phrase(draw, 1, 2)}"),
    )


def sentence(draw: Draw) -> str:
    """Draw a sentence that states no asked fact."""
    if draw.text is not None and draw.chance(0.5):
        return draw.text.sentence(draw)
    part, thing = draw.choice(PARTS), noun_phrase(draw, 1, 2)
    return draw.choice(
        (
            f"Before work begins, {step(draw)}.",
            f"Keep the {part} away from the {thing}.",
            f"{capitalised(step(draw))}.",
            f"This applies to every {draw.choice(MACHINES)} on the site.",
            f"The {thing} is described in another chapter.",
            f"Contact the {draw.choice(('service team', 'supplier', 'plant office'))} in doubt.",
            f"A {draw.choice(ADJECTIVES)} {part} must be reported at once.",
            f"Use the {thing} only when the {part} is {draw.choice(ADJECTIVES)}.",
            f"The {part} and the {draw.choice(PARTS)} are checked together.",
            f"You can use {random_word(draw)} with {random_word(draw)} or {noun_phrase(draw)}.",
            f"For more information, see {capitalised(noun_phrase(draw, 2, 3))}.",
        )
    )


def any_value(draw: Draw) -> str:
    """Draw the content of a table cell or a fact: whatever it is, it is copied."""
    return draw.pick(
        (18, lambda: number(draw)),
        (12, lambda: f"{number(draw)} {draw.choice(_UNITS)}"),
        (6, lambda: f"{number(draw)} {draw.choice(RESOURCES)} per {draw.choice(SCOPES)}"),
        (4, lambda: f"{number(draw)} {draw.choice(RESOURCES)}"),
        (9, lambda: price(draw)),
        (4, lambda: f"{number(draw)}%"),
        (9, lambda: draw.choice(_FLAGS)),
        (1, lambda: f"{draw.choice(_FLAGS)}{draw.choice('¹²³*†')}"),
        (7, lambda: code(draw)),
        (5, lambda: identifier(draw)),
        (4, lambda: date(draw)),
        (3, lambda: person(draw)),
        (3, lambda: organisation(draw)),
        (3, lambda: capitalised(noun_phrase(draw, 1, 3))),
        (3, lambda: draw.choice(MATERIALS + COLOURS)),
        (8, lambda: random_phrase(draw, 1, 4)),
        (5, lambda: random_phrase(draw, 4, 12)),
        (3, lambda: ", ".join(number(draw) for _ in range(draw.randint(2, 5)))),
        (2, lambda: ", ".join(identifier(draw) for _ in range(draw.randint(2, 3)))),
        (
            2,
            lambda: f"{number(draw)} {draw.choice(_UNITS)} to {number(draw)} {draw.choice(_UNITS)}",
        ),
        (3, lambda: f"{number(draw)} ({noun_phrase(draw, 1, 3)})"),
        (3, lambda: " ".join(foreign_word(draw) for _ in range(draw.randint(1, 2)))),
        (4, lambda: sentence(draw)),
        (2, lambda: sentence(draw).rstrip(".")),
    )
