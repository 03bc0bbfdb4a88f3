"""Write the papers of the invented plant, and remember which passage states which fact."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from office_files import Paragraph, Table, docx_bytes, pdf_bytes, xlsx_bytes
from plant_devices import ATTRIBUTES, ROTATING, Device

__all__ = ["Papers", "write_papers"]

_STATEMENTS = (
    "The {a} of {e} is {v}.",
    "{E} has a {a} of {v}.",
    "The {a} for {e} is {v}.",
    "For {e}, the {a} is {v}.",
    "On {e}, the {a} is {v}.",
    "The {a} of {e} must be {v}.",
)
_FOLLOWING = (
    "Its {a} is {v}.",
    "The {a} is {v}.",
    "It has a {a} of {v}.",
    "The {a} is specified as {v}.",
)
_OPERATION = (
    "suction pressure",
    "discharge pressure",
    "steam pressure",
    "flow rate",
    "shaft speed",
    "belt speed",
    "motor power",
    "supply voltage",
)
_WEIGHED = ("net weight", "tightening torque")
_AREAS = (
    ("bottling-hall", "Bottling hall manual", ("pump", "motor", "conveyor", "valve")),
    ("steam-house", "Steam house manual", ("boiler", "fan", "heat exchanger", "tank")),
    ("utilities", "Utilities manual", ("compressor", "chiller", "gearbox", "mixer")),
)
_DUTY = {
    "pump": ("moves rinse water to the bottle washer", "feeds water to the steam house"),
    "motor": ("drives the filling carousel", "drives the cap feeder"),
    "compressor": ("supplies control air to the valves", "supplies air to the bottle blower"),
    "fan": ("brings combustion air to the burner", "draws moist air out of the hall"),
    "gearbox": ("drives the agitator of the syrup room", "drives the infeed star wheel"),
    "mixer": ("blends syrup and water", "keeps the sugar solution moving"),
    "valve": ("closes the rinse water line", "shuts the steam line to the washer"),
    "boiler": ("makes steam for the pasteuriser", "makes steam for the bottle washer"),
    "chiller": ("cools the syrup before filling", "cools the control cabinets"),
    "conveyor": ("carries empty bottles to the filler", "carries crates to the store"),
    "heat exchanger": ("warms the rinse water with steam", "recovers heat from the condensate"),
    "tank": ("holds condensate", "holds treated water"),
}
_BEFORE = (
    "Close the guard before you start it.",
    "Check the oil level before each start.",
    "Open the drain plug and let it run dry after a long stop.",
    "Stop the device at once if you hear an unusual noise.",
)
_UPKEEP = (
    "Isolate and lock the supply before you open the cover.",
    "Clean the housing with a dry cloth once a week.",
    "Replace the gasket each time the cover is opened.",
    "Write the date of the work on the label.",
)


@dataclass
class Papers:
    """The papers and what they state.

    Attributes:
        files: Relative path to content.
        places: (tag, attribute name) to the passage that states it, in the form
            ``path#section`` or ``path#row key``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, path: str, content: bytes | str) -> None:
        """Keep a file."""
        self.files[path] = content if isinstance(content, bytes) else content.encode()

    def state(self, device: Device, names: Sequence[str], place: str) -> None:
        """Remember where facts of a device stand."""
        for name in names:
            if (device.tag, name) in self.places:
                raise ValueError(f"{device.tag}: the {name} is stated twice")
            self.places[device.tag, name] = place


def write_papers(devices: Sequence[Device], rng: random.Random) -> Papers:
    """Write every paper of the plant.

    A device's number among its kind decides where it is described: 0 and 1 in a manual, 2 in a
    Word data sheet, 3 in a web page, 4 in a text file or on a PDF page, 5 and 6 in an equipment
    table. Net weight and tightening torque of the devices of 0 to 3 stand in a table of their own.
    """
    papers = Papers()
    for stem, title, kinds in _AREAS:
        chosen = [d for kind in kinds for d in devices if d.kind == kind and d.index in (0, 1)]
        _write_manual(papers, f"manuals/{stem}.md", title, chosen, rng)
    for stem, title, rotating in (
        ("rotating-machines", "Data sheets: rotating machines", True),
        ("vessels-and-lines", "Data sheets: vessels and lines", False),
    ):
        group = [d for d in devices if (d.kind in ROTATING) is rotating]
        at = {i: [d for d in group if d.index == i] for i in range(7)}
        _write_docx(papers, f"data-sheets/{stem}.docx", title, at[2])
        _write_html(papers, f"data-sheets/{stem}.html", title, at[3])
        if rotating:
            for device in at[4]:
                _write_txt(papers, device)
            _write_csv(papers, f"tables/{stem}.csv", at[5] + at[6])
        else:
            _write_pdf(papers, "data-sheets/inspection-sheets.pdf", "Inspection sheets", at[4])
            _write_xlsx(papers, f"tables/{stem}.xlsx", at[5] + at[6])
    _write_weights(papers, "tables/weights-and-torques.csv", [d for d in devices if d.index < 4])
    papers.add("manuals/house-rules.md", _HOUSE_RULES)
    return papers


def _write_manual(
    papers: Papers, path: str, title: str, devices: Sequence[Device], rng: random.Random
) -> None:
    lines = [f"# {title}", "", _INTRODUCTION, ""]
    for device in devices:
        heading = _capital(device.name)
        duty = _DUTY[device.kind][device.index % 2]
        lines += [f"## {heading}", "", f"{heading} {duty}. Only trained staff may work on it.", ""]
        stated = [name for name in device.values if name not in _WEIGHED]
        operation = [name for name in stated if name in _OPERATION]
        upkeep = [name for name in stated if name not in _OPERATION]
        for section, names, advice in (
            ("Operation", operation, _BEFORE),
            ("Maintenance", upkeep, _UPKEEP),
        ):
            if not names:
                continue
            rng.shuffle(names)
            sentences = [
                _sentence(device, name, first=i == 0, rng=rng) for i, name in enumerate(names)
            ]
            sentences.insert(rng.randint(1, len(sentences)), rng.choice(advice))
            lines += [f"### {section}", "", " ".join(sentences), ""]
            papers.state(device, names, f"{path}#{heading} > {section}")
    papers.add(path, "\n".join(lines))


def _sentence(device: Device, name: str, *, first: bool, rng: random.Random) -> str:
    qualifiers = ATTRIBUTES[name].qualifiers
    qualified = qualifiers and rng.random() < 0.3
    phrase = f"{rng.choice(qualifiers)} {name}" if qualified else name
    named = first or rng.random() < 0.35
    template = rng.choice(_STATEMENTS if named else _FOLLOWING)
    return template.format(a=phrase, v=device.values[name], e=device.name, E=_capital(device.name))


def _sheet_names(device: Device) -> list[str]:
    """What a data sheet states: all but what stands in the table of weights and torques."""
    return [n for n in device.values if device.index > 3 or n not in _WEIGHED]


def _sheet_lines(device: Device) -> list[str]:
    return [f"{_capital(name)}: {device.values[name]}" for name in _sheet_names(device)]


def _write_docx(papers: Papers, path: str, title: str, devices: Sequence[Device]) -> None:
    blocks: list[Paragraph | Table] = [
        Paragraph(title, heading=1),
        Paragraph("The values hold for normal operation. The makers' own sheets are kept on file."),
    ]
    for device in devices:
        heading = _capital(device.name)
        blocks.append(Paragraph(heading, heading=2))
        blocks.append(Paragraph(f"{heading} {_DUTY[device.kind][device.index % 2]}."))
        blocks += [Paragraph(line, bullet=True) for line in _sheet_lines(device)]
        papers.state(device, _sheet_names(device), f"{path}#{heading}")
    alarms = [("Colour", "Meaning"), *_LAMPS]
    blocks += [Paragraph("Signal lamps", heading=2), Table(alarms)]
    papers.add(path, docx_bytes(blocks))


def _write_html(papers: Papers, path: str, title: str, devices: Sequence[Device]) -> None:
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title} 2</title></head><body>',
        f"<h1>{title} 2</h1>",
        "<p>Printed from the plant's intranet. Values change only on written order.</p>",
    ]
    for device in devices:
        heading = _capital(device.name)
        items = "".join(f"<li>{line}</li>" for line in _sheet_lines(device))
        parts.append(f"<h2>{heading}</h2>")
        parts.append(f"<p>{heading} {_DUTY[device.kind][device.index % 2]}.</p><ul>{items}</ul>")
        papers.state(device, _sheet_names(device), f"{path}#{heading}")
    papers.add(path, "\n".join([*parts, "</body></html>", ""]))


def _write_txt(papers: Papers, device: Device) -> None:
    path = f"data-sheets/{device.tag}.txt"
    heading = _capital(device.name)
    body = [f"{heading} {_DUTY[device.kind][device.index % 2]}."]
    body += [f"- {line}" for line in _sheet_lines(device)]
    papers.add(path, "\n".join([f"Data sheet of {device.name}", "", *body, ""]))
    papers.state(device, _sheet_names(device), path)


def _write_pdf(papers: Papers, path: str, title: str, devices: Sequence[Device]) -> None:
    pages = []
    for number, device in enumerate(devices, start=1):
        heading = _capital(device.name)
        lines = [
            f"Inspection sheet of {device.name}",
            f"{heading} {_DUTY[device.kind][device.index % 2]}.",
            *_sheet_lines(device),
        ]
        pages.append(lines)
        papers.state(device, _sheet_names(device), f"{path}#Page {number}")
    papers.add(path, pdf_bytes(pages, title=title))


def _table(devices: Sequence[Device], names: Sequence[str]) -> list[list[str]]:
    header = ["Tag", "Kind", *(_capital(name) for name in names)]
    rows = [[d.tag, d.kind, *(d.values.get(name, "") for name in names)] for d in devices]
    return [header, *rows]


def _measured(devices: Sequence[Device]) -> list[str]:
    return [name for name in ATTRIBUTES if any(name in device.values for device in devices)]


def _csv(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _write_csv(papers: Papers, path: str, devices: Sequence[Device]) -> None:
    papers.add(path, _csv(_table(devices, _measured(devices))))
    for device in devices:
        papers.state(device, list(device.values), f"{path}#{device.tag}")


def _write_xlsx(papers: Papers, path: str, devices: Sequence[Device]) -> None:
    lines = ("conveyor", "valve")
    sheets = {
        "Vessels": [d for d in devices if d.kind not in lines],
        "Lines": [d for d in devices if d.kind in lines],
    }
    papers.add(
        path, xlsx_bytes({name: _table(group, _measured(group)) for name, group in sheets.items()})
    )
    for device in devices:
        papers.state(device, list(device.values), f"{path}#{device.tag}")


def _write_weights(papers: Papers, path: str, devices: Sequence[Device]) -> None:
    weighed = [d for d in devices if any(name in d.values for name in _WEIGHED)]
    papers.add(path, _csv(_table(weighed, _WEIGHED), delimiter=";"))
    for device in weighed:
        stated = [name for name in _WEIGHED if name in device.values]
        papers.state(device, stated, f"{path}#{device.tag}")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_INTRODUCTION = (
    "This manual describes the devices of one area of the Norrvik bottling and steam plant. "
    "It is written for operators and fitters."
)
_LAMPS = (
    ("Green", "The device runs"),
    ("Yellow", "A fitter is at work"),
    ("Red", "The device has tripped"),
    ("White", "The device waits for a start signal"),
)
_HOUSE_RULES = """# House rules

These rules hold in every area of the Norrvik bottling and steam plant.

## Before work

Ask the shift leader for a work permit. Put your own lock on the isolator and keep the key with \
you. Test that the device is dead before you touch it.

## Lubrication

Use grease from the yellow drum for bearings and oil from the blue drum for gears. Wipe the \
nipple with a clean cloth first. Never mix two kinds of grease.

## Reporting

Write each fault into the shift log. Name the device by its tag and not by its place. Tell the \
engineering office about a value that is out of range.

## Clean-up

1. Collect the tools and count them.
2. Close all covers and guards.
3. Remove your lock and hand back the permit.
"""
