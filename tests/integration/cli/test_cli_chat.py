"""A conversation over a pipe, and on a terminal with a keyboard."""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from cli_parts import QUESTION, result
from phi3_industry.cli import main

OTHER = "What is the discharge pressure of P-4472?"


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> object:
    """Gives what is said through a pipe."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_conversation_over_a_pipe(
    folder: Path, capsys: pytest.CaptureFixture[str], say: object
) -> None:
    say(f"{QUESTION}\n\n/sources\n{OTHER}\n/reset\n/sources\n/what\n/quit\nnever read\n")  # type: ignore[operator]
    capsys.readouterr()
    assert main(["ask", "--chat", "--strategy", "rag"]) == 0
    streams = capsys.readouterr()
    assert streams.out.index("38.2 bar") < streams.out.index("31.5 bar")
    assert "pumps.csv#P-4471 (quote found)" in streams.out
    assert "Discharge pressure: 38.2 bar" in streams.out
    assert "forgotten" in streams.err
    assert "No passage" in streams.err
    assert "/quit ends" in streams.err


def test_a_conversation_as_json(
    folder: Path, capsys: pytest.CaptureFixture[str], say: object
) -> None:
    say(f"{OTHER}\n{'pressure? ' * 10_000}\n")  # type: ignore[operator]
    turns = result(capsys, "ask", QUESTION, "--chat", "--strategy", "rag", code=1)["turns"]
    assert isinstance(turns, list)
    assert [str(turn.get("answer"))[-8:] for turn in turns[:2]] == ["38.2 bar", "31.5 bar"]
    assert "tokens" in turns[2]["error"]  # it costs this answer alone, and the exit code says so


def test_a_question_comes_through_a_pipe(
    folder: Path, capsys: pytest.CaptureFixture[str], say: object
) -> None:
    say(QUESTION)  # type: ignore[operator]
    answered = result(capsys, "ask", "-", "--strategy", "rag")
    assert str(answered["answer"]).endswith("38.2 bar")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_conversation_on_a_terminal(folder: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-m", "phi3_industry", "ask", "--chat", "--strategy", "rag"]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm"}
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    )
    os.close(theirs)

    def read_until(wanted: bytes) -> bytes:
        seen = b""
        while wanted not in seen:
            assert select.select([ours], [], [], 300)[0], seen
            seen += os.read(ours, 4096)
        return seen

    read_until(b"> ")
    os.write(ours, QUESTION.encode() + b"\n")
    shown = read_until(b"\n> ")
    assert b"38.2 bar" in shown
    assert b"pumps.csv#P-4471 (quote found)" in shown
    assert b"\x1b[1m" not in shown
    assert b"\x1b[2m" not in shown
    os.write(ours, b"\x04")  # Ctrl-D
    assert process.wait() == 0
    os.close(ours)
