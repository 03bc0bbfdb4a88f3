"""The lock that lets one process at a time write to a store."""

from __future__ import annotations

import errno
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phi3_industry.errors import StoreError, StoreLockedError

__all__ = ["WriterLock"]

if sys.platform == "win32":
    import msvcrt

    # a byte far behind the record: Windows locks bytes, and a locked byte cannot be read
    _LOCKED_BYTE = 1 << 30

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# a link in the place of the file could make us write over anything; Windows has no such flag
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class WriterLock:
    """An exclusive lock on a file in the store's folder.

    The operating system holds the lock and drops it when the process dies, however it dies, so
    a dead writer's lock needs no recovery. The file's content only tells others who holds it.

    Args:
        folder: The store's folder; it must exist when the lock is taken.
    """

    FILE_NAME = "writer.lock"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / self.FILE_NAME
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock; do nothing if it is held already.

        Raises:
            StoreLockedError: Another writer holds it; names its process and since when.
            StoreError: The file system cannot lock files, or refuses the file.
        """
        if self.held:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o644)
        except OSError as error:
            raise self._failure(error) from error
        try:
            if os.fstat(descriptor).st_nlink > 1:
                raise OSError(errno.EMLINK, "it has a second name elsewhere")
            if not _try_lock(descriptor):
                holder = self._read_holder(descriptor)
                raise StoreLockedError(
                    self._folder,
                    process_id=int(holder.get("process_id", 0)),
                    since=str(holder.get("since", "an unknown time")),
                )
            self._write_holder(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise self._failure(error) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would race with the next writer."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)

    def _failure(self, error: OSError) -> StoreError:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StoreError(
                f"The store '{self._folder}' cannot be written to: {error.strerror}. Change the "
                "folder's permissions, or open the store with read_only=True."
            )
        return StoreError(
            f"The lock file '{self._path}' cannot be taken: {error.strerror or error}. Nothing "
            "was changed. Free some space, or put the store on a file system that locks files."
        )

    @staticmethod
    def _write_holder(descriptor: int) -> None:
        holder = {
            "process_id": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(holder).encode())

    @staticmethod
    def _read_holder(descriptor: int) -> dict[str, Any]:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            holder = json.loads(os.read(descriptor, 4096))
        except ValueError:  # the other process has taken the lock and not written its name yet
            return {}
        return holder if isinstance(holder, dict) else {}
