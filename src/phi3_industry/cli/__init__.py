"""The command line: ``phi3-industry demo | index | ask | finetune | compare | doctor``."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

from phi3_industry import __version__
from phi3_industry.cli import serve_command
from phi3_industry.errors import Phi3IndustryError
from phi3_industry.models.quiet import quiet_known_noise

__all__ = ["main"]

_EXIT_CODES = """\
exit codes:
  0    done
  1    it failed; the reason is on the standard error stream
  2    the command line was wrong
  3    the answer abstains (ask alone)
  4    the adapter is worse than the base model on the held-out rows (finetune alone)
  130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; ``None`` takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 3 abstained, 4 made worse, 130 interrupted.

    Raises:
        SystemExit: The arguments are wrong (code 2), or help or version was asked for (code 0).
    """
    arguments = _build_parser().parse_args(argv)
    _quiet_libraries()
    try:
        name = arguments.command.replace("-", "_")
        module = importlib.import_module(f"phi3_industry.cli.{name}")
        code: int = module.run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (Phi3IndustryError, OSError, ValueError) as error:
        if arguments.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def _quiet_libraries() -> None:
    """Keep back what other packages say to their own developers."""
    quiet_known_noise()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def _build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser = argparse.ArgumentParser(
        prog="phi3-industry",
        description="Turn a Phi-3 model into the expert of one industry.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"phi3-industry {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            parents=[common],
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_demo(
        add(
            "demo",
            "show the main job, on shipped documents or on yours",
            "Index documents, train an adapter, ask questions four ways (base, RAG, fine-tuned,\n"
            "RAG + fine-tuned), and write report.html. Works offline on the embedded model.\n"
            "With --docs it works on your own folder instead of the shipped documents.",
        )
    )
    _add_index(
        add(
            "index",
            "put documents and tables into a knowledge base",
            "Read a folder or file (md, txt, html, pdf, docx, pptx, eml, csv, tsv, xlsx, parquet)\n"
            "into a knowledge base, or with --query the rows that a database gives.\n"
            "What is there already and has not changed costs nothing.",
        )
    )
    _add_ask(
        add(
            "ask",
            "ask a knowledge base a question",
            "Answer a question with its source, and say which way was chosen and why.",
        )
    )
    _add_finetune(
        add(
            "finetune",
            "train an adapter from questions and answers",
            "Train a LoRA or QLoRA adapter on the questions of a file, with the passages that the\n"
            "knowledge base finds for them, on a glossary, on conversations, or on all of these;\n"
            "without any, on questions made of the tables. Each line of the questions file is a\n"
            "JSON object:\n"
            '  {"id", "question", "answers": [...], "gold_ids": [...], "reference": ...}\n'
            "An empty list of answers marks a question that the documents cannot answer;\n"
            "reference is the answer in the form that the adapter is to learn.",
        )
    )
    _add_compare(
        add(
            "compare",
            "measure which way of answering pays",
            "Ask the questions of a file in several ways and print the scores side by side.",
        )
    )
    serve_command.add_arguments(
        add(
            "serve-command",
            "print how vLLM is started for a model and its adapters",
            "Check a base model and its adapters against what vLLM serves, and print the command\n"
            "line that starts it, or with --compose a Docker Compose file.",
        )
    )
    add("doctor", "say what is installed and what that means", "Look at this installation.")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="embedded",
        help="'embedded', a folder, or a hub id such as microsoft/Phi-3-mini-4k-instruct "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--quantization", choices=("nf4", "int8"), help="load the model in 4 or 8 bits"
    )


def _add_knowledge_base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kb", default="kb", metavar="FOLDER", help="the knowledge base (default: %(default)s)"
    )
    parser.add_argument(
        "--embedding",
        default="embedded",
        help="the embedding it is built with: 'embedded', a folder, or a hub id "
        "(default: %(default)s)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        default="demo-output",
        metavar="FOLDER",
        help="where the knowledge base, the adapter and report.html go (default: %(default)s)",
    )
    parser.add_argument("--docs", metavar="FOLDER", help="your documents instead of the shipped")
    parser.add_argument("--ask", metavar="QUESTION", help="a question of yours")
    parser.add_argument(
        "--train-questions", metavar="FILE", help="with --docs: train an adapter on these questions"
    )
    parser.add_argument(
        "--questions", metavar="FILE", help="with --docs: compare the four ways on these questions"
    )


def _add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a folder, a file, or with --query a SQLAlchemy URL")
    _add_knowledge_base(parser)
    parser.add_argument("--query", metavar="SQL", help="a query whose rows are added")
    parser.add_argument("--name", help="the name of what a query gives (default: query)")
    parser.add_argument(
        "--summaries",
        choices=("outline",),
        help="show the first lines and headings of its document above each passage",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="also delete what was indexed from this folder and is gone from it",
    )


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question")
    _add_knowledge_base(parser)
    _add_model(parser)
    parser.add_argument("--adapter", metavar="FOLDER", help="an adapter to answer with")
    parser.add_argument(
        "--strategy",
        default="auto",
        choices=("auto", "base", "rag", "fine_tuned", "rag_fine_tuned"),
        help="how to answer (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k", type=_positive, default=3, metavar="N", help="passages (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", nargs="?", help="the questions file (JSON Lines)")
    parser.add_argument("--glossary", metavar="FILE", help="terms, units and answer forms to teach")
    parser.add_argument(
        "--conversations", nargs="+", default=(), metavar="FILE", help="exchanges to learn from"
    )
    parser.add_argument(
        "--replay",
        nargs="+",
        default=(),
        metavar="FILE",
        help="general conversations, so that what the base can do stays",
    )
    _add_knowledge_base(parser)
    _add_model(parser)
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the adapter to write")
    parser.add_argument(
        "--method",
        default="lora",
        choices=("lora", "qlora", "rslora", "dora", "pissa"),
        help="qlora keeps the base model in 4 bits while training (default: %(default)s)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run of the same settings"
    )
    parser.add_argument(
        "--packing", action="store_true", help="lay rows side by side in place of padding them"
    )
    parser.add_argument(
        "--patience",
        type=_positive,
        metavar="N",
        help="stop after N checkpoints without a lower loss on the held-out rows",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also log to TensorBoard, inside the adapter"
    )
    parser.add_argument("--rank", type=_positive, metavar="N", help="rank of the adapter")
    parser.add_argument("--epochs", type=float, metavar="N", help="passes over the rows")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="peak learning rate")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of everything (default: %(default)s)"
    )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", help="the questions file (JSON Lines)")
    _add_knowledge_base(parser)
    _add_model(parser)
    parser.add_argument(
        "--adapter", metavar="FOLDER", help="an adapter; without one the ways are base and rag"
    )
    parser.add_argument(
        "--top-k", type=_positive, default=3, metavar="N", help="passages (default: %(default)s)"
    )
    parser.add_argument("--html", metavar="FILE", help="write the report")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON")
    parser.add_argument("--csv", metavar="FILE", help="write the scored answers as CSV")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value
