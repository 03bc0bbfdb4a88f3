"""A conversation in the terminal, or over a pipe."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from phi3_industry.cli.answers import (
    describe_answer,
    show_answer,
    show_passages,
    show_streamed_answer,
)
from phi3_industry.cli.command import ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.failures import explain
from phi3_industry.query_engine.hybrid import HybridQueryEngine

__all__ = ["converse"]

_PROMPT = "> "
_HELP = "/sources shows the passages, /reset forgets what was said, /quit ends (so does Ctrl-D)"
_COMMAND = re.compile(r"/[a-z]+\s*")


def converse(engine: HybridQueryEngine, console: Console, *, first: str | None = None) -> ExitCode:
    """Talk until the user ends it.

    Args:
        engine: Answers.
        console: Where to.
        first: A question to begin with.

    Returns:
        Done; failed if a question of a pipe was not answered.
    """
    typed = sys.stdin.isatty()
    conversation = _Conversation(engine, console, typed=typed)
    if typed:
        with suppress(ImportError):  # Windows has none; lines are then edited by its terminal
            import readline  # noqa: F401 - importing it is what makes input() edit lines
        console.say(_HELP)
    if first is not None:
        conversation.ask(first)
    while (line := _read(console, typed=typed)) is not None:
        if not line.strip():
            continue
        if _COMMAND.fullmatch(line):
            if line.strip() in ("/quit", "/exit"):
                break
            conversation.obey(line.strip())
        else:
            conversation.ask(line.strip())
    console.document({"turns": conversation.turns})
    return ExitCode.FAILED if conversation.failures and not typed else ExitCode.DONE


def _read(console: Console, *, typed: bool) -> str | None:
    """Read a line; ``None`` at the end."""
    if typed and console.is_terminal:
        try:
            return input(_PROMPT)
        except EOFError:
            console.show()
            return None
    if typed:
        print(_PROMPT, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline() or None


class _Conversation:
    def __init__(self, engine: HybridQueryEngine, console: Console, *, typed: bool) -> None:
        self.turns: list[dict[str, Any]] = []
        self.failures = 0
        self._chat: Any = engine.as_chat_engine()
        self._console = console
        self._sources: list[Any] = []
        self._typed = typed

    def obey(self, command: str) -> None:
        if command == "/sources":
            show_passages(self._console, self._sources)
            if not self._sources:
                self._console.say("No passage was shown yet.")
        elif command == "/reset":
            self._chat.reset()
            self._sources = []
            self._console.say("What was said is forgotten.")
        else:
            self._console.say(_HELP)

    def ask(self, question: str) -> None:
        """Answer one question; what goes wrong, or is stopped, costs this answer alone."""
        try:
            if self._console.is_terminal:
                self._stream(question)
            else:
                self._answer(question)
        except KeyboardInterrupt:
            if not self._typed:
                raise
            self._console.end_line()
            self._console.say("stopped")
        except Exception as error:
            self._console.fail(explain(error))
            self.failures += 1
            self.turns.append({"question": question, "error": explain(error)})

    def _answer(self, question: str) -> None:
        said = self._chat.chat(question).sources[0]
        self._note_rewording(question, said)
        self._sources = said.raw_output.source_nodes
        show_answer(self._console, said.raw_output)
        self._console.show()
        turn = describe_answer(question, said.raw_output)
        self.turns.append({**turn, "asked_as": said.raw_input["query"]})

    def _stream(self, question: str) -> None:
        with self._console.working("Thinking"):
            response = self._chat.stream_chat(question)
        said, writer = response.sources[0], response.write_response_to_history_thread
        self._note_rewording(question, said)
        self._sources = said.raw_output.source_nodes
        with _thread_errors_kept():
            try:
                show_streamed_answer(
                    self._console,
                    response.response_gen,
                    sources=self._sources,
                    metadata=said.raw_output.metadata,
                )
            finally:
                writer.join()  # else the next question could be remembered before this answer
        self._console.show()

    def _note_rewording(self, question: str, said: Any) -> None:
        asked = said.raw_input["query"]
        if asked != question:
            self._console.show(f"({asked})", style="dim")


@contextmanager
def _thread_errors_kept() -> Iterator[None]:
    """Keep LlamaIndex's writing thread from printing an error that the reader gets as well."""
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before
