"""``phi3-industry init``: write a project file to fill in."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from phi3_industry.cli.command import Command, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.project import PROJECT_FILE
from phi3_industry.cli.settings import SETTINGS, TABLES, Setting
from phi3_industry.errors import ConfigurationError

__all__ = ["COMMAND", "template"]

_OPENING = """\
# The project file of phi3-industry. Its commands find it in this folder and in those below.
# Each key is an option of theirs, which wins where it is given. Relative paths begin here.
# Take the # away from what you set; what is shown is the default, or an example.
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", default=".", metavar="FOLDER", help="where to (default: here)"
    )


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Write the project file; one that is there stays as it is."""
    path = Path(arguments.folder) / PROJECT_FILE
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise ConfigurationError(
            f"There is a project file '{path}' already, and it was left as it is. Edit it, or "
            "move it away first."
        ) from error
    console.show(f"Wrote {path}: take the # away from what you set.")
    console.document({"project": str(path)})
    console.say("`phi3-industry doctor` shows what is in force.")
    return ExitCode.DONE


def template() -> str:
    """Write a project file that sets nothing and shows everything."""
    parts = [_OPENING]
    for table, title in TABLES.items():
        heading = f"[{table}]\n" if table else ""
        parts.append(f"# --- {title}\n{heading}")
        parts += [_lines(one) for one in SETTINGS.values() if one.table == table]
    parts.append(
        '# Adapters by name, for adapter = "NAME" and --adapter NAME.\n'
        '[adapters]\n# mine = "adapters/mine"\n'
    )
    return "\n".join(parts)


def _lines(setting: Setting) -> str:
    value = setting.example if setting.default is None else setting.default
    if value is None:
        value = setting.choices[0]
    choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
    # TOML writes the texts, numbers, booleans and lists that are here as JSON does
    return f"# {setting.help}{choices}\n# {setting.key} = {json.dumps(value)}\n"


COMMAND = Command(
    summary="write a project file to fill in",
    description=(
        f"Write {PROJECT_FILE} with every setting as a comment. In its folder, and in those\n"
        "below, the other commands then need few options or none. One that is there stays."
    ),
    examples=("", "plants/north"),
    add_arguments=_add_arguments,
    run=_run,
)
