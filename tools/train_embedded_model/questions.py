"""Questions put together from parts, so that training sees more wordings than one can list."""

from __future__ import annotations

from .draw import Draw
from .lexicon import ADJECTIVES, NOUNS, PARTICIPLES, VERBS
from .values import capitalised

__all__ = ["composed_question", "with_lead"]

_LEADS = (
    "", "", "", "Please", "Quick question:", "For the report:", "For my notes,", "Help me:",
    "One more thing:", "Hello,", "As written there,", "In short,", "From these texts,", "Now",
    "We need this:", "My colleague asks:", "Before I start,", "On the sheet,", "By the book,",
)  # fmt: skip
_REQUESTS = (
    "tell me", "say", "name", "show me", "write down", "report", "check", "give me", "confirm",
    "read out", "let me know", "what is", "what was", "what would be", "what about", "list",
    "what value is", "what exactly is", "is there", "I would like", "I have to write", "which is",
)  # fmt: skip
_LINKS = (
    "of", "of", "of", "for", "for", "on", "at", "with", "in", "belonging to", "listed for",
    "valid for", "recorded for", "set for", "known for", "stated for", "that goes with",
    "shown for", "written for", "under", "beside",
)  # fmt: skip
_ABOUT = (
    "I stopped at", "I am looking at", "This is about", "We have", "Next is", "I ordered",
    "They asked about", "We run", "I am repairing", "On my desk is", "Take",
)  # fmt: skip
_PLACES = ("at", "near", "beside", "under", "with", "for", "behind", "around", "inside", "on")
_CARRIERS = tuple(noun for noun in NOUNS if noun not in ("value", "paper", "table"))
"""Nouns that make no held-out wording."""
_ITS = (
    "What {a} does it have", "Give me its {a}", "Its {a}", "Which {a} is right", "I need its {a}",
    "Tell me its {a}", "What {a} is written there", "What would its {a} be", "Name the {a}",
)  # fmt: skip


def composed_question(draw: Draw) -> str:
    """Put a question template with ``{e}`` and ``{a}`` together.

    Now and then a few words that mean nothing are part of it: a reader should find the names in
    a question whatever stands around them.
    """
    template = draw.pick(
        (40, lambda: _request(draw)),
        (30, lambda: _carried(draw)),
        (20, lambda: f"{draw.choice(_ABOUT)} {{e}}. {draw.choice(_ITS)}{_end(draw)}"),
        (10, lambda: f"{{E}}{draw.choice((' / ', ': ', '; ', ' ... ', ' = '))}{{a}}{_end(draw)}"),
        (10, lambda: f"{{A}} {draw.choice(_LINKS)} {{e}}{_end(draw)}"),
        (10, lambda: f"{_noise(draw)} {{e}} {_noise(draw)} {{a}}{_end(draw)}"),
    )
    return f"{_noise(draw)} {template}" if draw.chance(0.1) else template


def _carried(draw: Draw) -> str:
    """A question whose other words are drawn from the lexicon: "What do the maps turn as ...?"."""
    noun, verb = draw.choice(_CARRIERS), draw.choice(VERBS)
    template = draw.choice(
        (
            f"What do the {noun}s {verb} as {{a}} {{l}} {{e}}",
            f"What does {noun} {draw.randint(1, 99)} {verb} as the {{a}} {{l}} {{e}}",
            f"Which {{a}} was {draw.choice(PARTICIPLES)} {{l}} {{e}}",
            f"What was {draw.choice(PARTICIPLES)} as the {{a}} {{l}} {{e}}",
            f"What is the {{a}} {noun} {{l}} {{e}}",
            f"What was the {{a}} {noun} {{l}} {{e}}",
            f"I {verb} the {noun} {draw.choice(_PLACES)} {{e}}. {draw.choice(_ITS)}",
            f"I {verb} {draw.choice(_PLACES)} {{e}}. {draw.choice(_ITS)}",
            f"{{E}} {verb}s which {{a}}",
            f"{{E}} must {verb} at what {{a}}",
            f"{capitalised(verb)} the {{a}} {{l}} {{e}}",
            f"{capitalised(verb)} up the {{a}} {{l}} {{e}}",
            f"{capitalised(verb)} the {noun} for the {{a}} {{l}} {{e}}",
            f"Does the {noun} {verb} the {{a}} {{l}} {{e}}",
            f"Could you {verb} the {{a}} {{l}} {{e}}",
        )
    )
    return template.replace("{l}", draw.choice(_LINKS)) + _end(draw)


def with_lead(draw: Draw, template: str) -> str:
    """Put a few words before a question template: "For the report: who built {e}?"."""
    lead = draw.choice(_LEADS)
    if not lead:
        return template
    return f"{lead} {template[:1].lower()}{template[1:]}"


def _request(draw: Draw) -> str:
    lead, request = draw.choice(_LEADS), draw.choice(_REQUESTS)
    article = draw.choice(("the ", "the ", "the ", ""))
    names = f"{article}{{a}} {draw.choice(_LINKS)} {{e}}"
    if draw.chance(0.15):
        names = f"for {{e}} {article}{{a}}"
    return f"{lead} {request} {names}{_end(draw)}".strip()


def _noise(draw: Draw) -> str:
    words = (draw.choice(NOUNS + VERBS + ADJECTIVES) for _ in range(draw.randint(1, 3)))
    return " ".join(words)


def _end(draw: Draw) -> str:
    return draw.choice(("?", "?", "?", ".", "", ", please.", "?"))
