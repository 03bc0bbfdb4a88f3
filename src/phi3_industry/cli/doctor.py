"""``phi3-industry doctor``: say what is there, what is wrong with it, and what to do."""

from __future__ import annotations

import argparse
import platform
import textwrap
from dataclasses import asdict
from typing import Any

from phi3_industry import __version__
from phi3_industry._addresses import masked
from phi3_industry.cli import installation
from phi3_industry.cli.checkup import Finding, check_project
from phi3_industry.cli.command import Command, ExitCode
from phi3_industry.cli.console import Console, Style
from phi3_industry.cli.failures import explain
from phi3_industry.cli.options import add_server_key, add_settings
from phi3_industry.cli.settings import SETTINGS

__all__ = ["COMMAND"]

_MARKS: dict[str, tuple[str, Style]] = {
    "ok": ("ok", "plain"),
    "note": ("--", "dim"),
    "problem": ("!!", "red"),
}
_WIDTH = 88


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, "kb", "store", "embedding", "adapter", "questions", "train_questions")
    add_settings(parser, "strategy")
    add_settings(parser, "model", "quantization", "device", "base_url", "served_model")
    add_server_key(parser)
    parser.add_argument(
        "--verify", action="store_true", help="read the whole knowledge base, which may take long"
    )
    # what no option of its own is for, but is shown
    parser.set_defaults(
        settings=tuple(SETTINGS.values()),
        **{key: None for key in SETTINGS if parser.get_default(key) is None},
    )


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Look at the installation and at the project."""
    packages = installation.base_packages()
    found: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {package.name: package.found for package in packages},
        "extras": {extra.name: not extra.absent for extra in installation.extras()},
    }
    console.show(f"phi3-industry {__version__}, Python {found['python']}, {found['system']}")
    found["project"], found["settings"] = _show_settings(arguments, console)
    broken = _show_packages(packages, console)
    _show_extras(console)
    if not broken:
        broken = _show_machine(found, console)
    findings = [*_project_problem(arguments), *broken]
    console.show("\nParts", style="bold")
    for finding in findings:
        _show_finding(finding, console)
    # without what everything needs no part can be looked at
    for finding in () if broken else check_project(arguments, console):
        findings.append(finding)
        _show_finding(finding, console)
    problems = [finding for finding in findings if finding.state == "problem"]
    found |= {"findings": [asdict(finding) for finding in findings], "ok": not problems}
    console.document(found)
    if problems:
        console.show(f"\nProblems: {len(problems)}.")
        return ExitCode.FAILED
    console.show("\nNothing is wrong.")
    return ExitCode.DONE


def _project_problem(arguments: argparse.Namespace) -> list[Finding]:
    problem = arguments.project_problem
    return [] if problem is None else [Finding(part="project file", state="problem", text=problem)]


def _show_settings(
    arguments: argparse.Namespace, console: Console
) -> tuple[str | None, list[dict[str, Any]]]:
    """Show the project file in force and where each setting is from."""
    path = arguments.project.path
    console.show("\nSettings", style="bold")
    if path is None:
        console.show("  There is no project file here; `phi3-industry init` writes one.")
    else:
        console.show(f"  from {path}")
    settings = []
    for setting in SETTINGS.values():
        value, origin = getattr(arguments, setting.key), arguments.origins[setting.key]
        if setting.kind == "store":
            value = masked(value)
        settings.append({"name": setting.name, "value": value, "origin": origin})
        short = "project file" if origin == str(path) else origin
        if short != "default" or (value is not None and not setting.table):
            shown = ", ".join(value) if isinstance(value, list) else value
            console.show(f"  {setting.name:<22}{shown!s:<40} {short}".rstrip())
    for name, folder in arguments.project.adapters.items():
        console.show(f"  {'adapters.' + name:<22}{folder:<40} project file")
    return (None if path is None else str(path)), settings


def _show_packages(packages: list[installation.Package], console: Console) -> list[Finding]:
    console.show("\nPackages", style="bold")
    present = ", ".join(f"{one.name} {one.found}" for one in packages if one.fits)
    console.show(textwrap.indent(textwrap.fill(present, _WIDTH - 2), "  "))
    wrong = [one for one in packages if not one.fits]
    for one in wrong:
        state = "is missing" if one.found is None else f"is {one.found}, and {one.wanted} is needed"
        console.show(f"  {one.name} {state}", style="red")
    if not wrong:
        return []
    missing = ", ".join(one.name for one in wrong if one.found is None)
    other = ", ".join(one.name for one in wrong if one.found is not None)
    text = (
        f"Missing: {missing or 'none'}. Of the wrong version: {other or 'none'}. Run: pip install "
    )
    text += "--upgrade phi3-industry"
    return [Finding(part="packages", state="problem", text=text)]


def _show_extras(console: Console) -> None:
    console.show("\nExtras", style="bold")
    for extra in installation.extras():
        state = f"no  ({', '.join(extra.absent)} missing)" if extra.absent else "yes"
        console.show(f"  {extra.name:<13}{state:<6} {extra.purpose}")
        if extra.absent:
            console.show(f"{'':15}pip install 'phi3-industry[{extra.name}]'")


def _show_machine(found: dict[str, Any], console: Console) -> list[Finding]:
    """Show what can compute here, and which checkpoints fit."""
    try:
        with console.working("Looking at the devices"):
            found["devices"] = installation.devices()
            available, checkpoints = installation.checkpoints()
    except Exception as error:  # a broken torch raises what it likes
        text = f"torch cannot be used: {explain(error)}"
        return [Finding(part="torch", state="problem", text=text)]
    found |= {"available_gib": available, "checkpoints": checkpoints}
    machine = found["devices"]
    console.show("\nDevices", style="bold")
    console.show(f"  CPU    {machine['cores']} cores, {machine['threads']} threads for torch")
    for card in machine["cuda"]:
        console.show(f"  CUDA   {card['name']}, {card['gib']:.0f} GiB")
    if not machine["cuda"]:
        console.show("  CUDA   none")
        console.show(
            "  The embedded model answers and trains on the CPU in seconds to minutes. A\n"
            "  Phi-3-mini answers slowly on a CPU (use --quantization nf4); to train one, use a\n"
            "  CUDA device."
        )
    console.show("\nCheckpoints", style="bold")
    console.show(f"  GiB of weights in 16 bits, int8 and NF4; {available:.0f} GiB are available")
    words = {"yes": "fits", "quantised": "fits quantised", "no": ""}
    for row in checkpoints:
        gib: Any = row["gib"]
        sizes = "".join(f"{size:7.1f}" for size in gib.values())
        console.show(f"  {row['name']:<38}{sizes}  {words[str(row['fits'])]}".rstrip())
    return []


def _show_finding(finding: Finding, console: Console) -> None:
    mark, style = _MARKS[finding.state]
    lines = textwrap.wrap(
        finding.text, _WIDTH - 22, break_on_hyphens=False, break_long_words=False
    ) or [""]
    console.show(f"  {mark}  {finding.part:<16}{lines[0]}", style=style)
    for line in lines[1:]:
        console.show(f"{'':22}{line}", style=style)


COMMAND = Command(
    summary="say what is there, what is wrong with it, and what to do",
    description=(
        "Look at this installation, the machine, the project file with where each setting is\n"
        "from, and the parts that it names."
    ),
    examples=("", "--kb kb --adapter adapters/mine --verify"),
    add_arguments=_add_arguments,
    run=_run,
    exit_codes={ExitCode.FAILED: "something is wrong, and it says what to do"},
    checks_project=True,
)
