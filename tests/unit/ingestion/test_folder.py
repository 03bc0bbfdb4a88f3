from __future__ import annotations

import os
from pathlib import Path

import pytest

from phi3_industry.ingestion.folder import list_folder


def test_documents_are_listed_by_relative_path(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.MD").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    listing = list_folder(tmp_path)
    assert list(listing.files) == ["a.txt", "b/x.MD"]
    assert listing.skipped == ()


def test_hidden_and_lock_files_are_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text("x")
    (tmp_path / ".b.txt").write_text("x")
    (tmp_path / "~$c.docx").write_text("x")
    assert list_folder(tmp_path).files == {}
    assert list_folder(tmp_path).skipped == ()


def test_unknown_kinds_are_skipped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert list_folder(tmp_path).skipped == (
        ("a.png", "There is no reader for files '.png'."),
        ("b", "There is no reader for files without an ending."),
    )


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    inside = tmp_path / "docs"
    inside.mkdir()
    (inside / "real.txt").write_text("x")
    (inside / "good.txt").symlink_to(inside / "real.txt")
    (inside / "out.txt").symlink_to(secret)
    (inside / "up.txt").symlink_to("../secret.txt")
    (inside / "gone.txt").symlink_to(tmp_path / "nothing.txt")
    (inside / "ring.txt").symlink_to(inside / "ring.txt")
    (inside / "folder").symlink_to(tmp_path)
    listing = list_folder(inside)
    assert list(listing.files) == ["good.txt", "real.txt"]
    assert dict(listing.skipped).keys() == {
        "folder", "gone.txt", "out.txt", "ring.txt", "up.txt"
    }  # fmt: skip
    assert "leads out of the folder" in dict(listing.skipped)["out.txt"]
    assert "leads nowhere" in dict(listing.skipped)["ring.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert list_folder(tmp_path).skipped == (("pipe.txt", "It is no plain file."),)


def test_missing_folder_and_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        list_folder(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match="is no folder"):
        list_folder(tmp_path / "a.txt")
