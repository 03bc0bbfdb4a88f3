"""The parser: what help says, what is refused, and what a shell completes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from phi3_industry.cli import main
from phi3_industry.cli.console import printable
from phi3_industry.cli.parser import COMMANDS, build_parser


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_suffices(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: phi3-industry" in shown
    assert f"  phi3-industry {command}" in shown.partition("example")[2]
    for line in ("0    done", "1    ", "2    the command line was wrong", "130  interrupted"):
        assert f"  {line}" in shown.partition("exit codes:")[2]


@pytest.mark.parametrize(("command", "code"), [("ask", 3), ("finetune", 4)])
def test_help_says_what_else_a_command_can_end_with(
    command: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert (f"\n  {code}    " in capsys.readouterr().out) is (name == command)


def test_the_examples_of_help_are_right() -> None:
    import shlex

    parser = build_parser()
    for name, command in COMMANDS.items():
        for example in command.examples:
            words = shlex.split(example)
            parser.parse_args([name, *words[: words.index(">") if ">" in words else None]])


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["ask", "x", "--top-k", "0"], ["ask", "x", "-q", "-v"], ["init", "-x"]],
)
def test_a_wrong_command_line_has_exit_code_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: phi3-industry" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_each_shell_knows_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert printable(script) == script
    for command in COMMANDS:
        assert command in script
    assert "top-k" in script
    assert "rag_fine_tuned" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "manuals").mkdir()

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        program = (
            f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "_shtab_phi3_industry; echo ${COMPREPLY[@]}"
        )
        found = subprocess.run(
            ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return set(found.stdout.split())

    assert completed("phi3-industry", "") >= set(COMMANDS)
    assert completed("phi3-industry", "ask", "--str") == {"--strategy"}
    assert completed("phi3-industry", "ask", "--sto") == {"--store"}
    assert completed("phi3-industry", "ask", "--store", "man") == set()
    assert "rag_fine_tuned" in completed("phi3-industry", "ask", "--strategy", "")
    assert completed("phi3-industry", "index", "--kb", "man") == {"manuals"}
