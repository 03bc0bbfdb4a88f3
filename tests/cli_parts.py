"""A small working folder, and the command line run in it as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi3_industry.cli import main

__all__ = ["QUESTION", "TABLE", "failure", "result", "write_questions"]

TABLE = "Tag,Kind,Discharge pressure\nP-4471,pump,38.2 bar\nP-4472,pump,31.5 bar\n"
QUESTION = "What is the discharge pressure of P-4471?"


def write_questions(path: Path) -> None:
    """Write two questions about the table, with references in a house format."""
    records = [
        {
            "id": f"q{n}",
            "question": f"What is the discharge pressure of {tag}?",
            "answers": [value],
            "reference": f"{value} | PDIS",
        }
        for n, (tag, value) in enumerate([("P-4471", "38.2 bar"), ("P-4472", "31.5 bar")])
    ]
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")


def result(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, object]:
    """Run a command with --json and give what it printed."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    printed: dict[str, object] = json.loads(capsys.readouterr().out)
    return printed


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """Run a command that has to fail with one error in words and nothing on standard output."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "Traceback" not in streams.err
    errors = [line for line in streams.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]
