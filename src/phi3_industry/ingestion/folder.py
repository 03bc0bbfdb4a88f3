"""Find the documents of a folder without ever leaving it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from phi3_industry.ingestion.readers import KNOWN_ENDINGS

__all__ = ["FolderListing", "list_folder"]


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """What a folder holds.

    Attributes:
        files: Relative posix path to the file, in the order of the paths.
        skipped: (relative posix path, reason) of what is passed over.
    """

    files: dict[str, Path]
    skipped: tuple[tuple[str, str], ...]


def list_folder(folder: str | PathLike[str]) -> FolderListing:
    """List the documents of a folder and of the folders in it.

    Hidden files and folders and Office's lock files (``~$plan.docx``) are passed over in
    silence, as they are no documents. Links that lead out of the folder and links to folders are
    passed over with a reason.

    Raises:
        FileNotFoundError: There is no such folder.
        NotADirectoryError: It is no folder.
    """
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder '{root}'.")
    if not root.is_dir():
        raise NotADirectoryError(f"'{root}' is no folder.")
    inside = root.resolve()
    files: dict[str, Path] = {}
    skipped: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        place = Path(error.filename).relative_to(root).as_posix() if error.filename else str(root)
        skipped.append((place, f"The folder cannot be read: {error.strerror or error}."))

    for current, folders, names in os.walk(root, onerror=unreadable, followlinks=False):
        here = Path(current)
        for name in sorted(folders):
            if not name.startswith(".") and (here / name).is_symlink():
                relative = (here / name).relative_to(root).as_posix()
                skipped.append((relative, "It is a link to a folder. Add that folder by itself."))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if name.startswith((".", "~$")):
                continue
            file = here / name
            relative = file.relative_to(root).as_posix()
            reason = _reason_to_skip(file, inside)
            if reason is None:
                files[relative] = file
            else:
                skipped.append((relative, reason))
    ordered = dict(sorted(files.items()))
    return FolderListing(files=ordered, skipped=tuple(sorted(skipped)))


def _reason_to_skip(file: Path, inside: Path) -> str | None:
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return "It is a link that leads nowhere."
    if not target.is_relative_to(inside):
        return "It is a link that leads out of the folder. Copy the file into the folder."
    if not target.is_file():
        return "It is no plain file."
    if file.suffix.lower() not in KNOWN_ENDINGS:
        ending = f"'{file.suffix}'" if file.suffix else "without an ending"
        return f"There is no reader for files {ending}."
    return None
