"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

__all__ = ["check_target", "replaced_folder", "working_folder_of"]


def check_target(target: str | PathLike[str], *, marker: str) -> Path:
    """Check that a folder may be written, before anything costly is done.

    Args:
        target: The folder to write.
        marker: A file that our own folders of this kind hold.

    Returns:
        The folder as an absolute path.

    Raises:
        FileExistsError: Something is there that is neither an empty folder nor one of ours.
    """
    path = Path(target).expanduser().absolute()
    if not path.exists():
        return path
    if not path.is_dir():
        raise FileExistsError(f"'{path}' should become a folder, but is a file. Move the file.")
    if any(path.iterdir()) and not (path / marker).exists():
        raise FileExistsError(
            f"The folder '{path}' is not empty and holds no '{marker}', so it was not made by "
            "this library and is left alone. Choose another folder or empty this one."
        )
    return path


def working_folder_of(target: Path) -> Path:
    """Give the hidden folder beside a target in which its content is prepared."""
    return target.with_name(f".{target.name}.partial")


def _earlier_folder_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.earlier")


@contextmanager
def replaced_folder(target: str | PathLike[str], *, marker: str) -> Iterator[Path]:
    """Prepare a folder beside its place and rename it into place when it is complete.

    If the body raises, what was prepared is removed and an earlier folder stays as it was. What
    a killed process left behind is removed by the next one.

    Args:
        target: The folder to write. An earlier one of ours is replaced.
        marker: A file that our own folders of this kind hold.

    Yields:
        The folder to fill.

    Raises:
        FileExistsError: See :func:`check_target`.
    """
    path = check_target(target, marker=marker)
    if not path.exists() and _earlier_folder_of(path).exists():
        _earlier_folder_of(path).rename(path)  # the last process died between its two renames
    working = working_folder_of(path)
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    try:
        yield working
        _flush(working)
        _rename_into_place(working, path)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        raise


def _rename_into_place(working: Path, path: Path) -> None:
    earlier = _earlier_folder_of(path)
    shutil.rmtree(earlier, ignore_errors=True)
    if path.exists():
        path.rename(earlier)
    try:
        working.rename(path)
    except OSError:
        if earlier.exists():
            earlier.rename(path)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Bring every file of a folder to the disk, so that a renamed folder is a complete one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
