"""Facts with sentences of their own: alarms, places, causes, intervals and the like.

Each kind is asked in some two dozen wordings, written as one text with ``|`` between them. The
words of a question are seldom those of the passage ("who is behind" for "is made by"), and a reader
learns that from many of them, not from three. The last sixth of a kind's wordings is held out.
"""

from __future__ import annotations

from collections.abc import Callable

from . import values
from .draw import Draw
from .facts import Attribute
from .lexicon import ADJECTIVES, MATERIALS, NOUNS, PARTS, VERBS
from .values import capitalised

__all__ = ["procedure_attribute", "told_attribute"]


def told_attribute(draw: Draw) -> Attribute:
    """Draw a kind of fact, with what it is about (a part, a task, an alarm) filled in."""
    return draw.choice(_KINDS)(draw)


def _told(
    name: str,
    value: Callable[[Draw], str],
    statements: str,
    short_statements: str,
    questions: str,
    *,
    kind: str = "told",
    **fixed: str,
) -> Attribute:
    """Make an attribute.

    Args:
        name: Name of the attribute.
        value: Draws a value.
        statements: Sentences, ``|`` between them.
        short_statements: Sentences that leave the entity to the context.
        questions: Questions, the held-out ones last.
        kind: Family that scores are reported by.
        fixed: What stands for ``<key>`` in all of these.
    """

    def templates(text: str) -> tuple[str, ...]:
        for key, word in fixed.items():
            text = text.replace(f"<{key}>", word)
        return tuple(template.strip() for template in text.split("|"))

    return Attribute(
        name, kind, value, templates(statements), templates(short_statements), templates(questions)
    )


def _location(_draw: Draw) -> Attribute:
    return _told(
        "place",
        values.place,
        "{E} is located in {v}.|{E} stands in {v}.|You will find {e} in {v}.",
        "It is located in {v}.|It stands in {v}.",
        "Where is {e}?|Where is {e} located?|In which place is {e}?|Where does {e} stand?|"
        "Where do I find {e}?|Where must I go for {e}?|What is the place of {e}?|"
        "What is the location of {e}?|Tell me where {e} is.|Where was {e} put?|{E}: where?|"
        "Which place is {e} in?|Where have they put {e}?|Say where {e} stands.|"
        "I am looking for {e}. Where is it?|Where is {e} to be found?|Name the place of {e}.|"
        "Wo steht {e}?|Où se trouve {e} ?|¿Dónde está {e}?|"
        "Where can I find {e}?|Where should I look for {e}?|At what location is {e}?|"
        "{E} is where?",
    )


def _interval(draw: Draw) -> Attribute:
    return _told(
        f"{(part := draw.choice(PARTS))} interval",
        lambda d: (
            f"every {d.randint(1, 9999)} {d.choice(('hours', 'days', 'weeks', 'months', 'cycles'))}"
        ),
        "The <part> of {e} must be replaced {v}.|Replace the <part> of {e} {v}.|"
        "On {e}, replace the <part> {v}.",
        "Replace the <part> {v}.|The <part> must be replaced {v}.",
        "How often must the <part> of {e} be replaced?|When should I replace the <part> of {e}?|"
        "What is the replacement interval of the <part> on {e}?|"
        "How often do I replace the <part> of {e}?|When is the <part> of {e} due?|"
        "How often is a new <part> needed on {e}?|What is the <part> interval of {e}?|"
        "At what interval is the <part> of {e} replaced?|When does the <part> of {e} go?|"
        "How long may the <part> of {e} stay in?|When must the <part> of {e} be changed?|"
        "How often is the <part> on {e} to be exchanged?|{E}: how often a new <part>?|"
        "Tell me how often to change the <part> of {e}.|When is it time for a new <part> on {e}?|"
        "How regularly must I renew the <part> of {e}?|<part> of {e}: replaced how often?|"
        "After how long is the <part> of {e} replaced?|Say when to replace the <part> on {e}.|"
        "Wie oft wird <part> bei {e} gewechselt?|"
        "How often should I replace the <part> on {e}?|How frequently is the <part> of {e} changed?"
        "|When do I have to put a new <part> into {e}?|What is the change interval for the <part> "
        "of {e}?",
        part=part,
    )


def _alarm(draw: Draw) -> Attribute:
    mark = draw.choice("EFAW") + draw.choice(("", "-")) + str(draw.randint(1, 999))
    word = draw.choice(("alarm", "error", "fault code", "code", "warning"))
    return _told(
        mark,
        lambda d: f"{d.choice(ADJECTIVES)} {d.choice(PARTS + NOUNS)}",
        "<big> <mark> on {e} means {v}.|On {e}, <word> <mark> means {v}.|"
        "<big> <mark> on {e} indicates {v}.|<big> <mark> of {e}: {v}.",
        "<big> <mark> means {v}.|<mark> indicates {v}.|<big> <mark>: {v}.",
        "What does <word> <mark> mean on {e}?|What does <mark> on {e} mean?|"
        "{E} shows <mark>. What does it mean?|What is <word> <mark> on {e}?|"
        "What does <mark> stand for on {e}?|{E} reports <mark>. What is it?|"
        "Explain <word> <mark> of {e}.|What is behind <word> <mark> on {e}?|"
        "What is wrong when {e} shows <mark>?|I see <mark> on {e}. What is that?|"
        "What does {e} want to say with <mark>?|<mark> on {e}: meaning?|{E}: what is <mark>?|"
        "What does it mean when {e} gives <word> <mark>?|Tell me what <mark> means on {e}.|"
        "Which fault is <mark> on {e}?|What has happened if {e} shows <word> <mark>?|"
        "There is <word> <mark> on {e}. What is wrong?|Was bedeutet <mark> bei {e}?|"
        "Que veut dire <mark> sur {e} ?|"
        "What is the meaning of <word> <mark> on {e}?|{E} displays <mark>. Why?|"
        "What does <word> <mark> indicate on {e}?|What problem does <mark> on {e} point to?",
        mark=mark,
        word=word,
        big=capitalised(word),
    )


def _builder(_draw: Draw) -> Attribute:
    return _told(
        "builder",
        values.person,
        "{V} built {e}.|{E} was built by {v}.|{V} designed and built {e}.",
        "It was built by {v}.|{V} built it.",
        "Who built {e}?|By whom was {e} built?|Name the builder of {e}.|Who has built {e}?|"
        "Which person built {e}?|Who made {e} with their own hands?|{E} was built by whom?|"
        "Whose work is {e}?|Tell me who built {e}.|What is the name of the builder of {e}?|"
        "Builder of {e}?|Who is {e}'s builder?|Do you know who built {e}?|Who put {e} together?|"
        "Say who built {e}.|Who did build {e}?|To whom do we owe {e}?|{E}: builder?|"
        "Wer hat {e} gebaut?|Qui a construit {e} ?|"
        "Who was the builder of {e}?|Who constructed {e}?|By what person was {e} built?|"
        "Who is the person that built {e}?",
    )


def _year(_draw: Draw) -> Attribute:
    return _told(
        "installation year",
        lambda d: str(d.randint(1850, 2039)),
        "{E} was installed in {v}.|{E} was put into service in {v}.|In {v}, {e} was built.",
        "It was installed in {v}.|It entered service in {v}.",
        "When was {e} installed?|What year was {e} put into service?|When was {e} built?|"
        "In what year did {e} enter service?|When did {e} enter service?|{E} dates from when?|"
        "What is the year of {e}?|How far back does {e} go?|When did {e} start work?|"
        "Which year is {e} from?|What is the installation year of {e}?|{E}: year?|"
        "Since when is {e} in service?|Tell me when {e} was installed.|When was {e} put up?|"
        "From what year is {e}?|When did they install {e}?|Year of installation of {e}?|"
        "Wann wurde {e} gebaut?|¿De qué año es {e}?|"
        "In which year was {e} installed?|Since what year has {e} been in use?|"
        "When was {e} taken into service?|In what year was {e} set up?",
    )


def _stop(_draw: Draw) -> Attribute:
    return _told(
        "stop condition",
        lambda d: f"the {d.choice(PARTS + NOUNS)} is {d.choice(ADJECTIVES)}",
        "{E} stops when {v}.|{E} shuts down if {v}.|When {v}, {e} stops.",
        "It stops when {v}.|It shuts down if {v}.",
        "When does {e} stop?|What makes {e} stop?|When will {e} stop?|What stops {e}?|"
        "Under which condition does {e} stop?|In which case does {e} shut down?|"
        "What is the stop condition of {e}?|What shuts {e} down?|If what happens does {e} stop?|"
        "What has to happen for {e} to stop?|{E} stops on what?|Why would {e} stop?|"
        "Tell me when {e} stops.|What leads to a stop of {e}?|What turns {e} off?|"
        "When is {e} stopped?|What switches {e} off?|{E}: when does it stop?|"
        "Wann hält {e} an?|Quand {e} s'arrête-t-il ?|"
        "When does {e} shut down?|What brings {e} to a stop?|In what situation does {e} stop?|"
        "What causes {e} to shut down?",
    )


def _tool(draw: Draw) -> Attribute:
    task = f"{draw.choice(VERBS)} the {draw.choice(PARTS)}"
    return _told(
        f"tool to {task}",
        lambda d: f"a {values.noun_phrase(d, 1, 2)}",
        "Use {v} to <task> of {e}.|To <task> of {e}, use {v}.|{V} is used to <task> of {e}.",
        "Use {v} to <task>.",
        "What should I use to <task> of {e}?|Which tool do I need to <task> of {e}?|"
        "What do I need to <task> of {e}?|With what do I <task> of {e}?|"
        "What tool is right to <task> of {e}?|I want to <task> of {e}. What do I take?|"
        "Which tool serves to <task> of {e}?|What must I have to <task> of {e}?|"
        "Name the tool to <task> of {e}.|To <task> of {e}, what do I need?|"
        "What do you use to <task> of {e}?|What helps to <task> of {e}?|"
        "What do I take along to <task> of {e}?|Tell me what to use to <task> of {e}.|"
        "What is needed to <task> of {e}?|By means of what does one <task> of {e}?|"
        "What does it take to <task> of {e}?|{E}: what do I use to <task>?|"
        "Which thing do I <task> of {e} with?|Say which tool is used to <task> of {e}.|"
        "What is used to <task> of {e}?|What is the tool to <task> of {e}?|"
        "Which tool should be used to <task> of {e}?|What will I need if I <task> of {e}?",
        task=task,
    )


def _made_of(draw: Draw) -> Attribute:
    part = draw.choice(PARTS)
    return _told(
        f"{part} material",
        lambda d: d.choice(MATERIALS),
        "The <part> of {e} is made of {v}.|{E} has a <part> made of {v}.|"
        "The <part> on {e} consists of {v}.",
        "The <part> is made of {v}.|Its <part> is made of {v}.",
        "What is the <part> of {e} made of?|What is the material of the <part> of {e}?|"
        "What does the <part> of {e} consist of?|Of what is the <part> of {e} made?|"
        "What material does the <part> of {e} have?|{E}: what is the <part> made from?|"
        "What is the <part> material of {e}?|Which material was taken for the <part> of {e}?|"
        "Material of the <part> of {e}?|What is used as material for the <part> of {e}?|"
        "What kind of <part> does {e} have?|Tell me what the <part> of {e} is made of.|"
        "From which material is the <part> on {e}?|Name the material of the <part> on {e}.|"
        "What stuff is the <part> of {e}?|Is the <part> of {e} made of metal, or what?|"
        "In which material does {e} have its <part>?|What did they make the <part> of {e} from?|"
        "Woraus besteht <part> von {e}?|En quoi est <part> de {e} ?|"
        "Which material is the <part> of {e} made of?|What was the <part> of {e} made out of?|"
        "What are we dealing with in the <part> of {e}: which material?|"
        "The <part> of {e} is of which material?",
        part=part,
    )


def _maker(_draw: Draw) -> Attribute:
    return _told(
        "maker",
        values.organisation,
        "{E} is made by {v}.|{V} makes {e}.|{V} is the maker of {e}.",
        "It is made by {v}.",
        "Who makes {e}?|Which company makes {e}?|Who made {e}?|By which company is {e} made?|"
        "What company is {e} from?|Name the maker of {e}.|Where does {e} come from?|"
        "Which firm makes {e}?|What is the make of {e}?|Maker of {e}?|{E}: made by whom?|"
        "Who is behind {e}?|What is the name of the maker of {e}?|Tell me who makes {e}.|"
        "By whom is {e} made?|Which maker does {e} have?|Who are the makers of {e}?|"
        "From whom is {e}?|Wer stellt {e} her?|Qui fabrique {e} ?|"
        "Who is the maker of {e}?|Which manufacturer made {e}?|What firm is {e} made by?|"
        "Who manufactures {e}?",
    )


def _count(draw: Draw) -> Attribute:
    part = draw.choice(PARTS)
    return _told(
        f"number of {part}s",
        lambda d: str(d.randint(1, 99)),
        "{E} has {v} <part>s.|There are {v} <part>s on {e}.|{E} is fitted with {v} <part>s.",
        "It has {v} <part>s.|There are {v} <part>s.",
        "How many <part>s does {e} have?|How many <part>s are on {e}?|"
        "What is the number of <part>s of {e}?|How many <part>s has {e}?|"
        "How many <part>s are fitted to {e}?|Number of <part>s on {e}?|"
        "How many <part>s belong to {e}?|With how many <part>s is {e} fitted?|{E}: <part>s?|"
        "How many <part>s do I find on {e}?|Tell me the number of <part>s on {e}.|"
        "How many <part>s does {e} come with?|Count the <part>s of {e}.|{E} has what number of "
        "<part>s?|How many of the <part>s are there at {e}?|Say how many <part>s {e} has.|"
        "What number of <part>s is on {e}?|How many <part>s must I order for {e}?|"
        "Wie viele <part>s hat {e}?|Combien de <part>s a {e} ?|"
        "How many <part>s are there on {e}?|How many <part>s can be found on {e}?|"
        "What count of <part>s does {e} have?|{E} is equipped with how many <part>s?",
        part=part,
    )


def _cause(draw: Draw) -> Attribute:
    effect = f"{draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}"
    return _told(
        f"cause of {effect}",
        lambda d: f"a {d.choice(ADJECTIVES)} {d.choice(PARTS + NOUNS)}",
        "<big> on {e} is caused by {v}.|{V} causes <effect> on {e}.|"
        "On {e}, <effect> comes from {v}.",
        "<big> is caused by {v}.",
        "What causes <effect> on {e}?|Why is there <effect> on {e}?|"
        "Where does <effect> on {e} come from?|By what is <effect> on {e} caused?|"
        "What leads to <effect> on {e}?|What is behind <effect> on {e}?|"
        "What is to blame for <effect> on {e}?|How does <effect> on {e} come about?|"
        "Why does {e} have <effect>?|{E} has <effect>. Why?|Name the cause of <effect> at {e}.|"
        "There is <effect> on {e}. What from?|What makes <effect> appear on {e}?|"
        "What brings <effect> about on {e}?|Tell me why there is <effect> on {e}.|"
        "<big> on {e}: from what?|What results in <effect> on {e}?|"
        "What can <effect> on {e} come from?|Woher kommt <effect> bei {e}?|"
        "D'où vient <effect> sur {e} ?|"
        "What is the cause of <effect> on {e}?|What is the reason for <effect> on {e}?|"
        "Due to what is there <effect> on {e}?|How can <effect> on {e} be explained?",
        effect=effect,
        big=capitalised(effect),
    )


def _remedy(draw: Draw) -> Attribute:
    state = f"{draw.choice(PARTS + NOUNS)} is {draw.choice(ADJECTIVES)}"
    return _told(
        f"remedy when the {state}",
        values.step,
        "If the <state> on {e}, {v}.|When the <state> on {e}, {v}.",
        "If the <state>, {v}.",
        "What should I do if the <state> on {e}?|The <state> on {e}. What should I do?|"
        "What do I do when the <state> on {e}?|What is to be done if the <state> on {e}?|"
        "What helps when the <state> on {e}?|How do I react if the <state> on {e}?|"
        "On {e} the <state>. What now?|What is the remedy if the <state> on {e}?|"
        "The <state> on {e}: what next?|What comes first when the <state> on {e}?|"
        "I notice that the <state> on {e}. What do I do?|If the <state> on {e}, what then?|"
        "What must be done should the <state> on {e}?|{E}: the <state>. Help!|"
        "How is it put right when the <state> on {e}?|Tell me what to do when the <state> on {e}.|"
        "What would you do if the <state> on {e}?|Which step follows if the <state> on {e}?|"
        "How to proceed if the <state> on {e}?|Say what helps if the <state> on {e}.|"
        "What must I do when the <state> on {e}?|Which action is needed if the <state> on {e}?|"
        "How should I respond when the <state> on {e}?|What does one do if the <state> on {e}?",
        state=state,
    )


def _driver(_draw: Draw) -> Attribute:
    return _told(
        "drive",
        lambda d: d.choice((f"the {values.noun_phrase(d, 1, 2)}", values.made_up_name(d))),
        "{E} is driven by {v}.|{V} drives {e}.",
        "It is driven by {v}.",
        "What drives {e}?|How is {e} driven?|By what is {e} driven?|Who or what drives {e}?|"
        "What is the drive of {e}?|What moves {e}?|From what does {e} get its drive?|"
        "What sets {e} in motion?|What turns {e}?|Name the drive of {e}.|{E}: driven by?|"
        "Which drive does {e} have?|What powers {e}?|What keeps {e} going?|"
        "What gives {e} its power?|Tell me what drives {e}.|What is behind the motion of {e}?|"
        "What makes {e} run?|Was treibt {e} an?|Qu'est-ce qui entraîne {e} ?|"
        "What is {e} driven by?|What serves as the drive for {e}?|Through what is {e} driven?|"
        "What makes {e} move?",
    )


def procedure_attribute(draw: Draw) -> Attribute:
    """Draw a task whose steps are the value."""
    task = f"{draw.choice(VERBS)} the {draw.choice(PARTS)}"
    return _told(
        task,
        lambda d: d.choice(("; ", "\n")).join(
            f"{n}. {values.step(d)}" for n in range(1, d.randint(2, 4) + 1)
        ),
        "To <task> of {e}: {v}.|Procedure to <task> of {e}: {v}.|How to <task> of {e}: {v}.",
        "To <task>: {v}.",
        "How do I <task> of {e}?|What are the steps to <task> of {e}?|"
        "List the steps to <task> of {e}.|How does one <task> of {e}?|"
        "What is the procedure to <task> of {e}?|In which steps do I <task> of {e}?|"
        "Tell me how to <task> of {e}.|What do I do to <task> of {e}?|"
        "I have to <task> of {e}. What are the steps?|Steps to <task> of {e}?|"
        "Show me how to <task> of {e}.|How should I <task> of {e}?|{E}: how do I <task>?|"
        "Explain how to <task> of {e}.|How can we <task> of {e}?|"
        "Which steps does it take to <task> of {e}?|I want to <task> of {e}. How?|"
        "Give me the procedure to <task> of {e}.|How must I <task> of {e}?|"
        "Name the steps to <task> of {e}.|"
        "How to <task> of {e}?|What steps must I follow to <task> of {e}?|"
        "Describe how to <task> of {e}.|How would you <task> of {e}?",
        kind="procedure",
        task=task,
    )


_KINDS: tuple[Callable[[Draw], Attribute], ...] = (
    _alarm, _alarm, _builder, _cause, _count, _driver, _interval, _location, _made_of, _maker,
    _remedy, _stop, _tool, _year,
)  # fmt: skip
