"""What a store has acknowledged, kept beside its database.

A commit is safe in SQLite's log when it returns, but a log that is damaged later loses its end
without a word. So a writer notes, after each commit and before it tells anybody, which state of the
store that was and how far the log went. Whoever opens the store finds at least that much or an
error. A note that is older than the database, missing or damaged says less, and never that a good
store is bad: a writer that dies between commit and note leaves an older one, and so may a backup.

The file has two places, written in turns and each with a checksum, so that a write that is cut off
leaves the note before. Writing in place asks the disk once; a new file under another name, synced,
renamed and synced with its folder, would ask it three times.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from phi3_industry.vector_stores.log import LogPosition
from phi3_industry.vector_stores.schema import sync_folder

__all__ = ["Acknowledged", "AcknowledgedFile"]

_logger = logging.getLogger(__name__)

_PLACE_BYTES = 512  # a disk writes as much whole or not at all
_BINARY = getattr(os, "O_BINARY", 0)
# a link in its place could lead out of the folder, and opening a pipe could take for ever
_CAREFULLY = _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_DURABLY = getattr(os, "O_DSYNC", 0)


@dataclass(frozen=True)
class Acknowledged:
    """A state of a store that somebody was told of.

    Attributes:
        store_id: The store; a note that came with another store's files says nothing.
        generation: How many changes it had seen.
        log: How far the log went; ``None`` if there was nothing in it.
        folded: Whether all of that is in the database, too, so that the log may be gone.
    """

    store_id: str
    generation: int
    log: LogPosition | None
    folded: bool = False


class AcknowledgedFile:
    """The file ``store.acknowledged`` of a store.

    Args:
        folder: The store's folder.
    """

    FILE_NAME = "store.acknowledged"

    def __init__(self, folder: Path) -> None:
        self.path = folder / self.FILE_NAME
        self._descriptor: int | None = None
        self._number = 0

    def read(self) -> Acknowledged | None:
        """Return the latest note; ``None`` if there is none, or none that is undamaged."""
        notes = self._read_all()
        if not notes:
            return None
        return notes[max(notes)]

    def open(self) -> None:
        """Make the file ready to be written, by the holder of the writer's lock.

        Raises:
            OSError: It cannot be made or written.
        """
        if self._descriptor is not None:
            return
        self._number = max(self._read_all(), default=0)
        if self.path.is_symlink() or (self.path.exists() and not _is_our_own(self.path.lstat())):
            self.path.unlink()
        is_new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | _CAREFULLY | _DURABLY
        self._descriptor = os.open(self.path, flags, 0o644)
        if is_new:
            sync_folder(self.path.parent)

    def write(self, acknowledged: Acknowledged) -> None:
        """Write a note; it is on disk when this returns.

        Raises:
            OSError: It cannot be written; the one before is there.
        """
        assert self._descriptor is not None  # noqa: S101 - open() was called with the lock
        number = self._number + 1
        log = acknowledged.log
        text = json.dumps(
            {
                "number": number,
                "store_id": acknowledged.store_id,
                "generation": acknowledged.generation,
                "log": None if log is None else [log.salt, log.frames],
                "folded": acknowledged.folded,
            }
        )
        place = f"{zlib.crc32(text.encode()):08x} {text}".ljust(_PLACE_BYTES - 1) + "\n"
        os.lseek(self._descriptor, number % 2 * _PLACE_BYTES, os.SEEK_SET)
        os.write(self._descriptor, place.encode())
        if not _DURABLY:
            os.fsync(self._descriptor)
        self._number = number

    def close(self) -> None:
        """Close the file, if it was opened to be written."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _read_all(self) -> dict[int, Acknowledged]:
        """Return the undamaged notes by their numbers."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | _CAREFULLY)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._warn(error.strerror or str(error))
            return {}
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._warn("it is no file")
                return {}
            data = os.read(descriptor, 2 * _PLACE_BYTES)
        finally:
            os.close(descriptor)
        places = [data[:_PLACE_BYTES], data[_PLACE_BYTES:]]
        notes = dict(note for place in places if (note := _parsed(place)) is not None)
        if data and not notes:
            self._warn("its checksums do not match")
        return notes

    def _warn(self, problem: str) -> None:
        _logger.warning(
            "'%s' is damaged (%s). The store is used without it: damage to the log of a killed "
            "writer may go unnoticed until the next change, which writes it anew.",
            self.path,
            problem,
        )


def _parsed(place: bytes) -> tuple[int, Acknowledged] | None:
    checksum, _, text = place.rstrip().partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        note = json.loads(text)
        log = None if note["log"] is None else LogPosition(str(note["log"][0]), int(note["log"][1]))
        known = (str(note["store_id"]), int(note["generation"]), log, bool(note["folded"]))
        return int(note["number"]), Acknowledged(*known)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def _is_our_own(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
