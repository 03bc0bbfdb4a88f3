"""``phi3-industry completion``: print the script that completes commands and options."""

from __future__ import annotations

import argparse

from phi3_industry._optional import import_optional
from phi3_industry.cli.command import Command, ExitCode
from phi3_industry.cli.console import Console

__all__ = ["COMMAND"]

_SHELLS = ("bash", "zsh", "fish")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the script of a shell."""
    shtab = import_optional("shtab", purpose="complete command lines")
    from phi3_industry.cli.parser import build_parser

    parser = build_parser()
    _say_what_is_a_path(parser, shtab)
    script = shtab.complete(parser, arguments.shell)
    console.show(script)
    console.document({"shell": arguments.shell, "script": script})
    return ExitCode.DONE


def _say_what_is_a_path(parser: argparse.ArgumentParser, shtab: object) -> None:
    """Let the shell offer files and folders where an option takes them."""
    places = {
        "FILE": shtab.FILE,  # type: ignore[attr-defined] # the module, imported where it is used
        "DOCUMENTS": shtab.FILE,  # type: ignore[attr-defined]
        "QUESTIONS": shtab.FILE,  # type: ignore[attr-defined]
        "TRAIN_QUESTIONS": shtab.FILE,  # type: ignore[attr-defined]
        "FOLDER": shtab.DIRECTORY,  # type: ignore[attr-defined]
        "MODEL": shtab.DIRECTORY,  # type: ignore[attr-defined]
        "ADAPTER": shtab.DIRECTORY,  # type: ignore[attr-defined]
    }
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for added in action.choices.values():
                _say_what_is_a_path(added, shtab)
        elif isinstance(action.metavar, str) and action.metavar in places:
            action.complete = places[action.metavar]  # type: ignore[attr-defined] # shtab reads it


COMMAND = Command(
    summary="print a script that completes commands in your shell",
    description=(
        "Print the completion script of a shell. Put it where the shell looks for such:\n"
        "  bash  ~/.local/share/bash-completion/completions/phi3-industry\n"
        "  zsh   _phi3-industry in a folder of $fpath\n"
        "  fish  ~/.config/fish/completions/phi3-industry.fish"
    ),
    examples=(
        "completion bash > ~/.local/share/bash-completion/completions/phi3-industry".removeprefix(
            "completion "
        ),
    ),
    add_arguments=_add_arguments,
    run=_run,
)
