"""The project file: found, checked, and laid under the command line."""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from pathlib import Path

import pytest

from phi3_industry.cli import main
from phi3_industry.cli.init import template
from phi3_industry.cli.parser import build_parser
from phi3_industry.cli.project import find_project, read_project, resolve
from phi3_industry.cli.settings import SETTINGS
from phi3_industry.errors import ConfigurationError

FILE = "phi3-industry.toml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a folder inside, which is the working folder."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "models" / "own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "inside")
    return tmp_path


def resolved(project: Path, text: str, *command_line: str) -> argparse.Namespace:
    (project / FILE).write_text(text, encoding="utf-8")
    arguments = build_parser().parse_args(list(command_line))
    arguments.project = read_project(find_project(Path.cwd()))
    resolve(arguments, arguments.project)
    return arguments


def refused(project: Path, text: str) -> str:
    path = project / FILE
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_project(path)
    assert str(caught.value).startswith(f"'{path}'")
    return str(caught.value)


def test_it_is_found_above_and_its_paths_begin_there(project: Path) -> None:
    arguments = resolved(
        project,
        'model = "models/own"\nkb = "store"\nadapter = "adapters/a"\ntop_k = 5\n',
        "ask",
        "x",
    )
    assert arguments.model == str(project / "models" / "own")
    assert arguments.kb == str(project / "store")
    assert arguments.adapter == str(project / "adapters" / "a")
    assert arguments.adapter_name == "a"
    assert arguments.top_k == 5
    assert arguments.origins["top_k"] == str(project / FILE)


def test_the_knowledge_base_that_nobody_names_is_the_projects(project: Path) -> None:
    arguments = resolved(project, "", "ask", "x")
    assert arguments.kb == str(project / "kb")
    assert arguments.origins["kb"] == "default"


def test_the_command_line_wins_and_its_paths_begin_here(project: Path) -> None:
    arguments = resolved(
        project,
        'kb = "store"\ntop_k = 5\n[finetune]\npacking = true\nrank = 4\noutput = "a"\n',
        *("finetune", "q.jsonl", "--kb", "mine", "--no-packing"),
    )
    assert arguments.kb == "mine"
    assert arguments.train_questions == "q.jsonl"
    assert arguments.packing is False
    assert arguments.rank == 4
    assert arguments.output == str(project / "a")
    assert arguments.origins["kb"] == "command line"


def test_a_hub_id_is_no_path(project: Path) -> None:
    hub = "microsoft/Phi-3-mini-4k-instruct"
    assert resolved(project, f'model = "{hub}"', "ask", "x").model == hub


def test_adapters_have_names(project: Path) -> None:
    text = 'adapter = "north"\n[adapters]\nnorth = "a/n1"\nsouth = "a/s1"\n'
    arguments = resolved(project, text, "ask", "x")
    assert (arguments.adapter, arguments.adapter_name) == (str(project / "a" / "n1"), "north")
    arguments = resolved(project, text, "ask", "x", "--adapter", "south")
    assert (arguments.adapter, arguments.adapter_name) == (str(project / "a" / "s1"), "south")
    arguments = resolved(project, text, "ask", "x", "--adapter", "elsewhere/other")
    assert (arguments.adapter, arguments.adapter_name) == ("elsewhere/other", "other")


def test_a_path_inside_the_working_folder_is_shown_from_there(project: Path) -> None:
    assert resolved(project, 'documents = "inside/docs"', "index").documents == ["docs"]


def test_the_folder_of_a_store_begins_where_the_file_lies(project: Path) -> None:
    found = {
        address: resolved(project, f'store = "{address}"', "ask", "x").store
        for address in (
            "qdrant:nodes?collection=a",
            "qdrant+http://127.0.0.1:6333?collection=a",
            "postgresql://me@127.0.0.1/kb?table=a",
            "folder",
        )
    }
    there = f"qdrant:{project / 'nodes'}?collection=a"
    assert list(found.values()) == [there, *list(found)[1:]]
    assert resolved(project, "", "ask", "x").store == "folder"


# --- what is wrong is named ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("top_kk = 3", "key 'top_kk': there is no such key. The nearest is 'top_k' at the top."),
        ("rank = 3", "The nearest is 'rank' in [finetune]."),
        ("[finetune]\nlearningrate = 3", "The nearest is 'learning_rate' in [finetune]."),
        ("[finetune]\nmodel = 'x'", "The nearest is 'model' at the top."),
        ("zzz = 1", "The keys are: model, "),
        ("top_k = 0", "key 'top_k': it must be a whole number of at least 1, and is 0."),
        ("top_k = true", "it must be a whole number of at least 1, and is True."),
        ("top_k = 2.0", "it must be a whole number of at least 1, and is 2.0."),
        ("model = 3", "it must be a text, and is 3."),
        ('model = ""', "it must be a text, and is ''."),
        ("documents = [1]", "it must be a path or a list of paths"),
        ('store = "postgresql://me:secret@db/kb?table=a"', "key 'store': it holds a password"),
        ("store = 3", "key 'store': it must be a text, and is 3."),
        ('strategy = "best"', "it must be one of auto, base, rag, fine_tuned, rag_fine_tuned"),
        ("[finetune]\nlearning_rate = -1", "it must be a number above 0, and is -1."),
        ("[finetune]\nlearning_rate = inf", "it must be a number above 0, and is inf."),
        ("[index]\nrefresh = 1", "key 'index.refresh': it must be true or false, and is 1."),
        ("finetune = 1", "key 'finetune': there is no such key."),
        ("adapters = 1", "key 'adapters': it must be a table"),
        ("[adapters]\na = 1", "key 'adapters.a': it must be a path, and is 1."),
        ("model = ", "is not valid TOML: Invalid value (at end of document)"),
        ("[model]\nname = 1", "key 'model': it must be a text"),
    ],
)
def test_what_is_wrong_is_named(project: Path, text: str, wanted: str) -> None:
    assert wanted in refused(project, text)


def test_no_project_file_says_which_secret_goes_to_a_server(project: Path) -> None:
    assert "no such key" in refused(project, 'api_key_env = "AWS_SECRET_ACCESS_KEY"')


def test_other_encodings_are_refused_and_a_mark_of_windows_is_not(project: Path) -> None:
    path = project / FILE
    path.write_bytes("top_k = 4".encode("utf-16"))
    with pytest.raises(ConfigurationError, match="is not in UTF-8"):
        read_project(path)
    path.write_bytes(b"\xef\xbb\xbftop_k = 4")
    assert read_project(path).values == {"top_k": 4}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no such owners")
def test_a_file_above_that_belongs_to_somebody_else_is_not_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / FILE).write_text("")
    own = (project / FILE).stat().st_uid
    monkeypatch.setattr("phi3_industry.cli.project._is_of_somebody_else", lambda _: True)
    with pytest.raises(ConfigurationError, match=r"belongs to another user.*--project"):
        find_project(Path.cwd())
    assert find_project(project) == project / FILE  # in the folder itself it was not looked for
    monkeypatch.undo()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    from phi3_industry.cli.project import _is_of_somebody_else

    assert _is_of_somebody_else(project / FILE) is (own != 0)


# --- init ---------------------------------------------------------------------------------------


def test_the_template_sets_nothing_and_every_line_of_it_is_right(project: Path) -> None:
    assert tomllib.loads(template()) == {
        table: {} for table in ("index", "finetune", "compare", "adapters")
    }
    filled = re.sub(r"^# (\w+ = )", r"\1", template(), flags=re.MULTILINE)
    (project / FILE).write_text(filled, encoding="utf-8")
    read = read_project(project / FILE)
    assert set(read.values) == {setting.name for setting in SETTINGS.values()}
    assert read.adapters == {"mine": str(project / "adapters" / "mine")}


def test_init_leaves_what_is_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    (project / "inside" / FILE).write_text("top_k = 2")
    assert main(["init"]) == 1
    assert "it was left as it is" in capsys.readouterr().err
    assert (project / "inside" / FILE).read_text() == "top_k = 2"


def test_doctor_shows_where_each_setting_is_from_and_survives_a_wrong_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / FILE).write_text("top_k = 7\ndocuments = 'gone'\n")
    assert main(["doctor", "--kb", "there"]) == 1
    shown = capsys.readouterr().out
    assert str(project / FILE) in shown
    assert re.search(r"top_k +7 +project file\n", shown)
    assert re.search(r"kb +there +command line\n", shown)
    assert re.search(r"strategy +auto +default\n", shown)
    assert f"There is no {project / 'gone'}" in " ".join(shown.split())
    (project / FILE).write_text("top_k = 'many'\n")
    assert main(["doctor"]) == 1
    assert "key 'top_k': it must be a whole number" in " ".join(capsys.readouterr().out.split())
    assert main(["ask", "x"]) == 1
    assert "key 'top_k'" in capsys.readouterr().err
    assert main(["ask", "x", "--project", "nowhere.toml"]) == 1
    assert "There is no 'nowhere.toml'" in capsys.readouterr().err
