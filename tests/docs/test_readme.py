"""The Python blocks of README and worked examples run, and print what these say they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/choosing.md"])
def test_python_blocks_run_and_print_what_is_shown(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert sum(language == "python" for language, _ in blocks) >= 3
    namespace: dict[str, object] = {}
    printed = ""
    for language, code in blocks:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(code, page, "exec"), namespace)
            printed = output.getvalue()
        elif language == "text":
            assert printed == code
            printed = ""


def test_the_first_answer_stands_before_line_thirty() -> None:
    block = next(match for match in BLOCK.finditer(README) if match.group(1) == "text")
    assert README[: block.end()].count("\n") < 30


def test_the_two_commands_are_named() -> None:
    assert "make demo" in README
    assert "make test" in README


def test_links_to_files_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
