"""Questions put together from parts, so that training sees more wordings than one can list."""

from __future__ import annotations

from .draw import Draw
from .lexicon import ADJECTIVES, NOUNS, VERBS

__all__ = ["composed_question"]

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
        (50, lambda: _request(draw)),
        (20, lambda: f"{draw.choice(_ABOUT)} {{e}}. {draw.choice(_ITS)}{_end(draw)}"),
        (10, lambda: f"{{E}}{draw.choice((' / ', ': ', '; ', ' ... ', ' = '))}{{a}}{_end(draw)}"),
        (10, lambda: f"{{A}} {draw.choice(_LINKS)} {{e}}{_end(draw)}"),
        (10, lambda: f"{_noise(draw)} {{e}} {_noise(draw)} {{a}}{_end(draw)}"),
    )
    return f"{_noise(draw)} {template}" if draw.chance(0.1) else template


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
