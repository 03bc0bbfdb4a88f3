"""``phi3-industry serve-command``: how vLLM is started for a base model and its adapters."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from phi3_industry.cli.command import Command, ExitCode
from phi3_industry.cli.console import Console

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="embedded", help="'embedded', a folder, or a hub id (default: embedded)"
    )
    parser.add_argument("--revision", help="revision of the model on the hub")
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help="an adapter to serve, named after its folder unless NAME is given; may be repeated",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="the type to compute in (default: as the weights are stored)",
    )
    parser.add_argument(
        "--max-model-len", type=int, metavar="N", help="tokens of prompt and answer together"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--compose", action="store_true", help="print a Docker Compose file")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Check base and adapters, and show the command; what is worth knowing is said beside it."""
    from phi3_industry.models.vllm_serving import plan_serving

    plan = plan_serving(
        arguments.model,
        adapters=_named(arguments.adapter),
        revision=arguments.revision,
        dtype=arguments.dtype,
        max_model_len=arguments.max_model_len,
        host=arguments.host,
        port=arguments.port,
    )
    compose = {"compose": json.loads(plan.compose())} if arguments.compose else {}
    console.document({**plan.to_json(), **compose})
    console.show(plan.compose() if arguments.compose else plan.shell())
    for note in plan.notes:
        console.say(f"note: {note}")
    return ExitCode.DONE


def _named(given: list[str]) -> dict[str, str]:
    """Read ``NAME=FOLDER`` and ``FOLDER``; a folder that is there is taken for one as it stands."""
    adapters: dict[str, str] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not separator or Path(text).is_dir():
            name, folder = Path(text).resolve().name, text
        if name in adapters:
            raise ValueError(
                f"Two adapters are called '{name}'. Give one another name: --adapter NAME=FOLDER."
            )
        adapters[name] = folder
    return adapters


COMMAND = Command(
    summary="print how vLLM is started for a model and its adapters",
    description=(
        "Check a base model and its adapters against what vLLM serves, and print the command\n"
        "line that starts it, or with --compose a Docker Compose file."
    ),
    examples=("--model microsoft/Phi-3-mini-4k-instruct --adapter pumps=adapters/pumps",),
    add_arguments=_add_arguments,
    run=_run,
)
