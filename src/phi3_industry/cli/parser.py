"""The parser of the command line, put together from what each command says of itself."""

from __future__ import annotations

import argparse

from phi3_industry import __version__
from phi3_industry.cli import (
    ask,
    compare,
    completion,
    demo,
    doctor,
    finetune,
    index,
    init,
    serve_command,
    transfer,
)
from phi3_industry.cli.command import Command, ExitCode

__all__ = ["COMMANDS", "PROGRAM", "build_parser"]

PROGRAM = "phi3-industry"

COMMANDS: dict[str, Command] = {
    "demo": demo.COMMAND,
    "init": init.COMMAND,
    "index": index.COMMAND,
    "ask": ask.COMMAND,
    "finetune": finetune.COMMAND,
    "compare": compare.COMMAND,
    "transfer": transfer.COMMAND,
    "serve-command": serve_command.COMMAND,
    "doctor": doctor.COMMAND,
    "completion": completion.COMMAND,
}

_ALWAYS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "it failed; standard error says why",
    ExitCode.WRONG_COMMAND_LINE: "the command line was wrong",
}
_CUT_SHORT = {
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.UNREAD: "whoever read the output closed it",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; ``command`` names the command and ``settings`` what may be left open."""
    own = {code: text for command in COMMANDS.values() for code, text in command.exit_codes.items()}
    own = {code: text for code, text in own.items() if code not in _ALWAYS}
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Turn a Phi-3 model into the expert of one industry.",
        epilog=_epilog(("demo", "index documents", 'ask "What is the suction pressure?"'), own),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.summary,
            description=command.description,
            epilog=_epilog(
                tuple(f"{name} {example}".strip() for example in command.examples),
                dict(command.exit_codes),
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(settings=())
        command.add_arguments(added)
        _add_common_options(added)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on every command")
    group.add_argument(
        "--project",
        metavar="FILE",
        help="the project file (default: phi3-industry.toml in this folder or one above it)",
    )
    group.add_argument("--json", action="store_true", help="print the result as one JSON document")
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="only results and errors")
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="also logs, whole lists and tracebacks"
    )
    group.add_argument("--traceback", action="store_true", help="show where an error came from")


def _epilog(examples: tuple[str, ...], exit_codes: dict[ExitCode, str]) -> str:
    heading = "examples" if len(examples) > 1 else "example"
    lines = [f"{heading}:", *(f"  {PROGRAM} {example}" for example in examples)]
    lines += ["", "exit codes:"]
    for code, text in {**_ALWAYS, **exit_codes, **_CUT_SHORT}.items():
        lines.append(f"  {code.value:<5}{text}")
    return "\n".join(lines)
