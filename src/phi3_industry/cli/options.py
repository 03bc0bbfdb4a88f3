"""Options of the command line, made of settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from phi3_industry.cli.settings import SETTINGS, Setting

__all__ = ["add_server_key", "add_settings"]


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


_count.__name__ = "count"  # argparse names them in its errors
_amount.__name__ = "number"

_PARSERS: dict[str, Callable[[str], Any]] = {"count": _count, "whole": int, "amount": _amount}
_METAVARS = {
    "text": "TEXT",
    "model": "MODEL",
    "adapter": "ADAPTER",
    "file": "FILE",
    "folder": "FOLDER",
    "paths": "FILE",
    "store": "ADDRESS",
    "count": "N",
    "whole": "N",
    "amount": "X",
}


def add_settings(
    parser: argparse.ArgumentParser, *keys: str, positional: str | None = None, many: bool = False
) -> None:
    """Give a parser the options of some settings; what is not given stays ``None`` there.

    Args:
        parser: The parser of a command. Its ``settings`` are filled in afterwards.
        *keys: The settings that are options.
        positional: One that is given without an option.
        many: Whether the positional one may be given several times.
    """
    known: tuple[Setting, ...] = parser.get_default("settings") or ()
    wanted = (*keys, *([positional] if positional else []))
    parser.set_defaults(settings=(*known, *(SETTINGS[key] for key in wanted)))
    if positional:
        setting = SETTINGS[positional]
        parser.add_argument(
            positional,
            nargs="*" if many else "?",
            metavar=positional.upper(),
            help=f"{setting.help}; left out, what the project file says",
        )
    for key in keys:
        _add_option(parser, SETTINGS[key])


def _add_option(parser: argparse.ArgumentParser, setting: Setting) -> None:
    default = "" if setting.default in (None, False) else f" (default: {setting.default})"
    shared: dict[str, Any] = {"help": f"{setting.help}{default}", "default": None}
    if setting.kind == "switch":
        parser.add_argument(setting.option, action=argparse.BooleanOptionalAction, **shared)
    elif setting.kind == "choice":
        parser.add_argument(setting.option, choices=setting.choices, **shared)
    else:
        parser.add_argument(
            setting.option,
            type=_PARSERS.get(setting.kind, str),
            nargs="+" if setting.kind == "paths" else None,
            metavar=_METAVARS[setting.kind],
            **shared,
        )


def add_server_key(parser: argparse.ArgumentParser) -> None:
    """Add where the key of a server is; no project file may say which secret goes to a server."""
    parser.add_argument(
        "--api-key-env",
        default="VLLM_API_KEY",
        metavar="NAME",
        help="with --base-url: the environment variable with the key (default: %(default)s)",
    )
