"""What a command of the command line is, and what it can end with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from phi3_industry.cli.console import Console

__all__ = ["Command", "CommandLineError", "ExitCode"]


class ExitCode(IntEnum):
    """What the process ends with."""

    DONE = 0
    FAILED = 1
    WRONG_COMMAND_LINE = 2
    ABSTAINED = 3
    WORSE = 4
    INTERRUPTED = 130
    """As shells report a process that SIGINT ended."""
    UNREAD = 141
    """As shells report a process that SIGPIPE ended: the reader closed the output."""


class CommandLineError(Exception):
    """The command line does not say what the command needs."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        summary: What it does, in a line.
        description: What it does, in some.
        examples: Command lines to copy, without the program's name.
        add_arguments: Adds its options to a parser.
        run: Does it and gives the exit code.
        exit_codes: What it can end with beyond what all commands can, and what that means.
        checks_project: Whether it reports a wrong project file itself, in place of failing by it.
    """

    summary: str
    description: str
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Console], int]
    exit_codes: Mapping[ExitCode, str] = field(default_factory=dict)
    checks_project: bool = False
