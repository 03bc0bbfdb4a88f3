"""Ask about the invented plant: training questions and held-out ones, with gold passages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from plant_devices import ATTRIBUTES, KINDS, Device, twin_tag

__all__ = ["ask_held_out", "ask_training"]

_TRAINING_WORDINGS = (
    "What is the {a} of {e}?",
    "What is the {a} for {e}?",
    "{E}: what is the {a}?",
    "Tell me the {a} of {e}.",
    "Give the {a} for {e}.",
    "What {a} does {e} have?",
    "State the {a} of {e}.",
    "I need the {a} of {e}.",
    "{A} of {e}?",
    "Look up the {a} of {e}.",
    "Which {a} is given for {e}?",
    "Please name the {a} of {e}.",
)
_HELD_OUT_WORDINGS = (
    "Which {a} does {e} have?",
    "For {e}, what is the {a}?",
    "What is {e}'s {a}?",
    "What {a} is specified for {e}?",
    "What does the manual say about the {a} of {e}?",
    "What should the {a} of {e} be?",
    "On {e}, what is the {a}?",
    "I am at {e} and need its {a}.",
)

Record = dict[str, Any]
Places = Mapping[tuple[str, str], str]


def ask_training(
    devices: Sequence[Device], places: Places, rng: random.Random, *, again: int, unanswerable: int
) -> list[Record]:
    """Ask every fact of the devices that are not held out once, and some of them again.

    Args:
        devices: All devices of the plant.
        places: Where each fact stands.
        rng: Source of chance.
        again: How many facts are asked a second time, in another wording.
        unanswerable: How many questions the papers cannot answer.
    """
    asked = [device for device in devices if not device.held_out]
    facts = [(device, name) for device in asked for name in device.values]
    facts += rng.sample(facts, again)
    return _ask("train", devices, asked, facts, places, rng, _TRAINING_WORDINGS, unanswerable)


def ask_held_out(
    devices: Sequence[Device],
    places: Places,
    rng: random.Random,
    *,
    answerable: int,
    unanswerable: int,
) -> list[Record]:
    """Ask about held-out devices, in wordings that no training question has."""
    asked = [device for device in devices if device.held_out]
    facts = [(device, name) for device in asked for name in device.values]
    chosen = rng.sample(facts, answerable)
    return _ask("dev", devices, asked, chosen, places, rng, _HELD_OUT_WORDINGS, unanswerable)


def _ask(
    split: str,
    devices: Sequence[Device],
    asked: Sequence[Device],
    facts: Sequence[tuple[Device, str]],
    places: Places,
    rng: random.Random,
    wordings: Sequence[str],
    unanswerable: int,
) -> list[Record]:
    records: list[Record] = []
    texts: set[str] = set()

    def word(kind: str, tag: str, name: str) -> str | None:
        """Word a question in a way that is not taken; ``None`` once all are."""
        mentions = [f"{kind} {tag}", tag]
        ways = [(wording, mention) for wording in wordings for mention in mentions]
        for wording, mention in rng.sample(ways, len(ways)):
            capital = mention[:1].upper() + mention[1:]
            text = wording.format(a=name, A=name[:1].upper() + name[1:], e=mention, E=capital)
            text = text[:1].upper() + text[1:]
            if text not in texts:
                texts.add(text)
                return text
        return None

    for device, name in facts:
        value = device.values[name]
        text = word(device.kind, device.tag, name)
        if text is not None:
            records.append(
                {
                    "question": text,
                    "answers": [value],
                    "gold_ids": [places[device.tag, name]],
                    "reference": f"{value} | {ATTRIBUTES[name].code}",
                    "metadata": {"device": device.tag, "attribute": name},
                }
            )
    for kind, tag, name, reason in _missing(split, devices, asked, rng, unanswerable):
        text = word(kind, tag, name)
        if text is not None:
            records.append(
                {
                    "question": text,
                    "answers": [],
                    "gold_ids": [],
                    "metadata": {"device": tag, "attribute": name, "missing": reason},
                }
            )
    rng.shuffle(records)
    return [{"id": f"{split}-{n:03d}", **record} for n, record in enumerate(records, start=1)]


def _missing(
    split: str,
    devices: Sequence[Device],
    asked: Sequence[Device],
    rng: random.Random,
    count: int,
) -> list[tuple[str, str, str, str]]:
    """Choose (kind, tag, attribute, reason) that no paper states; half of each reason.

    Devices that are not there have a tag one digit apart from one that is. Odd last digits are
    kept for training and even ones for the held-out questions, so that no invented tag is asked
    about in both.
    """
    tags = {device.tag for device in devices}
    chosen: list[tuple[str, str, str, str]] = []
    while len(chosen) < count:
        device = rng.choice(asked)
        if len(chosen) % 2:
            absent = [name for name in KINDS[device.kind][2] if name not in device.values]
            entry = (device.kind, device.tag, rng.choice(absent), "attribute")
        else:
            tag = twin_tag(device.tag, rng)
            if tag in tags or (int(tag[-1]) % 2 == 1) != (split == "train"):
                continue
            entry = (device.kind, tag, rng.choice(list(device.values)), "device")
        if entry not in chosen:
            chosen.append(entry)
    return chosen
