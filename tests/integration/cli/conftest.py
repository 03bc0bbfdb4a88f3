"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_parts import TABLE
from phi3_industry.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one indexed table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pumps.csv").write_text(TABLE, encoding="utf-8")
    assert main(["index", "docs"]) == 0
    return tmp_path
