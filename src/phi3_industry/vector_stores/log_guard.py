"""Sees to it that a store whose log was damaged is refused, and never opens at an older state."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

from phi3_industry.errors import StoreCorruptError
from phi3_industry.vector_stores.acknowledged import Acknowledged, AcknowledgedFile
from phi3_industry.vector_stores.log import DamagedLogError, committed_part
from phi3_industry.vector_stores.schema import DamagedContentError, read_properties

__all__ = ["RESTORE", "LogGuard"]

_logger = logging.getLogger(__name__)

RESTORE = (
    "Restore the folder from a backup, or delete it and add the documents again. "
    "Nothing was answered from it."
)
# Pages in the log from which on it is folded into the database, as SQLite does by itself; and from
# which on its room is given back, too, so that who opens the store need not read much of it.
_FOLD_FROM, _SHORTEN_FROM = 1_000, 4_000
_GONE = "it is missing or empty"
_DAMAGED_HEAD = "the head of the log does not match its checksum"


class LogGuard:
    """Notes what is acknowledged, and compares what is there with it.

    Only the holder of the writer's lock has a connection that may write, and SQLite does not fold
    the log into the database by itself (``wal_autocheckpoint = 0``). :meth:`note` does, after the
    change was noted: had the writer died between folding and noting, a log that is damaged later
    would leave pages of two states.

    Args:
        database: The store's database.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._log = database.with_name(database.name + "-wal")
        self._file = AcknowledgedFile(database.parent)
        self._noted: Acknowledged | None = None

    @property
    def path(self) -> Path:
        """The file of the notes."""
        return self._file.path

    def check_log(self) -> Acknowledged | None:
        """Refuse a log that lacks something acknowledged; call it before SQLite opens it.

        Returns:
            What the store must hold at least, for :meth:`check_state`.

        Raises:
            StoreCorruptError: Names the log.
        """
        known = self._file.read()
        while known is not None and self._lacking(known):
            # a writer at work may have folded the log since, which it notes first, or have begun
            # it anew while it was read
            latest = self._file.read()
            if latest == known and (problem := self._lacking(known)):
                raise self._damaged_log(known, problem)
            known = latest
        return known

    def check_state(self, connection: sqlite3.Connection, known: Acknowledged | None) -> None:
        """Refuse a database that is older than what was acknowledged.

        Args:
            connection: A connection to it, in no transaction.
            known: What :meth:`check_log` returned.

        Raises:
            StoreCorruptError: Names the database.
        """
        found = read_properties(connection)
        if known is None or known.store_id != found.get("store_id"):
            return
        generation = int(found.get("generation", 0))
        if generation < known.generation:
            raise StoreCorruptError(
                self._database,
                problem=f"it is at change {generation}, and change {known.generation} was "
                "acknowledged",
                advice=self._restore_all("If an older state is what you want"),
            )

    def open(self) -> None:
        """Be ready to note; the caller holds the writer's lock."""
        self._file.open()

    def note(self, connection: sqlite3.Connection) -> None:
        """Note what has just been committed, then fold a long log into the database.

        Args:
            connection: The writer's connection, in no transaction.

        Raises:
            OSError: The note cannot be written, so that the change must not be acknowledged.
            StoreCorruptError: The log was damaged under the writer's hands.
        """
        noted = self._note(connection)
        if noted.log is not None and noted.log.frames >= _FOLD_FROM:
            self.fold(connection, shorten=noted.log.frames >= _SHORTEN_FROM)

    def fold(self, connection: sqlite3.Connection, *, shorten: bool = True) -> bool:
        """Bring what is in the log into the database, unless readers need it as it is.

        Args:
            connection: The writer's connection, in no transaction.
            shorten: Whether to empty the log as well.

        Returns:
            Whether the log may be gone from now on.
        """
        try:
            noted = self._note(connection)  # of what a writer left that was killed
            _, logged, folded = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if logged != folded:
                return False
            noted = replace(noted, folded=True)
            self._write(noted)
            self._file.write(noted)  # in both places: the note before demands the log
            if shorten:
                _empty(connection)
        except (sqlite3.Error, OSError, StoreCorruptError, DamagedContentError) as error:
            _logger.warning("'%s' was not folded into its database: %s", self._log, error)
            return False
        return True

    def log_is_empty(self) -> bool:
        """Whether there is no log, or nothing in it."""
        return not self._log.exists() or not self._log.stat().st_size

    def close(self) -> None:
        """Give up the file of the notes."""
        self._noted = None
        self._file.close()

    def _note(self, connection: sqlite3.Connection) -> Acknowledged:
        found = read_properties(connection)
        try:
            known = None if self._noted is None else self._noted.log
            position = committed_part(self._log, after=known)
        except DamagedLogError as error:
            raise StoreCorruptError(self._log, problem=_DAMAGED_HEAD, advice=RESTORE) from error
        noted = Acknowledged(str(found["store_id"]), int(found["generation"]), position)
        self._write(noted)
        return noted

    def _write(self, note: Acknowledged) -> None:
        if note != self._noted:
            self._file.write(note)
            self._noted = note

    def _lacking(self, known: Acknowledged) -> str:
        """Say what the log lacks; nothing if it has it or need not have it."""
        if known.log is None:
            return ""
        try:
            found, problem = committed_part(self._log), _GONE
        except DamagedLogError:
            found, problem = None, _DAMAGED_HEAD
        if found is None:
            return "" if known.folded else problem
        if found.salt != known.log.salt or found.frames >= known.log.frames:
            return ""
        if known.folded and not found.frames:  # SQLite will make no use of it
            return ""
        return (
            f"it was written by a writer that was killed, and of its {known.log.frames} pages only "
            f"{found.frames} are whole"
        )

    def _damaged_log(self, known: Acknowledged, problem: str) -> StoreCorruptError:
        advice = RESTORE
        if known.folded:
            advice = (
                f"All that was acknowledged is in the database, too: delete '{self._log}' while "
                "nothing uses the store."
            )
        elif problem == _GONE:
            advice = self._restore_all(
                "If another program has closed the database since, it has folded the log into it"
            )
        return StoreCorruptError(self._log, problem=problem, advice=advice)

    def _restore_all(self, otherwise: str) -> str:
        return (
            "Restore all files of the folder from one backup, or delete the folder and add the "
            f"documents again. {otherwise}, delete '{self._file.path}'."
        )


def _empty(connection: sqlite3.Connection) -> None:
    (waits_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")  # readers may prevent it
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {waits_ms}")
