"""The folder of a run that is not finished: checkpoints, and which of them can be trusted.

A checkpoint counts when ``complete.json`` stands in it. That file is written last, after every
other file has reached the disk, and holds their SHA-256. What a killed process left half written
has none or does not match it, and the checkpoint before is taken.
Source of the fault this avoids: transformers issue 35782.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_industry.errors import ConfigurationError

__all__ = [
    "complete_checkpoints",
    "mark_complete",
    "open_run",
    "run_folder_of",
    "step_of",
]

_MARKER_NAME = "complete.json"
_IDENTITY_NAME = "run.json"
_PREFIX = "checkpoint-"  # transformers' own


def run_folder_of(target: Path) -> Path:
    """Give the hidden folder beside an adapter in which its run keeps its checkpoints."""
    return target.with_name(f".{target.name}.training")


def step_of(checkpoint: Path) -> int:
    """Give the optimiser step at which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def open_run(
    folder: Path, identity: Mapping[str, Any], *, resume: bool, writes: bool = True
) -> Path | None:
    """Begin a run in its folder, or find where an interrupted one goes on.

    Args:
        folder: The run's folder.
        identity: What decides the outcome of the run, as JSON values: model, rows, settings.
        resume: Whether an interrupted run is to go on.
        writes: Whether this process may change the folder; of several one does.

    Returns:
        The last complete checkpoint if the run goes on from one.

    Raises:
        FileExistsError: An interrupted run could go on, and ``resume`` is not set.
        ConfigurationError: The interrupted run is another one.
    """
    found = complete_checkpoints(folder)
    if found and not resume:
        raise FileExistsError(
            f"A run that was interrupted after step {step_of(found[-1])} is in '{folder}'. Go on "
            "with it by finetune(resume=True) or phi3-industry finetune --resume, or delete that "
            "folder to begin anew."
        )
    # as it reads after a round trip: tuples become lists
    wanted = json.loads(json.dumps(identity))
    if found:
        _check_same_run(folder, wanted)
        return found[-1]
    if writes:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / _IDENTITY_NAME).write_text(json.dumps(wanted, indent=2), encoding="utf-8")
    return None


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run that are whole, the oldest first."""
    found = [
        path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdecimal() and _is_complete(path)
    ]
    return sorted(found, key=step_of)


def mark_complete(checkpoint: Path) -> None:
    """Say of a checkpoint that all its files are written, once they are on the disk."""
    hashes = {}
    for path in _files(checkpoint):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        hashes[path.relative_to(checkpoint).as_posix()] = _sha256(path)
    working = checkpoint / f".{_MARKER_NAME}"
    with working.open("w", encoding="utf-8") as file:
        json.dump(hashes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    working.rename(checkpoint / _MARKER_NAME)


def _is_complete(checkpoint: Path) -> bool:
    try:
        hashes = json.loads((checkpoint / _MARKER_NAME).read_text(encoding="utf-8"))
        return all(_sha256(checkpoint / name) == found for name, found in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _check_same_run(folder: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = json.loads((folder / _IDENTITY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    differing = [
        f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise ConfigurationError(
            f"The interrupted run in '{folder}' is another one: {'; '.join(differing)}. Resume it "
            "with what it began with, or delete that folder to begin anew."
        )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
