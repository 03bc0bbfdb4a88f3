"""Tables, and their rows written the way ingestion writes them.

A row becomes ``<key column>: <key>; <column>: <value>; <column>: <value>``; empty cells are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from . import values
from .draw import Draw
from .facts import KEY_ONLY_QUESTIONS, Fact
from .lexicon import (
    ADJECTIVES,
    ATTRIBUTE_FAMILIES,
    LINE_ITEMS,
    MACHINES,
    NOUNS,
    QUALIFIERS,
    RESOURCES,
    SCOPES,
    SIZES,
    TABLE_COLUMNS,
)
from .passages import Family, Passage
from .values import capitalised

__all__ = ["Table", "draw_table", "row_family", "row_text", "table_title"]

CELL_QUESTIONS = (
    "What is the {a} of {e}?",
    "What is the {a} for {e}?",
    "What is the {a} of {e}?",
    "What is the {a} for {e}?",
    "{E}: {a}?",
    "{E}: what is the {a}?",
    "Which {a} does {e} have?",
    "What {a} does {e} have?",
    "Give the {a} of {e}.",
    "Tell me the {a} for {e}.",
    "{A} of {e}?",
    "For {e}, what is the {a}?",
    "How much is the {a} of {e}?",
    "What does the table give as {a} for {e}?",
    "State the {a} for {e}.",
    "What is {e}'s {a}?",
    "Which {a} is listed for {e}?",
    "I need to know the {a} of {e}.",
    "What {a} is given for {e}?",
    "I am looking for the {a} of {e}.",
    "I work with {e}. What is its {a}?",
    "Can you tell me the {a} of {e}?",
    "{E} - {a}?",
    "What's the {a} of {e}?",
    "What {a} applies to {e}?",
    "I have {e} here and need its {a}.",
    "In the table, which {a} belongs to {e}?",
    "How high is the {a} of {e}?",
    "Do you know the {a} of {e}?",
    "Was steht bei {e} unter {a}?",
    "Quel est {a} pour {e} ?",
    "{e} 的 {a} 是什么？",
    "{e} の {a} は？",
    "Какое значение {a} у {e}?",
    "Jaká je hodnota {a} pro {e}?",
    "{E}, {a}?",
    "Find the {a} of {e}.",
    "Which value does {e} have under {a}?",
    "When it comes to {e}, what is the {a}?",
    "Look up the {a} for {e}.",
)
PERIOD_QUESTIONS = (
    *CELL_QUESTIONS[:7],
    "What was the {e} in {a}?",
    "What is the {e} in {a}?",
    "What were the {e} for {a}?",
    "How much was {e} in {a}?",
    "{E} in {a}?",
    "What was the amount of {e} in {a}?",
    "What is the {a} value of {e}?",
)
COUNT_QUESTIONS = (
    "How many {e} are allowed?",
    "How many {e} can I have?",
    "What is the limit on {e}?",
    "How many {e} may there be?",
    "How many {e} are permitted?",
    "What is the largest number of {e}?",
    "What is the maximum of {e}?",
    "Up to how many {e} can I use?",
    "How many {e} at most?",
    "{E}: how many?",
    "What is the highest number of {e} that I can have?",
    "Is there a limit on {e}?",
    "Tell me how many {e} I may use.",
    "How many {e} do I get?",
    "{E}: limit?",
    "What number of {e} must not be exceeded?",
    "How many {e} can be made?",
    "Wie viele {e} sind erlaubt?",
    "Combien de {e} au plus ?",
    "Name the limit for {e}.",
    "How many {e} are possible?",
    "How many {e} are supported?",
    "What is the greatest allowed number of {e}?",
    "At most how many {e} are there?",
)
REVERSE_QUESTIONS = (
    "Which {k} has {v} as {a}?",
    "For which {k} is the {a} {v}?",
    "Which {k} has a {a} of {v}?",
    "Name the {k} whose {a} is {v}.",
    "Which {k} is listed with {v} as {a}?",
    "Where is the {a} {v}?",
    "What {k} has the {a} {v}?",
    "{V} is the {a} of which {k}?",
    "To which {k} does the {a} {v} belong?",
    "Find the {k} with {a} {v}.",
    "{V} under {a}: which {k} is that?",
    "Who or what has {v} as {a}?",
    "The {a} is {v}. Which {k} is it?",
    "I have a {a} of {v}. Which {k}?",
    "Look for the {k} with a {a} of {v}.",
    "{A} {v}: which {k}?",
    "Which {k} goes with a {a} of {v}?",
    "With {v} as {a}, which {k} is meant?",
)
_MAXIMUM = "Maximum number of "


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        header: Context header of its rows.
        columns: Column names; the first names the key.
        rows: Cells by row, in the order of the columns; an empty cell is "".
        periods: Whether the columns after the first are years or quarters.
    """

    header: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    periods: bool = False


def row_text(columns: Sequence[str], row: Sequence[str]) -> str:
    """Write one row, leaving out empty cells."""
    return "; ".join(f"{column}: {cell}" for column, cell in zip(columns, row, strict=True) if cell)


def table_title(draw: Draw) -> str:
    """Draw the context header of a table: a title, the words of a file name, title and section."""
    phrase = values.noun_phrase(draw, 1, 3)
    word = values.random_word(draw)
    return draw.pick(
        (3, lambda: capitalised(phrase)),
        (3, lambda: f"{capitalised(phrase)} > {capitalised(values.noun_phrase(draw, 1, 3))}"),
        (2, lambda: f"{phrase} {draw.randint(1, 20)}"),
        (2, lambda: f"{phrase} > {capitalised(values.noun_phrase(draw, 1, 2))}"),
        (2, lambda: f"{draw.choice(NOUNS)} {word} guide {phrase} {draw.randint(1, 9)}"),
        (2, lambda: capitalised(values.random_phrase(draw, 1, 3))),
    )


def draw_table(draw: Draw, *, rows: int, max_columns: int, known: Sequence[str] = ()) -> Table:
    """Draw a table.

    Args:
        draw: Source of chance.
        rows: Number of rows.
        max_columns: Upper bound on columns without the key column.
        known: Names of things that other passages are about; some become keys of this table.
    """
    table = _draw_table(draw, rows, max_columns)
    keys = {row[0].casefold() for row in table.rows}
    new = [name for name in known if name.casefold() not in keys]
    if not new or draw.chance(0.4):
        return table
    taken = draw.sample(new, min(len(new), draw.randint(1, rows)))
    body = [(key, *row[1:]) for key, row in zip(taken, table.rows, strict=False)]
    return replace(table, rows=(*body, *table.rows[len(taken) :]))


def _draw_table(draw: Draw, rows: int, max_columns: int) -> Table:
    return draw.pick(
        (45, lambda: _property_table(draw, rows, max_columns)),
        (20, lambda: _limits_table(draw, rows, max_columns)),
        (20, lambda: _period_table(draw, rows, max_columns)),
        (15, lambda: _property_table(draw, rows, max_columns, random_share=1.0)),
    )


def row_family(table: Table, draw: Draw, *, shown: int) -> Family:
    """Show some rows of a table as passages.

    Args:
        table: The table; at least ``shown`` rows.
        draw: Source of chance.
        shown: Number of rows to show. Keys of the other rows are asked as absent.
    """
    order = draw.sample(range(len(table.rows)), len(table.rows))
    chosen, hidden = sorted(order[:shown]), order[shown:]
    keys = [table.rows[i][0] for i in chosen]
    passages = []
    for i in chosen:
        row = table.rows[i]
        facts = _cell_facts(table, row, draw, keys)
        passages.append(Passage(table.header, row_text(table.columns, row), tuple(facts)))
    absent = [fact for i in hidden for fact in _cell_facts(table, table.rows[i], draw, keys)]
    absent += _missing_cells(table, [table.rows[i] for i in chosen], draw)
    return Family("table row", tuple(passages), tuple(absent))


def _cell_facts(table: Table, row: tuple[str, ...], draw: Draw, keys: Sequence[str]) -> list[Fact]:
    key, subjects = row[0], _key_mentions(table.columns[0], row[0], draw, keys)
    questions = PERIOD_QUESTIONS if table.periods else CELL_QUESTIONS
    facts = []
    asked: tuple[str, ...]
    for column, cell in zip(table.columns[1:], row[1:], strict=True):
        if not cell:
            continue
        asked, mentions = questions, subjects
        if len(table.columns) == 2 and draw.chance(0.6):
            asked = KEY_ONLY_QUESTIONS
            if key.startswith(_MAXIMUM):
                asked, mentions = COUNT_QUESTIONS, (key.removeprefix(_MAXIMUM),)
        names = _column_mentions(column, table.periods)
        facts.append(Fact(key, column, cell, asked, mentions, "cell", names))
        if draw.chance(0.06) and _unique_cell(table, column, cell):
            facts.append(_reverse(table, column, cell, key))
    return facts


def _reverse(table: Table, column: str, cell: str, key: str) -> Fact:
    kind = table.columns[0].lower() or "row"
    questions = tuple(
        template.replace("{k}", kind).replace("{v}", cell).replace("{V}", capitalised(cell))
        for template in REVERSE_QUESTIONS
    )
    return Fact(f"{column}: {cell}", "key", key, questions, ("",), "key", (column,))


def _unique_cell(table: Table, column: str, cell: str) -> bool:
    everything = [text for row in table.rows for text in row]
    return len(cell) > 1 and everything.count(cell) == 1 and not set("{}") & set(cell + column)


def _missing_cells(table: Table, rows: Sequence[tuple[str, ...]], draw: Draw) -> list[Fact]:
    """Empty cells of shown rows, and a column that the table does not have."""
    extra = draw.choice(TABLE_COLUMNS) if draw.chance(0.5) else values.random_phrase(draw, 1, 2)
    facts = []
    for row in rows:
        mentions = _key_mentions(table.columns[0], row[0], draw, ())
        for column, cell in zip(table.columns[1:], row[1:], strict=True):
            if not cell:
                names = _column_mentions(column, table.periods)
                facts.append(Fact(row[0], column, "", CELL_QUESTIONS, mentions, "cell", names))
        if extra not in table.columns:
            names = _column_mentions(extra, False)
            facts.append(Fact(row[0], extra, "", CELL_QUESTIONS, mentions, "cell", names))
    return facts


def _key_mentions(key_column: str, key: str, draw: Draw, others: Sequence[str]) -> tuple[str, ...]:
    """Ways to name a row: as it stands, with its column, in lower case, or partly."""
    mentions = [key, key, key, key]
    if key_column and len(key_column) < 20:
        mentions.append(f"{key_column.lower()} {key}")
    if key[1:2].islower():
        mentions.append(key[:1].lower() + key[1:])
    words = key.split()
    if len(words) >= 3:
        dropped = draw.randrange(len(words))
        rest = [word for i, word in enumerate(words) if i != dropped]
        lowered = {word.casefold() for word in rest}
        clashes = [k for k in others if k != key and lowered <= set(k.casefold().split())]
        if not clashes:
            mentions.append(" ".join(rest))
    return tuple(mentions)


def _column_mentions(column: str, periods: bool) -> tuple[str, ...]:
    if periods:
        return (column,)
    lower = column[:1].lower() + column[1:] if column[1:2].islower() else column
    mentions = [column, column, lower]
    if " (" in column:
        mentions += [column.split(" (")[0], lower.split(" (")[0]]
    return tuple(mentions)


def _unique(count: int, make: Callable[[list[str]], str]) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        name = make(found)
        if name.casefold() not in (other.casefold() for other in found):
            found.append(name)
    return found


def _keys(draw: Draw, count: int, make: Callable[[], str], *, twins: float = 0.2) -> list[str]:
    """Draw keys of the split, some of them one character away from another."""

    def one(found: list[str]) -> str:
        if found and draw.chance(twins):
            return draw.fresh_or(lambda: values.near_miss(draw.choice(found), draw), make)
        return draw.fresh(make)

    return _unique(count, one)


def _property_table(draw: Draw, rows: int, max_columns: int, random_share: float = 0.3) -> Table:
    """Things and their properties: equipment, products, instance types."""
    make_key = draw.choice(
        (
            lambda: values.code(draw),
            lambda: values.code(draw),
            lambda: values.made_up_name(draw),
            lambda: values.random_phrase(draw, 1, 4),
            lambda: values.identifier(draw),
            _sizes(draw),
            lambda: capitalised(values.noun_phrase(draw, 2, 4)),
            lambda: values.person(draw),
            lambda: str(draw.randint(1, 40)),
            lambda: capitalised(values.random_phrase(draw, 2, 6)),
        )
    )
    key_column = draw.choice((draw.choice(MACHINES), draw.choice(NOUNS), "name", "id", "type"))
    if draw.chance(random_share):
        key_column = values.random_word(draw)
    families = (draw.choice(ATTRIBUTE_FAMILIES),) if draw.chance(0.4) else ATTRIBUTE_FAMILIES
    makers: dict[str, Callable[[], str]] = {}
    while len(makers) < draw.randint(1, max_columns):
        column, maker = _column(draw, random_share, families)
        if column.casefold() != key_column.casefold():
            makers.setdefault(column, maker)
    columns = (capitalised(key_column), *makers)
    hole = 0.12 if draw.chance(0.4) else 0.0
    body = tuple(
        (key, *("" if draw.chance(hole) else draw.fresh_number(make) for make in makers.values()))
        for key in _keys(draw, rows, make_key)
    )
    return Table(table_title(draw), columns, body)


def _sizes(draw: Draw) -> Callable[[], str]:
    """Keys of one or two families: t2.micro, t2.large, t3.micro."""
    families = [f"{draw.choice('abcdgimprtx')}{draw.randint(1, 9)}" for _ in range(2)]
    if draw.chance(0.4):
        families = [values.random_word(draw).lower() for _ in range(2)]
    dot = draw.choice((".", ".", "-", " "))
    return lambda: (
        f"{draw.choice(families)}{dot}{draw.choice(('', str(draw.randint(2, 32))))}"
        + (draw.choice(SIZES))
    )


def _column(
    draw: Draw,
    random_share: float,
    families: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
) -> tuple[str, Callable[[], str]]:
    """Draw a column; with a single family, its measured columns are easily confused."""
    if draw.chance(random_share):
        return _unusual_name(draw), _cells(draw)
    if draw.chance(0.4):
        nouns, units = draw.choice(families)
        name, unit = draw.choice(nouns), draw.choice(units)
        if draw.chance(0.5):
            name = f"{draw.choice(QUALIFIERS)} {name}"
        if draw.chance(0.5):
            return capitalised(f"{name} ({unit})"), lambda: values.number(draw)
        return capitalised(name), lambda: values.quantity(draw, (unit,))
    if draw.chance(0.7):
        return draw.choice(TABLE_COLUMNS), _cells(draw)
    return capitalised(values.noun_phrase(draw, 1, 3)), _cells(draw)


def _unusual_name(draw: Draw) -> str:
    """Draw a column name that no list holds."""
    name = capitalised(values.random_phrase(draw, *draw.choice(((1, 3), (1, 3), (3, 7)))))
    if draw.chance(0.15):
        name = f"{name}/{values.random_word(draw)}"
    if draw.chance(0.15):
        name = f"{name} ({draw.choice(('%', 'in thousands', 'MB', values.random_word(draw)))})"
    return name


def _cells(draw: Draw) -> Callable[[], str]:
    """Choose what the cells of a column look like."""
    return draw.choice(
        (
            lambda: values.any_value(draw),
            lambda: values.any_value(draw),
            lambda: values.any_value(draw),
            lambda: values.number(draw),
            lambda: values.number(draw),
            lambda: values.price(draw),
            lambda: values.code(draw),
            lambda: draw.choice(("Yes", "No")),
            lambda: values.random_phrase(draw, 1, 3),
            lambda: values.date(draw),
            lambda: values.person(draw),
            lambda: values.sentence(draw),
        )
    )


def _limits_table(draw: Draw, rows: int, max_columns: int) -> Table:
    """Limits of a service: long keys, a value, perhaps whether it can be changed."""

    def key() -> str:
        resource, scope = draw.choice(RESOURCES), draw.choice(SCOPES)
        if draw.chance(0.3):
            resource = f"{draw.choice(ADJECTIVES)} {resource}"
        word = values.random_word(draw)
        return draw.choice(
            (
                f"{_MAXIMUM}{resource} per {scope}",
                f"{capitalised(resource)} per {scope}",
                f"{word} {resource} per {scope}",
                f"Maximum {draw.choice(NOUNS)} size",
                f"{capitalised(values.noun_phrase(draw, 2, 3))} {draw.choice(('limit', 'quota'))}",
                f"Number of {resource} in a {scope}",
                f"{word} {draw.choice(NOUNS)}",
            )
        )

    scopes, resources = draw.sample(SCOPES, 2), draw.sample(RESOURCES, 4)
    pattern = draw.choice(
        (
            f"{_MAXIMUM}{{r}} per {{s}}",
            f"{_MAXIMUM}{{r}} in a {{s}}",
            "{r} per {s}",
            "Maximum {r} for each {s}",
        )
    )

    def sibling() -> str:
        resource = draw.choice(resources)
        if draw.chance(0.4):
            resource = f"{draw.choice(ADJECTIVES)} {resource}"
        return capitalised(pattern.format(r=resource, s=draw.choice(scopes)))

    first = draw.choice(("Resource", "Limit", "Quota", "Item", "Setting", "Parameter", "Name"))
    makers: dict[str, Callable[[], str]] = {
        draw.choice(("Default", "Value", "Maximum", "Default limit", "Amount")): draw.choice(
            (
                lambda: values.number(draw).lstrip("-"),
                lambda: f"{values.number(draw).lstrip('-')} {draw.choice(RESOURCES)}",
                lambda: values.any_value(draw),
            )
        )
    }
    if max_columns > 1 and draw.chance(0.6):
        makers["Adjustable"] = lambda: draw.choice(("Yes", "No"))
    if max_columns > 2 and draw.chance(0.4):
        makers["Description"] = lambda: values.sentence(draw)
    body = tuple(
        (name, *(draw.fresh_number(make) for make in makers.values()))
        for name in _keys(draw, rows, sibling if draw.chance(0.5) else key, twins=0.05)
    )
    return Table(table_title(draw), (first, *makers), body)


def _period_table(draw: Draw, rows: int, max_columns: int) -> Table:
    """Amounts by year or quarter."""

    def key() -> str:
        item = draw.choice(LINE_ITEMS)
        return draw.choice(
            (
                capitalised(item),
                f"Total {item}",
                f"{capitalised(draw.choice(ADJECTIVES))} {item}",
                f"{values.made_up_name(draw)} {item}",
                capitalised(values.noun_phrase(draw, 2, 3)),
                values.random_phrase(draw, 1, 3),
            )
        )

    year = draw.randint(1990, 2035)
    count = min(max(2, max_columns), draw.choice((2, 2, 3, 4)))
    style = draw.choice(("{y}", "{y}", "Fiscal {y}", "June 30, {y}", "Q{q} {y}", "{y} $m"))
    periods = [style.format(y=year - i, q=4 - i % 4) for i in range(count)]
    first = draw.choice(("Item", "Line item", "Category", "In millions", "Years ended", "Segment"))
    make = draw.choice(
        (
            lambda: values.price(draw),
            lambda: f"{values.number(draw)}%",
            lambda: f"{draw.randint(1, 999)},{draw.randint(0, 999):03d}",
            lambda: (
                f"({values.number(draw).lstrip('-')})" if draw.chance(0.2) else values.number(draw)
            ),
        )
    )
    body = tuple(
        (name, *(draw.fresh_number(make) for _ in periods))
        for name in _keys(draw, rows, key, twins=0)
    )
    return Table(table_title(draw), (first, *periods), body, periods=True)
