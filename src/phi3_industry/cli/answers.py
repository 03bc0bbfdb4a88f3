"""How an answer is shown: its text, the passages it cites, and why it was given this way."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phi3_industry.cli.console import Console

__all__ = ["describe_answer", "show_answer", "show_passages", "show_streamed_answer"]

_WIDTH = 88
_SHOWN_LINES = 3


def describe_answer(question: str, response: Any) -> dict[str, Any]:
    """Put an answer into plain JSON values."""
    return {
        "question": question,
        "answer": str(response),
        **response.metadata,
        "sources": [
            {
                "marker": number,
                "node_id": source.node.node_id,
                "source_id": source.node.metadata.get("source_id"),
                "score": source.score,
                "text": _text(source),
            }
            for number, source in enumerate(response.source_nodes, start=1)
        ],
    }


def show_answer(console: Console, response: Any) -> None:
    """Show a whole answer with its grounds."""
    console.show(str(response).strip(), style="bold")
    _show_grounds(console, response.source_nodes, response.metadata)


def show_streamed_answer(
    console: Console,
    pieces: Iterable[str],
    *,
    sources: Sequence[Any],
    metadata: Mapping[str, Any],
) -> None:
    """Show an answer as it comes, then its grounds, and what the check has made of it.

    Args:
        console: Where to.
        pieces: The answer.
        sources: The passages.
        metadata: What the engine says of it; complete when the pieces have ended.
    """
    spoken = ""
    for piece in pieces:
        piece = piece if spoken else piece.lstrip()
        spoken += piece
        console.write(piece)
    console.show()
    checked = str(metadata["answer"]).strip()
    if checked != spoken.strip():
        console.show(f"{checked}  ({_why_changed(metadata)})", style="bold")
    _show_grounds(console, sources, metadata)


def show_passages(console: Console, sources: Sequence[Any]) -> None:
    """Show every passage of an answer whole, by number."""
    for number, source in enumerate(sources, start=1):
        console.show(f"[{number}] {_name(source)}")
        console.show(textwrap.indent(_text(source).strip(), " " * 4), style="dim")


def _show_grounds(console: Console, sources: Sequence[Any], metadata: Mapping[str, Any]) -> None:
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    marks = _marks(metadata)
    for number, source in enumerate(sources, start=1):
        if source.node.node_id not in marks:
            continue
        console.show(f"  [{number}] {_name(source)} ({marks[source.node.node_id]})")
        lines = textwrap.wrap(" ".join(_text(source).split()), max(20, width - 6))
        more = [f"{lines[_SHOWN_LINES - 1]} …"] if len(lines) > _SHOWN_LINES else []
        shown = [*lines[: _SHOWN_LINES - len(more)], *more]
        console.show(textwrap.indent("\n".join(shown), " " * 6), style="dim")
    reason = f"{metadata['strategy']}: {metadata['reason']}"
    console.show(textwrap.indent(textwrap.fill(reason, max(20, width - 2)), "  "), style="dim")


def _why_changed(metadata: Mapping[str, Any]) -> str:
    """Say why the checked answer is not the one that was spoken."""
    if "conflict" in metadata:
        return "the passages answer differently"
    if metadata["abstained"] and not metadata.get("supported"):
        return "no passage bears this answer"
    return "put right by its passages"


def _marks(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Say what is to be said of each passage that is cited, contradicts, or is an older version."""
    marks = {
        item["node_id"]: "quote found" if item["verified"] else "QUOTE NOT FOUND"
        for item in metadata["citations"]
    }
    says = {True: ", says the same", False: ", SAYS OTHERWISE", None: ""}
    older = {
        old["node_id"]: f"older version, {old['date']}{says[old['agrees']]}"
        for old in metadata.get("superseded", ())
        if old["newer_node_id"] in marks
    }
    otherwise = {
        citation["node_id"]: "answers otherwise"
        for answer in metadata.get("conflict", ())[1:]
        for citation in answer["citations"]
    }
    return older | otherwise | marks


def _name(source: Any) -> str:
    return str(source.node.metadata.get("source_id") or source.node.node_id)


def _text(source: Any) -> str:
    from llama_index.core.schema import MetadataMode

    return str(source.node.get_content(metadata_mode=MetadataMode.LLM))
