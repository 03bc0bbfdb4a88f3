"""The command line: ``phi3-industry demo | index | ask | …``, and ``--help`` for the rest."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from phi3_industry.cli.command import CommandLineError, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.failures import explain
from phi3_industry.cli.parser import COMMANDS, PROGRAM, build_parser
from phi3_industry.cli.project import find_project, read_project, resolve
from phi3_industry.errors import ConfigurationError
from phi3_industry.models.quiet import quiet_known_noise

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; ``None`` takes those of the process.

    Returns:
        The exit code; see :class:`~phi3_industry.cli.command.ExitCode`.

    Raises:
        SystemExit: The arguments are wrong (code 2), or help or version was asked for (code 0).
    """
    _let_every_character_out()
    arguments = build_parser().parse_args(argv)
    console = Console(as_json=arguments.json, quiet=arguments.quiet, verbose=arguments.verbose)
    with console.listening():
        _quiet_libraries(console)
        try:
            code = _run(arguments, console)
            sys.stdout.flush()  # a full disk or a closed pipe may show only now
        except BaseException as error:
            code = int(_end(error, arguments, console))
    return code


def _run(arguments: argparse.Namespace, console: Console) -> int:
    command = COMMANDS[arguments.command]
    arguments.project_problem = None
    try:
        path = Path(arguments.project) if arguments.project else find_project(Path.cwd())
        project = read_project(path if arguments.settings else None)
    except (ConfigurationError, OSError) as error:
        if not command.checks_project:
            raise
        arguments.project_problem = explain(error)
        project = read_project(None)
    arguments.project = project
    resolve(arguments, project)
    return int(command.run(arguments, console))


def _end(error: BaseException, arguments: argparse.Namespace, console: Console) -> int:
    """Say what ended a command, and give the exit code."""
    if isinstance(error, KeyboardInterrupt):
        console.end_line()
        print("interrupted" + (f"; {error}" if str(error) else ""), file=sys.stderr)
        return ExitCode.INTERRUPTED
    if isinstance(error, BrokenPipeError):  # a server's would have been an EngineError
        _give_up_output()
        return ExitCode.UNREAD
    if not isinstance(error, Exception):
        raise error
    if arguments.traceback or arguments.verbose:
        traceback.print_exception(error)
    if isinstance(error, CommandLineError):
        console.fail(f"{error} See: {PROGRAM} {arguments.command} --help")
        return ExitCode.WRONG_COMMAND_LINE
    console.fail(explain(error))
    try:
        sys.stdout.flush()
    except OSError:  # the disk under it is full
        _give_up_output()
    return ExitCode.FAILED


def _give_up_output() -> None:
    """Keep Python from trying once more, at its end, what standard output does not take."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):  # a stand-in of a test has no file descriptor
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _let_every_character_out() -> None:
    """Write as an escape what the terminal's encoding lacks, in place of failing by it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _quiet_libraries(console: Console) -> None:
    """Keep back what other packages say to their own developers, and their progress bars."""
    quiet_known_noise()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    if not console.shows_progress:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
