"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi3_industry.finetuning.folders import replaced_folder


def write(folder: Path, text: str) -> None:
    with replaced_folder(folder, marker="mark") as working:
        (working / "mark").write_text(text)
        (working / "sub").mkdir()
        (working / "sub" / "file").write_text(text)


def fail_midway(folder: Path, text: str) -> None:
    with replaced_folder(folder, marker="mark") as working:
        (working / "mark").write_text(text)
        raise RuntimeError("midway")


def test_folder_appears_complete(tmp_path: Path) -> None:
    write(tmp_path / "new" / "out", "one")
    assert (tmp_path / "new" / "out" / "sub" / "file").read_text() == "one"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_earlier_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "one")
    (tmp_path / "out" / "leftover").touch()
    write(tmp_path / "out", "two")
    assert (tmp_path / "out" / "mark").read_text() == "two"
    assert not (tmp_path / "out" / "leftover").exists()


def test_failure_leaves_the_earlier_folder(tmp_path: Path) -> None:
    write(tmp_path / "out", "one")
    with pytest.raises(RuntimeError, match="midway"):
        fail_midway(tmp_path / "out", "two")
    assert (tmp_path / "out" / "mark").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_death_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "out", "one")
    (tmp_path / "out").rename(tmp_path / ".out.earlier")
    with pytest.raises(RuntimeError, match="midway"):
        fail_midway(tmp_path / "out", "two")
    assert (tmp_path / "out" / "mark").read_text() == "one"


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="should become a folder, but is a file"):
        write(tmp_path / "out", "one")
    assert (tmp_path / "out").read_text() == "mine"
