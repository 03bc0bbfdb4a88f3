"""The command line as a user meets it: what it prints, and how it fails."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cli_parts import QUESTION, failure, result, write_questions
from phi3_industry.cli import main
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from tiny_models import save_random_adapter


def answer(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    return result(capsys, "ask", QUESTION, "--strategy", "rag", *options)


def test_a_table_is_indexed_and_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys)
    assert str(found["answer"]).endswith("] 38.2 bar")
    assert found["strategy"] == "rag"
    assert found["sources"]
    assert main(["ask", QUESTION]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "38.2 bar" in shown
    assert "pumps.csv#P-4471 (quote found)" in shown
    assert "no adapter is loaded" in shown


def test_an_abstention_has_an_exit_code_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "What is the noise level of boiler K-990?"]) == 3


def test_indexing_again_changes_nothing_and_refresh_deletes_what_is_gone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "docs" / "more.md").write_text("# More\n\nThe oil of pump P-9 is Tovex 32.\n")
    capsys.readouterr()
    assert main(["index", "docs"]) == 0
    assert "1 added, 0 updated, 1 unchanged" in capsys.readouterr().out
    (folder / "docs" / "more.md").unlink()
    assert main(["index", "docs", "--refresh"]) == 0
    assert "0 added, 0 updated, 1 unchanged, 1 deleted" in capsys.readouterr().out


def test_rows_of_a_database_are_indexed_with_a_query(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect("plant.db")) as connection, connection:
        connection.execute("CREATE TABLE fans (tag TEXT, speed REAL)")
        connection.execute("INSERT INTO fans VALUES ('F-1', 1500), ('F-2', 3000)")
    query = ["index", "sqlite:///plant.db", "--query", "SELECT * FROM fans ORDER BY tag"]
    capsys.readouterr()
    assert main([*query, "--name", "fans", "--summaries", "outline"]) == 0
    assert "1 added" in capsys.readouterr().out
    assert "did not answer the query" in failure(capsys, *query[:3], "DELETE FROM fans")


# --- bad input: each a clear error, the earlier index intact ------------------------------------


def test_an_empty_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = answer(capsys)
    (folder / "empty").mkdir()
    assert "holds no document that can be read" in failure(capsys, "index", "empty")
    assert answer(capsys) == before


def test_a_missing_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = answer(capsys)
    assert "There is no file or folder 'nowhere.md'" in failure(capsys, "index", "nowhere.md")
    assert answer(capsys) == before


def test_a_binary_file_named_txt_is_refused_and_skipped_in_a_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = answer(capsys)
    (folder / "docs" / "binary.txt").write_bytes(bytes(range(256)) * 20)
    assert "binary.txt" in failure(capsys, "index", "docs/binary.txt")
    assert main(["index", "docs"]) == 0
    shown = capsys.readouterr().out
    assert "1 unchanged" in shown
    assert "binary.txt" in shown
    assert answer(capsys) == before


def test_an_unknown_adapter_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys, "ask", QUESTION, "--adapter", "nowhere")
    assert "There is no adapter in 'nowhere'" in message


def test_an_adapter_of_another_base_is_refused(
    folder: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_random_adapter(
        folder / "foreign", tiny_phi3, prompt_fingerprint=DEFAULT_PROMPT.fingerprint
    )
    message = failure(capsys, "ask", QUESTION, "--adapter", "foreign")
    assert "the base model's configuration should be that of" in message
    assert answer(capsys)["answer"]


def test_a_question_of_a_hundred_thousand_characters_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failure(capsys, "ask", "pressure? " * 10_000)
    assert "The prompt needs" in message
    assert "Shorten the question" in message


def test_a_question_without_a_knowledge_base_is_refused_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = failure(capsys, "ask", QUESTION)
    assert "There is no knowledge base in 'kb'. Build it with: phi3-industry index" in message
    assert not (tmp_path / "kb").exists()


def test_a_bad_questions_file_is_refused_by_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "q.jsonl").write_text('{"question": "x", "answers": "y"}\n')
    message = failure(capsys, "compare", "q.jsonl")
    assert "'q.jsonl', record 1, field 'answers'" in message


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are those of POSIX")
def test_a_full_disk_while_indexing_leaves_the_index_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file size limit stands in for a full disk: both make a write fail half way."""
    before = answer(capsys)
    rows = "".join(f"X-{n},pump,{n} bar,{'filler ' * 40}\n" for n in range(60))
    (folder / "docs" / "big.csv").write_text("Tag,Kind,Pressure,Remark\n" + rows)
    size = (folder / "kb" / "store.sqlite").stat().st_size
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 20_000}, {size + 20_000}))\n"
        "from phi3_industry.cli import main\n"
        "sys.exit(main(['index', 'docs']))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder
    )
    assert finished.returncode == 1, finished.stderr
    assert "error: " in finished.stderr
    assert "Traceback" not in finished.stderr
    assert answer(capsys) == before
    assert main(["index", "docs"]) == 0
    assert "1 added" in capsys.readouterr().out


# --- demo ---------------------------------------------------------------------------------------


def test_the_demo_works_on_a_folder_of_the_user(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--docs", "docs", "--ask", QUESTION, "--output", "out"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "1 added" in shown
    assert [line for line in shown.splitlines() if line in ("base", "rag", "auto")] == [
        "base",
        "rag",
        "auto",
    ]
    assert "pumps.csv#P-4471 (quote found)" in shown


def test_the_demo_trains_compares_and_reports_on_questions_of_the_user(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_questions(folder / "q.jsonl")
    arguments = ["demo", "--docs", "docs", "--train-questions", "q.jsonl", "--questions", "q.jsonl"]
    assert main([*arguments, "--output", "out"]) == 0
    shown = capsys.readouterr().out
    for strategy in ("base", "rag", "fine_tuned", "rag_fine_tuned"):
        assert strategy in shown
    assert (folder / "out" / "adapters" / "house-format" / "phi3_industry.json").is_file()
    report = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in report
    assert "P-4471" in report


# --- help and doctor ----------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom phi3_industry.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'transformers', 'llama_index'} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip().endswith("set()")


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("torch", "embedded", "readers", "plots", "CPU", "CUDA"):
        assert word in shown


def test_doctor_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi3_industry.cli.installation._version", lambda name: None)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "pip install 'phi3-industry[readers]'" in shown
    assert "Missing: accelerate, bitsandbytes" in shown
    assert "torch is missing" in shown


def test_the_wheel_carries_the_examples_and_the_embedded_model(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    shutil.unpack_archive(next(tmp_path.glob("*.whl")), tmp_path / "wheel", "zip")
    package = tmp_path / "wheel" / "phi3_industry"
    for name in (
        "py.typed",
        "models/embedded/model.safetensors",
        "models/embedded/README.md",
        "examples/plant/questions.dev.jsonl",
        "examples/plant/documents/tables/rotating-machines.csv",
        "examples/aws-limits/NOTICE",
    ):
        assert (package / name).is_file(), name
