"""What goes to which stream, how a command ends, and what is left behind when it is cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli_parts import QUESTION, failure, result, write_questions
from phi3_industry.cli import main
from phi3_industry.vector_stores.faiss_sqlite import FaissSQLiteVectorStore


def script(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "phi3_industry", *arguments]


def test_every_result_is_one_json_document(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "docs" / "new.md").write_text("# New\n\nThe oil of pump P-9 is Tovex 32.\n")
    (folder / "docs" / "picture.png").write_bytes(b"\x89PNG")
    indexed = result(capsys, "index", "docs")["sources"]
    assert isinstance(indexed, list)
    assert indexed[0]["added"] == ["new.md"]
    assert indexed[0]["unchanged"] == ["pumps.csv"]
    assert indexed[0]["skipped"][0]["document"] == "picture.png"
    write_questions(folder / "q.jsonl")
    compared = result(capsys, "compare", "q.jsonl", "--html", "report.html")
    assert compared["strategies"] == ["base", "rag", "auto"]
    assert (folder / "report.html").is_file()
    assert result(capsys, "init")["project"] == "phi3-industry.toml"
    assert result(capsys, "doctor")["ok"] is True
    assert "phi3-industry" in str(result(capsys, "completion", "bash")["script"])
    shown = result(capsys, "demo", "--docs", "docs", "--ask", QUESTION, "--output", "out")
    assert shown["answers"]["rag"]["answer"].endswith("38.2 bar")  # type: ignore[index]


def test_finetune_reports_as_json_and_says_how_it_went_beside_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_questions(folder / "q.jsonl")
    arguments = ["finetune", "q.jsonl", "--output", "adapters/mine", "--epochs", "1", "--json"]
    capsys.readouterr()
    assert main(arguments) == 0
    streams = capsys.readouterr()
    trained = json.loads(streams.out)
    assert trained["adapter"] == "adapters/mine"
    assert trained["verdict"] == trained["manifest"]["metrics"]["verdict"]
    assert trained["training_set"]["questions"] == 2
    assert "The adapter is in" in streams.err
    answered = result(capsys, "ask", QUESTION, "--adapter", "adapters/mine", "--strategy", "rag")
    assert answered["adapter"] is None  # rag answers without it, though it is loaded


def test_an_adapter_that_made_the_model_worse_has_an_exit_code_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class Manifest:
        metrics: dict[str, str]

    monkeypatch.setattr(
        "phi3_industry.finetuning.trainer.LoraFinetuneEngine.finetune",
        lambda *_, **__: Manifest({"verdict": "worse"}),
    )
    write_questions(folder / "q.jsonl")
    assert main(["finetune", "q.jsonl", "--output", "out"]) == 4


def test_quiet_says_nothing_beside_the_result(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["index", "docs", "--quiet"]) == 0
    streams = capsys.readouterr()
    assert "1 unchanged" in streams.out
    assert streams.err == ""


def test_progress_is_drawn_on_a_terminal_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    main(["index", "docs"])
    assert "Indexing" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main(["index", "docs"])
    assert "Indexing" in capsys.readouterr().err
    main(["index", "docs", "--json"])
    assert "Indexing" not in capsys.readouterr().err


def test_an_answer_streams_on_a_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[str] = []
    monkeypatch.setattr(
        "phi3_industry.cli.console.Console.write", lambda _, text: pieces.append(text)
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["ask", QUESTION, "--strategy", "rag"]) == 0
    assert "".join(pieces).endswith("] 38.2 bar")
    assert len(pieces) > 2
    assert "pumps.csv#P-4471 (quote found)" in capsys.readouterr().out


def test_an_error_has_a_traceback_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--traceback", "--verbose"):
        assert main(["ask", QUESTION, option]) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("Traceback")
        assert shown.splitlines()[-1].startswith("error: There is no knowledge base")


def test_an_error_that_nobody_foresaw_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("phi3_industry.cli.init.template", lambda: {}["gone"])
    message = failure(capsys, "init")
    assert "KeyError: 'gone'" in message
    assert "--traceback" in message


def test_what_a_command_needs_and_lacks_is_a_wrong_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, wanted in (
        (["ask"], "There is no question"),
        (["ask", " "], "The question is empty"),
        (["index"], "There is nothing to index"),
        (["index", "--query", "SELECT 1"], "--query needs the URL"),
        (["compare"], "There are no questions"),
        (["finetune", "q.jsonl"], "It is not said where the adapter goes"),
    ):
        assert wanted in failure(capsys, *arguments, code=2)


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_questions(folder / "q.jsonl")
    monkeypatch.setattr("phi3_industry.cli.compare.load_llm", None)  # nothing is loaded
    for file, wanted in (("gone/r.html", "there is no folder 'gone'"), ("docs", "is a folder")):
        assert wanted in failure(capsys, "compare", "q.jsonl", "--html", file)
        assert wanted in failure(capsys, "compare", "q.jsonl", "--csv", file)


# --- cut short ----------------------------------------------------------------------------------


def test_an_interrupt_is_one_line_and_leaves_whole_documents(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        (folder / "docs" / f"{number}.md").write_text(
            f"# Pump {number}\n\nIt weighs {number} kg.\n"
        )
    add, calls = FaissSQLiteVectorStore.replace_document, []

    def add_and_interrupt(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return add(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FaissSQLiteVectorStore, "replace_document", add_and_interrupt)
    capsys.readouterr()
    # a shell lets what it starts in the background ignore interrupts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["index", "docs", "--quiet"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "interrupted\n")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert result(capsys, "doctor", "--verify")["ok"] is True
    again = result(capsys, "index", "docs")["sources"]
    assert isinstance(again, list)
    assert len(again[0]["unchanged"]) + len(again[0]["added"]) == 5


def test_an_interrupted_report_is_not_half_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(_: object, path: str, **__: object) -> None:
        Path(path).write_text("<html>")
        raise KeyboardInterrupt

    write_questions(folder / "q.jsonl")
    (folder / "report.html").write_text("earlier")
    monkeypatch.setattr("phi3_industry.evaluation.result.ComparisonResult.to_html", write_half)
    assert main(["compare", "q.jsonl", "--html", "report.html"]) == 130
    assert (folder / "report.html").read_text() == "earlier"
    assert not list(folder.glob(".*.partial"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other pipes")
def test_a_closed_pipe_ends_silently() -> None:
    process = subprocess.Popen(
        script("completion", "bash"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is full")
def test_a_full_disk_under_the_output_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            script("completion", "bash"), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: There is no room left to write the output")
    assert len(finished.stderr.splitlines()) == 1


def test_an_answer_that_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    (tmp_path / "übung").mkdir()
    finished = subprocess.run(
        script("init", "übung"), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert "\\xfcbung" in finished.stdout
