"""What is printed, where, and how errors are put into words."""

from __future__ import annotations

import errno
import io
import json
import logging
import sqlite3
import sys
import warnings

import pytest

from phi3_industry.cli.answers import show_answer, show_streamed_answer
from phi3_industry.cli.console import Console, printable
from phi3_industry.cli.failures import explain
from phi3_industry.errors import AdapterNotFoundError


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make both streams one terminal that knows colours."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_no_document_steers_the_terminal() -> None:
    assert printable("a\x1b]0;title\x07\r\nb\x9b2J\t文") == "a\\x1b]0;title\\x07\\x0d\nb\\x9b2J\t文"


def test_colours_are_left_out_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_of(monkeypatch)
    console = Console()
    console.show("x", style="bold")
    assert terminal.getvalue() == "\x1b[1mx\x1b[0m\n"
    for variable, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        terminal.truncate(0)
        terminal.seek(0)
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            console.show("x", style="bold")
            console.fail("y")
        assert terminal.getvalue() == "x\nerror: y\n"


def test_streams_that_are_no_terminal_get_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.show("x", style="bold")
    console.warn("y")
    with console.working("z"):
        pass
    assert capsys.readouterr() == ("x\n", "warning: y\n")


def test_json_is_alone_on_its_stream_and_survives_any_encoding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(as_json=True)
    console.show("for people")
    console.write("a piece")
    console.document({"a": "文\ud800"})
    assert json.loads(capsys.readouterr().out) == {"a": "文\ud800"}


def test_what_takes_its_time_is_shown_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with Console().working("Loading"):
        assert terminal.getvalue() == "Loading ..."
    assert terminal.getvalue().endswith("\r")
    terminal.truncate(0)
    terminal.seek(0)
    with Console(quiet=True).working("Loading"):
        pass
    assert terminal.getvalue() == ""


def test_logs_and_warnings_are_lines_and_as_many_as_were_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def speak() -> None:
        logger = logging.getLogger("phi3_industry.vector_stores")
        logger.info("a detail")
        logger.warning("a %s", "doubt")
        warnings.simplefilter("always")
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        warnings.warn("for developers", FutureWarning, stacklevel=1)

    shown = {}
    for name, console in (
        ("plain", Console()),
        ("quiet", Console(quiet=True)),
        ("verbose", Console(verbose=True)),
    ):
        with console.listening():
            speak()
        shown[name] = capsys.readouterr().err.splitlines()
    assert shown["plain"] == ["warning: a doubt", "warning: two lines"]
    assert shown["quiet"] == []
    assert shown["verbose"] == [
        "a detail",
        "warning: a doubt",
        "warning: two lines",
        "warning: for developers",
    ]
    assert logging.getLogger("phi3_industry").level == logging.NOTSET


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "'/x' may not be used"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "'/x' may not be used"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "no room left to write '/x'"),
        (OSError(errno.ENOSPC, "No space left on device"), "no room left to write the output"),
        (FileNotFoundError(errno.ENOENT, "No such file", "q"), "There is no 'q'."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "q"), "'q' is a folder"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "q/r"), "'q/r' leads through a file"),
        (OSError(errno.EIO, "Input/output error", "q"), "'q': Input/output error."),
        (FileNotFoundError("There is no file or folder 'q'."), "There is no file or folder 'q'."),
        (MemoryError(), "Memory ran out."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "Memory ran"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "Memory ran out."),
        (sqlite3.OperationalError("disk I/O error"), "cannot be used: disk I/O error"),
        (ValueError("limit is 0; it must be at least 1."), "limit is 0"),
        (AdapterNotFoundError("a"), "There is no adapter 'a'"),
        (ZeroDivisionError("by\nzero"), "ZeroDivisionError: by zero. This was not foreseen"),
        (RuntimeError(), "RuntimeError: no more is known."),
    ],
)
def test_an_error_says_what_is_true_and_what_to_do(error: Exception, words: str) -> None:
    text = explain(error)
    assert words in text
    assert "\n" not in text


def test_a_long_passage_without_spaces_is_cut_and_not_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from llama_index.core.base.response.schema import Response
    from llama_index.core.schema import NodeWithScore, TextNode

    node = TextNode(text="泵的排出压力" * 100, id_="n", metadata={"source_id": "手册"})
    response = Response(
        response="[1] 泵",
        source_nodes=[NodeWithScore(node=node)],
        metadata={
            "citations": [{"node_id": "n", "verified": False}],
            "strategy": "rag",
            "reason": "It was asked for.",
        },
    )
    show_answer(Console(), response)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["[1] 泵", "  [1] 手册 (QUOTE NOT FOUND)"]
    assert len(lines) == 6
    assert "泵的排出压力" in lines[2]
    assert lines[4].endswith("…")


@pytest.mark.parametrize(
    ("agrees", "said"),
    [(False, ", SAYS OTHERWISE"), (True, ", says the same"), (None, "")],
)
def test_older_version_of_what_is_cited_is_shown_with_its_date(
    capsys: pytest.CaptureFixture[str], agrees: bool | None, said: str
) -> None:
    from llama_index.core.base.response.schema import Response
    from llama_index.core.schema import NodeWithScore, TextNode

    names = ("new", "old", "older-of-another")
    nodes = [TextNode(text=f"It says {n}.", id_=n, metadata={"source_id": n}) for n in names]
    old = {"date": "2021-03-01", "agrees": agrees}
    response = Response(
        response="[1] 38.2 bar",
        source_nodes=[NodeWithScore(node=node) for node in nodes],
        metadata={
            "citations": [{"node_id": "new", "verified": True}],
            "superseded": [
                {"node_id": "old", "newer_node_id": "new", **old},
                {"node_id": "older-of-another", "newer_node_id": "not cited", **old},
            ],
            "strategy": "rag",
            "reason": "It was asked for.",
        },
    )
    show_answer(Console(), response)
    shown = capsys.readouterr().out
    assert f"\n  [2] old (older version, 2021-03-01{said})\n" in shown
    assert "It says old." in shown
    assert "older-of-another" not in shown


def test_what_answers_otherwise_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from llama_index.core.base.response.schema import Response
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [TextNode(text=f"It says {n}.", id_=n, metadata={"source_id": n}) for n in "abc"]
    cites = {name: [{"node_id": name, "verified": True}] for name in "ac"}
    metadata = {
        "abstained": False,
        "answer": "[1] a\n[3] c",
        "citations": cites["a"],
        "conflict": [
            {"answer": "[1] a", "citations": cites["a"]},
            {"answer": "[3] c", "citations": cites["c"]},
        ],
        "strategy": "rag",
        "reason": "It was asked for.",
    }
    sources = [NodeWithScore(node=node) for node in nodes]
    show_answer(Console(), Response("[1] a", source_nodes=sources, metadata=metadata))
    shown = capsys.readouterr().out
    assert "  [1] a (quote found)\n" in shown
    assert "  [3] c (answers otherwise)\n" in shown
    assert "  [2] b" not in shown
    show_streamed_answer(Console(), ["[1] a"], sources=sources, metadata=metadata)
    assert "[3] c  (the passages answer differently)\n" in capsys.readouterr().out
