"""Documents about entities: sections of prose, spec sheets, lists and small tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import values
from .attributes import draw_attribute, related_attribute
from .draw import Draw
from .facts import Attribute, Entity, Fact, draw_entity, fill, named_entity
from .lexicon import ATTRIBUTE_FAMILIES, MACHINES
from .passages import Family, Passage
from .values import capitalised

__all__ = ["document_family"]

_SECTIONS = (
    "Technical data", "Operation", "Maintenance", "Specifications", "Overview", "Installation",
    "Troubleshooting", "Safety", "Data sheet", "Service", "Start-up", "Spare parts", "Alarms",
)  # fmt: skip


def document_family(
    draw: Draw,
    *,
    passages: int,
    max_facts: int,
    filler: float,
    known: Sequence[str] = (),
    pool: Sequence[Attribute] = (),
) -> Family:
    """Write passages about entities that share a pool of attributes.

    Args:
        draw: Source of chance.
        passages: Number of passages; each is about one entity, lists about several.
        max_facts: Upper bound on facts in a passage of prose; sheets may hold twice as many.
        filler: Share of prose passages with sentences that state nothing asked.
        known: Names of things that other passages of the context are about.
        pool: The attributes; drawn when empty.
    """
    pool = pool or _attribute_pool(draw, max(2, int(max_facts * 1.5) + 1))
    entities = _entities(draw, passages, known)
    written: list[Passage] = []
    for entity in _with_repeats(draw, entities):
        write = draw.choices((_prose, _spec_sheet, _property_table), (70, 20, 10))[0]
        most = max_facts if write is _prose or draw.chance(0.6) else 2 * max_facts
        chosen = draw.sample(pool, min(len(pool), draw.randint(1, most)))
        told = {f.attribute for p in written for f in p.facts if f.subject == entity.key}
        new = [attribute for attribute in chosen if attribute.name not in told]
        if new:
            written.append(write(draw, entity, new, filler))
        else:
            written.append(_introduction(draw, entity))
    if passages > 1 and draw.chance(0.2):
        others = [draw_entity(draw, entities[0]) for _ in range(draw.randint(1, 2))]
        group = _distinct([*others, draw_entity(draw)], entities)
        if group:
            short = [attribute for attribute in pool if attribute.kind != "procedure"] or pool
            written[-1] = _list_of_entities(draw, group, draw.choice(short))
            entities[-1:] = group
    return Family("document", tuple(written), tuple(_absent(draw, written, entities, pool)))


def _attribute_pool(draw: Draw, count: int) -> list[Attribute]:
    """Draw attributes; often several are easily confused, such as two pressures."""
    family = draw.choice(ATTRIBUTE_FAMILIES)
    related = 0.5 if draw.chance(0.6) else 0.0
    pool: dict[str, Attribute] = {}
    while len(pool) < count:
        attribute = (
            related_attribute(draw, family) if draw.chance(related) else draw_attribute(draw)
        )
        pool.setdefault(attribute.name, attribute)
    return list(pool.values())


def _distinct(new: Sequence[Entity], old: Sequence[Entity]) -> list[Entity]:
    seen = {entity.key.casefold() for entity in old}
    kept = []
    for entity in new:
        if entity.key.casefold() not in seen:
            seen.add(entity.key.casefold())
            kept.append(entity)
    return kept


def _with_repeats(draw: Draw, entities: Sequence[Entity]) -> list[Entity]:
    """Let some passages tell more about an entity of another passage."""
    if len(entities) < 2 or draw.chance(0.65):
        return list(entities)
    kept = list(entities[: draw.randint(1, len(entities) - 1)])
    return kept + [draw.choice(kept) for _ in range(len(entities) - len(kept))]


def _entities(draw: Draw, count: int, known: Sequence[str]) -> list[Entity]:
    if known and draw.chance(0.6):
        entities = [named_entity(draw, draw.choice(known))]
    else:
        entities = [draw_entity(draw)]
    while len(entities) < count:
        like = draw.choice(entities) if draw.chance(0.6) else None
        entities += _distinct([draw_entity(draw, like)], entities)
    return entities


def _absent(
    draw: Draw, written: Sequence[Passage], entities: Sequence[Entity], pool: Sequence[Attribute]
) -> list[Fact]:
    """Attributes that a shown entity lacks, and entities that are not shown."""
    held = {fact.identity for passage in written for fact in passage.facts}
    strangers = _distinct([draw_entity(draw, draw.choice(entities)) for _ in range(2)], entities)
    facts = [attribute.about(entity, draw) for entity in entities for attribute in pool]
    facts += [draw_attribute(draw).about(draw.choice(entities), draw)]
    facts += [draw.choice(pool).about(stranger, draw) for stranger in strangers]
    return [fact.of(fact.subject, fact.mentions) for fact in facts if fact.identity not in held]


def _statement(draw: Draw, templates: Sequence[str], fact: Fact) -> str:
    """State a fact so that its value stands in the text letter by letter."""
    usable = [t for t in templates if "{V}" not in t or fact.value == capitalised(fact.value)]
    return fill(draw.choice(usable), draw.choice(fact.mentions), fact.attribute, fact.value)


def _header(draw: Draw, entity: Entity, *, named: bool) -> str:
    """Draw a context header that names the entity or does not."""
    section = draw.choice(_SECTIONS)
    topic = capitalised(values.noun_phrase(draw, 1, 3))
    title = f"{capitalised(draw.choice(MACHINES))} manual" if draw.chance(0.5) else topic
    mention = capitalised(draw.choice(entity.mentions))
    if not named:
        return title if draw.chance(0.4) else f"{title} > {section}"
    return draw.choice(
        (
            mention,
            f"{mention} > {section}",
            f"{title} > {mention}",
            f"{title} > {mention} > {section}",
            f"{mention} data sheet",
        )
    )


def _prose(draw: Draw, entity: Entity, attributes: Sequence[Attribute], filler: float) -> Passage:
    named = draw.chance(0.4)
    sentences, facts = [], []
    for number, attribute in enumerate(attributes):
        fact = attribute.about(entity, draw)
        facts.append(fact)
        in_full = not named if number == 0 else draw.chance(0.3)
        templates = attribute.statements if in_full else attribute.short_statements
        sentences.append(_statement(draw, templates, fact))
    if draw.chance(filler):
        for _ in range(draw.randint(1, 4) if draw.chance(0.9) else draw.randint(5, 12)):
            place = draw.randint(0 if named else 1, len(sentences))
            sentences.insert(place, values.sentence(draw))
    header = "" if draw.chance(0.1) and not named else _header(draw, entity, named=named)
    return Passage(header, draw.choice((" ", " ", " ", "\n")).join(sentences), tuple(facts))


def _serves(draw: Draw, entity: Entity) -> str:
    mention, thing = capitalised(draw.choice(entity.mentions)), values.noun_phrase(draw, 1, 3)
    verb = draw.choice(("serves", "feeds", "moves", "belongs to", "stands beside", "handles"))
    return f"{mention} {verb} the {thing}."


def _introduction(draw: Draw, entity: Entity) -> Passage:
    """A passage that names an entity and states nothing that is asked."""
    sentences = [_serves(draw, entity), *(values.sentence(draw) for _ in range(draw.randint(0, 3)))]
    return Passage(_header(draw, entity, named=draw.chance(0.6)), " ".join(sentences), ())


def _entries(
    draw: Draw, entity: Entity, attributes: Sequence[Attribute]
) -> tuple[list[Fact], list[tuple[str, str]]]:
    """Name and value of each attribute, for shapes without sentences."""
    facts = [attribute.about(entity, draw) for attribute in attributes]
    return facts, [(capitalised(fact.attribute), fact.value) for fact in facts]


def _spec_sheet(
    draw: Draw, entity: Entity, attributes: Sequence[Attribute], filler: float
) -> Passage:
    facts, entries = _entries(draw, entity, attributes)
    mark = draw.choice(("- ", "- ", "* ", ""))
    lines = [f"{mark}{name}: {value}" for name, value in entries]
    if draw.chance(filler):
        first = _serves(draw, entity) if draw.chance(0.6) else values.sentence(draw)
        lines.insert(0, first + draw.choice(("", "\n")))
    return Passage(_header(draw, entity, named=True), "\n".join(lines), tuple(facts))


def _property_table(
    draw: Draw, entity: Entity, attributes: Sequence[Attribute], filler: float
) -> Passage:
    if any(attribute.kind == "procedure" for attribute in attributes):
        return _spec_sheet(draw, entity, attributes, filler)
    facts, entries = _entries(draw, entity, attributes)
    left, right = draw.choice((("Property", "Value"), ("Parameter", "Setting"), ("Item", "Data")))
    lines = [f"| {left} | {right} |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in entries]
    return Passage(_header(draw, entity, named=True), "\n".join(lines), tuple(facts))


def _list_of_entities(draw: Draw, entities: Sequence[Entity], attribute: Attribute) -> Passage:
    """One attribute of several entities: "- P-4471: 38.2 bar"."""
    facts = [attribute.about(entity, draw) for entity in entities]
    name = capitalised(attribute.name)
    as_table: Callable[[Fact], str] = lambda fact: f"| {fact.subject} | {fact.value} |"  # noqa: E731
    as_list: Callable[[Fact], str] = lambda fact: f"- {fact.subject}: {fact.value}"  # noqa: E731
    if draw.chance(0.5):
        lines = [f"| Unit | {name} |", "| --- | --- |", *map(as_table, facts)]
    else:
        lines = [f"{name}:", *map(as_list, facts)]
    title = capitalised(values.noun_phrase(draw, 1, 3))
    header = f"{title} > {name}" if draw.chance(0.5) else title
    return Passage(header, "\n".join(lines), tuple(facts))
