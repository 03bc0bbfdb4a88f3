"""The command line on a knowledge base whose nodes lie in another vector store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_parts import QUESTION, TABLE, failure, result, write_questions
from phi3_industry.cli import main
from postgres_server import PostgresServer

STORE = "qdrant:nodes?collection=kb"
PASSWORD = "o7X-never-shown"


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a table that is not indexed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pumps.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def elsewhere(documents: Path) -> Path:
    """The same, indexed, with the nodes in a folder of Qdrant."""
    assert main(["index", "docs", "--store", STORE]) == 0
    assert (documents / "kb" / "register.sqlite").is_file()
    assert not (documents / "kb" / "store.sqlite").exists()
    return documents


def test_each_command_works_on_it(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "ask", QUESTION, "--strategy", "rag", "--store", STORE)
    assert str(found["answer"]).endswith("] 38.2 bar")
    assert main(["index", "docs", "--store", STORE]) == 0
    assert "0 added, 0 updated, 1 unchanged" in capsys.readouterr().out
    write_questions(elsewhere / "q.jsonl")
    compared = result(capsys, "compare", "q.jsonl", "--store", STORE)
    assert "38.2 bar" in json.dumps(compared)


def test_a_project_file_says_where_it_lies(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "phi3-industry.toml").write_text(f'store = "{STORE}"\n')
    (elsewhere / "inside").mkdir()
    monkeypatch.chdir(elsewhere / "inside")
    capsys.readouterr()
    assert main(["ask", QUESTION, "--strategy", "rag"]) == 0
    streams = capsys.readouterr()
    assert "38.2 bar" in streams.out
    place = f"qdrant:{elsewhere / 'nodes'}?collection=kb"
    assert f"The nodes lie in {place}, as {elsewhere / 'phi3-industry.toml'} says." in streams.err
    checked = result(capsys, "doctor")
    parts = {part["part"]: part["text"] for part in checked["findings"]}  # type: ignore[attr-defined]
    assert "1 documents, 2 nodes in the collection 'kb' of Qdrant" in parts["knowledge base"]
    message = failure(capsys, "ask", QUESTION, "--store", "folder")
    assert "--store ADDRESS" in message
    assert main(["index", str(elsewhere / "docs"), "--kb", "own", "--store", "folder"]) == 0
    message = failure(capsys, "ask", QUESTION, "--kb", "own")
    assert "lie in the folder itself" in message
    assert "Say --store folder" in message


def test_what_does_not_belong_together_is_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["ask", QUESTION], ["index", "docs"], ["finetune", "--output", "a"]):
        message = failure(capsys, *command)
        assert "lie in the collection 'kb' of Qdrant" in message
        assert "--store ADDRESS: qdrant:FOLDER?collection=NAME" in message
    message = failure(capsys, "ask", QUESTION, "--store", "qdrant:gone?collection=kb")
    assert "there is no folder 'gone' for it. Correct --store" in message
    assert not (elsewhere / "gone").exists()
    message = failure(capsys, "ask", QUESTION, "--store", "qdrant:nodes?collection=other")
    assert "given was the collection 'other' of Qdrant" in message
    message = failure(capsys, "ask", QUESTION, "--kb", "none", "--store", STORE)
    assert f'DOCUMENTS --kb none --store "{STORE}"' in message
    assert "--from ADDRESS" in failure(capsys, "transfer", "kb", "copy")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"mysql://me:{PASSWORD}@127.0.0.1/kb?table=t", "is no address of a vector store"),
        (f"postgresql://me:1/{PASSWORD}@127.0.0.1/kb?table=t", "%2F for /"),
        (f"postgresql://me:1?{PASSWORD}@127.0.0.1/kb?table=t", "is no address"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1:x/kb?table=t", "is no address"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1/kb?table=t&x=1", "takes ['hnsw', 'words']"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1/kb?table=t&hnsw=true", "Say hnsw=yes or hnsw=no"),
        (f"qdrant+http://me:{PASSWORD}@127.0.0.1:9?collection=t", "whether its server runs"),
        (f"qdrant+http://127.0.0.1:6333?api_key={PASSWORD}", "qdrant needs 'collection'"),
        ("qdrant:docs/pumps.csv/x?collection=t", "cannot be opened"),
    ],
)
def test_addresses_that_do_not_work_are_one_line_without_the_password(
    documents: Path, address: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["index", "docs", "--kb", "other", "--store", address, "--traceback"]) == 1
    streams = capsys.readouterr()
    assert PASSWORD not in streams.out + streams.err
    errors = [line for line in streams.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not (documents / "other").exists()


def test_a_password_has_no_place_in_a_project_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"postgresql://me:{PASSWORD}@127.0.0.1/kb?table=t"
    (folder / "phi3-industry.toml").write_text(f'store = "{address}"\n')
    message = failure(capsys, "ask", QUESTION)
    assert "key 'store': it holds a password" in message
    assert "PGPASSWORD" in message
    assert PASSWORD not in message
    (folder / "phi3-industry.toml").unlink()
    assert main(["doctor", "--json", "--store", address]) == 1
    shown = capsys.readouterr()
    settings = {setting["name"]: setting for setting in json.loads(shown.out)["settings"]}
    assert settings["store"]["value"] == "postgresql://me:***@127.0.0.1/kb?table=t"
    assert PASSWORD not in shown.out + shown.err


@pytest.mark.servers
def test_postgresql_is_reached_with_a_password_from_the_environment(
    documents: Path,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    postgres.demand_password(user="guarded", password=PASSWORD)
    store = ("--kb", "kb2", "--store", postgres.url.replace("postgres@", "guarded@") + "?table=cli")
    with_password = store[-1].replace("guarded@", f"guarded:{PASSWORD}@")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the tries to connect
    message = failure(capsys, "index", "docs", *store)
    assert "the table 'public.data_cli' of PostgreSQL could not be reached" in message
    assert "no password supplied" in message
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert main(["index", "docs", *store]) == 0
    assert "38.2 bar" in str(result(capsys, "ask", QUESTION, *store)["answer"])
    monkeypatch.delenv("PGPASSWORD")
    capsys.readouterr()
    assert main(["ask", QUESTION, *store[:3], with_password, "--verbose"]) == 0
    assert main(["ask", QUESTION, *store[:3], with_password.replace("guarded:", "gone:")]) == 1
    streams = capsys.readouterr()
    assert "38.2 bar" in streams.out
    assert PASSWORD not in streams.out + streams.err
