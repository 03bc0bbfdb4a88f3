"""The invented Norrvik plant: its devices, what is measured on them, and its house codes."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["ATTRIBUTES", "KINDS", "ROTATING", "Attribute", "Device", "invent_devices", "twin_tag"]


@dataclass(frozen=True)
class Attribute:
    """Something that is measured on a device.

    Attributes:
        name: Its name in the documents.
        code: The plant's house code. It stands in no document.
        unit: Its unit.
        qualifiers: Words that the documents may put before the name.
    """

    name: str
    code: str
    unit: str
    qualifiers: tuple[str, ...] = ()


ATTRIBUTES = {
    attribute.name: attribute
    for attribute in (
        Attribute("discharge pressure", "PDIS", "bar", ("rated", "nominal")),
        Attribute("suction pressure", "PSUC", "bar", ("minimum",)),
        Attribute("steam pressure", "PSTM", "bar", ("operating", "rated")),
        Attribute("oil temperature", "TOIL", "°C", ("normal",)),
        Attribute("bearing temperature", "TBRG", "°C", ("normal",)),
        Attribute("shaft speed", "NSHF", "rpm", ("rated", "nominal")),
        Attribute("motor power", "WMOT", "kW", ("rated",)),
        Attribute("supply voltage", "USUP", "V", ("nominal",)),
        Attribute("flow rate", "QFLO", "m3/h", ("design", "rated")),
        Attribute("tightening torque", "MTGT", "Nm", ("specified",)),
        Attribute("service interval", "ZSRV", "hours", ("recommended",)),
        Attribute("noise level", "LNOI", "dB", ("average",)),
        Attribute("net weight", "GNET", "kg", ()),
        Attribute("tank volume", "VTNK", "L", ("total",)),
        Attribute("vibration level", "AVIB", "mm/s", ("normal",)),
        Attribute("belt speed", "VBLT", "m/s", ("normal",)),
    )
}

_RANGES: dict[str, tuple[float, float, float]] = {
    "discharge pressure": (4, 64, 0.2),
    "suction pressure": (0.4, 3.8, 0.1),
    "steam pressure": (6, 24, 0.5),
    "oil temperature": (42, 88, 1),
    "bearing temperature": (48, 96, 1),
    "shaft speed": (480, 2980, 10),
    "motor power": (1.5, 250, 0.5),
    "supply voltage": (230, 690, 10),
    "flow rate": (12, 640, 4),
    "tightening torque": (18, 420, 2),
    "service interval": (500, 9000, 250),
    "noise level": (58, 94, 1),
    "net weight": (24, 4800, 4),
    "tank volume": (20, 12000, 20),
    "vibration level": (0.6, 7.8, 0.1),
    "belt speed": (0.2, 2.4, 0.1),
}

_COMMON = ("service interval", "tightening torque", "net weight", "noise level")
_DRIVEN = ("shaft speed", "motor power", "bearing temperature", "vibration level")

KINDS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "pump": (
        "P",
        4,
        (*_COMMON, *_DRIVEN, "discharge pressure", "suction pressure", "flow rate"),
    ),
    "motor": ("M", 3, (*_COMMON, *_DRIVEN, "supply voltage", "oil temperature")),
    "compressor": (
        "K",
        3,
        (*_COMMON, *_DRIVEN, "discharge pressure", "suction pressure", "oil temperature"),
    ),
    "fan": ("F", 3, (*_COMMON, *_DRIVEN, "flow rate", "supply voltage")),
    "gearbox": ("G", 3, (*_COMMON, *_DRIVEN, "oil temperature", "tank volume")),
    "mixer": ("MX", 2, (*_COMMON, *_DRIVEN, "tank volume", "oil temperature")),
    "valve": ("V", 4, (*_COMMON, "flow rate", "steam pressure", "supply voltage")),
    "boiler": (
        "B",
        2,
        (*_COMMON, "steam pressure", "flow rate", "tank volume", "motor power", "supply voltage"),
    ),
    "chiller": (
        "CH",
        2,
        (*_COMMON, "discharge pressure", "suction pressure", "oil temperature", "motor power"),
    ),
    "conveyor": (
        "CV",
        3,
        (*_COMMON, "belt speed", "motor power", "supply voltage", "vibration level"),
    ),
    "heat exchanger": ("HE", 3, (*_COMMON, "steam pressure", "flow rate", "tank volume")),
    "tank": ("T", 3, (*_COMMON, "tank volume", "flow rate", "discharge pressure")),
}
"""Kind of device: letters of its tag, digits of its tag, what may be measured on it."""

ROTATING = ("pump", "motor", "compressor", "fan", "gearbox", "mixer")
"""The kinds that the rotating-machines papers are about; the others have papers of their own."""


@dataclass(frozen=True)
class Device:
    """A device of the plant.

    Attributes:
        tag: Its code, such as ``P-4471``.
        kind: What it is.
        index: Its number among the devices of its kind, from 0; it decides which papers hold it.
        values: Attribute name to value with unit.
        held_out: No training question asks about it.
    """

    tag: str
    kind: str
    index: int
    values: dict[str, str]
    held_out: bool

    @property
    def name(self) -> str:
        """Kind and tag, such as ``pump P-4471``."""
        return f"{self.kind} {self.tag}"


def twin_tag(tag: str, rng: random.Random) -> str:
    """Change one digit of a tag."""
    places = [i for i, character in enumerate(tag) if character.isdigit()]
    place = rng.choice(places)
    digit = rng.choice([d for d in "123456789" if d != tag[place]])
    return tag[:place] + digit + tag[place + 1 :]


def invent_devices(rng: random.Random, *, per_kind: int = 7) -> list[Device]:
    """Invent the devices; about half of the tags are one digit apart from another one."""
    devices: list[Device] = []
    taken: set[str] = set()
    for number, (kind, (letters, digits, measured)) in enumerate(KINDS.items()):
        tags: list[str] = []
        while len(tags) < per_kind:
            if len(tags) % 2:
                tag = twin_tag(tags[-1], rng)
            else:
                tag = f"{letters}-{rng.randint(10 ** (digits - 1), 10**digits - 1)}"
            if tag not in taken:
                taken.add(tag)
                tags.append(tag)
        # a different pair of papers is held out for each kind, so that every sort of paper is
        held_out = {number % per_kind, (number + 3) % per_kind}
        for index, tag in enumerate(tags):
            chosen = rng.sample(measured, min(rng.choice((6, 7)), len(measured) - 1))
            values = _invent_values([name for name in measured if name in chosen], rng)
            devices.append(Device(tag, kind, index, values, index in held_out))
    return devices


def _invent_values(names: list[str], rng: random.Random) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in names:
        low, high, step = _RANGES[name]
        decimals = 1 if step < 1 else 0
        while True:
            amount = low + step * rng.randint(0, round((high - low) / step))
            value = f"{amount:.{decimals}f} {ATTRIBUTES[name].unit}"
            if value not in values.values():
                break
        values[name] = value
    return values
