"""Access to ``store.sqlite``: opening, checking, snapshots, transactions, errors in plain words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from phi3_industry.errors import StoreCorruptError, StoreError
from phi3_industry.vector_stores.filters import LOWER_FUNCTION
from phi3_industry.vector_stores.lock import WriterLock
from phi3_industry.vector_stores.log_guard import RESTORE, LogGuard
from phi3_industry.vector_stores.migrations import describe_versions, migrate
from phi3_industry.vector_stores.nodes import check_all_rows
from phi3_industry.vector_stores.schema import (
    APPLICATION_ID,
    DATABASE_NAME,
    DamagedContentError,
    create_database,
    lexical_checksum,
    read_meta,
    write_meta,
)

__all__ = ["Database"]

_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
# What SQLite says when damage has hit names or JSON, which it reports as errors in the query.
_DAMAGE_AS_ERROR = (
    "Could not decode to UTF-8",
    "malformed",
    "no such",
    "table",
    "unrecognized token",
    "vtable constructor failed",
)
_WRITING = "mode=rw"
# Connections of a parent process: a child must neither use them nor close them.
_PARENTS: list[sqlite3.Connection | None] = []
# A store up to this size is read through when it is opened, which takes about 0.1 s; of a
# larger one the rows are checked as they are read, and all of them by verify().
_CHECK_ON_OPEN_BYTES = 16 * 2**20


class Database:
    """One handle on a store's database, opened when it is first needed.

    The journal is SQLite's write-ahead log with ``synchronous=FULL``: a commit is on disk when it
    returns, readers see the last committed state while a writer works, and a writer's death at
    any moment leaves the last committed state. What is acknowledged is noted beside it, so that
    a log that is damaged afterwards is found (:mod:`phi3_industry.vector_stores.log_guard`). The
    writer's lock is taken at the first write and kept until :meth:`close`. Not safe to use from
    several threads at once; the store sees to that.

    Args:
        folder: The store's folder.
        read_only: Never write, not even the folder.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        self.folder = folder
        self.path = folder / DATABASE_NAME
        self.read_only = read_only
        self.lock = WriterLock(folder)
        self._guard = LogGuard(self.path)
        self._connection: sqlite3.Connection | None = None
        self._may_write = False
        self._process_id = os.getpid()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection | None]:
        """Read from one committed state; yields ``None`` while there is no database yet."""
        with self._plain_errors():
            connection = self._open()
            if connection is None or connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write; everything done inside is on disk when it ends, or none of it on an error."""
        if self.read_only:
            raise StoreError(
                f"The store '{self.folder}' was opened read-only. Open it with read_only=False "
                "to change it."
            )
        with self._plain_errors():
            connection = self._open_for_writing()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
            self._guard.note(connection)

    def seal(self) -> None:
        """Keep a checksum of the lexical index, so that the next opening can check it too.

        Rows carry their checksums from the start; what FTS5 makes of them changes as a whole
        with each transaction, so that its checksum is taken once, before closing. Only a store
        that is small enough to be read through when it is opened is sealed.
        """
        if not self.lock.held or not self.path.exists():
            return
        if self.path.stat().st_size > _CHECK_ON_OPEN_BYTES:
            return
        with self.transaction() as connection:
            meta = read_meta(connection)
            generation, seal = meta["generation"], meta["lexical_seal"]
            if seal is None or seal["generation"] != generation:
                seal = {"generation": generation, "checksum": lexical_checksum(connection)}
                write_meta(connection, lexical_seal=seal)

    def close(self) -> None:
        """Close the connection, fold the log into the database, and give the lock back."""
        connection, self._connection = self._connection, None
        try:
            if os.getpid() != self._process_id:
                _PARENTS.append(connection)
            elif connection is not None and self._may_write:
                self._close_writing(connection)
            elif connection is not None:
                connection.close()
        finally:
            self._guard.close()
            self.lock.release()

    def check(self) -> int:
        """Read everything and compare it with its checksums.

        Returns:
            The number of nodes.

        Raises:
            StoreCorruptError: Something is damaged.
        """
        if self.lock.held:
            with self.transaction() as connection:
                # a statement that writes nothing, and which SQLite lets only a writer make
                connection.execute("INSERT INTO passages (passages) VALUES ('integrity-check')")
        with self.snapshot() as reader:
            return 0 if reader is None else _check(reader)

    def _open(self) -> sqlite3.Connection | None:
        if self._process_id != os.getpid():
            # a forked child must not use its parent's connection, nor think that it has the lock
            self._process_id = os.getpid()
            _PARENTS.append(self._connection)
            self._connection = None
            self._guard.close()
            self.lock.release()
        if self._connection is None and self._exists():
            self._connection, self._may_write = self._open_for_reading(), False
        return self._connection

    def _open_for_writing(self) -> sqlite3.Connection:
        if not self.lock.held:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
        if not self._exists():
            create_database(self.path)
        self._guard.open()
        connection = self._open()
        if connection is None or not self._may_write:
            if connection is not None:
                connection.close()
            self._connection = None
            connection = self._connect(_WRITING)
            self._connection, self._may_write = connection, True
        return connection

    def _close_writing(self, connection: sqlite3.Connection) -> None:
        """Close a connection that may write, with the log folded and that noted, or neither."""
        if self._guard.fold(connection):
            connection.close()
            return
        with ExitStack() as reading:  # SQLite folds the log if a connection is the last
            with suppress(sqlite3.Error):  # nor does it fold what it cannot read
                reader = reading.enter_context(closing(self._connect_unchecked("mode=ro")))
                reader.execute("PRAGMA user_version").fetchone()
            connection.close()

    def _exists(self) -> bool:
        if self.path.exists():
            return True
        others = ("vectors.*.faiss", self._guard.path.name)
        if self.folder.is_dir() and any(any(self.folder.glob(name)) for name in others):
            raise StoreCorruptError(
                self.path,
                problem="it is missing, while other files of the store are there",
                advice=RESTORE,
            )
        if self.read_only:
            raise StoreError(
                f"There is no store in '{self.folder}'. Check the path, or open it with "
                "read_only=False and add nodes to it."
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"'{self.folder}' is a file. Give the path of a folder.")
        return False

    def _open_for_reading(self) -> sqlite3.Connection:
        """Connect after checking that this is a store, whole and of the present format.

        Whoever has not written gets a connection that cannot write, so that closing it changes
        nothing: SQLite would fold the log of a writer that was killed.
        """
        connection = self._connect(self._reading())
        try:
            self._check_size(connection)
            if self._is_outdated(connection):
                connection.close()
                self._bring_up_to_date()
                connection = self._connect(self._reading())
            if self.path.stat().st_size <= _CHECK_ON_OPEN_BYTES:
                connection.execute("BEGIN")
                _check(connection)
                _roll_back(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, options: str) -> sqlite3.Connection:
        self._check_files()
        acknowledged = self._guard.check_log()
        connection = self._connect_unchecked(options)
        try:
            self._check_kind(connection)
            self._guard.check_state(connection, acknowledged)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_unchecked(self, options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=30.0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # the guard folds the log
            connection.create_function(LOWER_FUNCTION, 1, str.lower, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_files(self) -> None:
        for ending in ("", "-wal", "-shm", "-journal"):
            path = self.path.with_name(self.path.name + ending)
            if path.is_symlink() or (path.exists() and not path.is_file()):
                problem = "it is a link or no file, and may lead out of the store's folder"
                raise StoreCorruptError(path, problem=problem, advice=RESTORE)
            # readers write to the shared memory of the log, but never to the database
            is_written = bool(ending) or not self.read_only
            if is_written and path.exists() and path.stat().st_nlink > 1:
                raise StoreCorruptError(
                    path,
                    problem="it has a second name elsewhere, which writing would change, too",
                    advice="Copy the folder with its content and open the copy.",
                )
        if self.path.stat().st_size == 0:
            raise StoreCorruptError(self.path, problem="it is empty", advice=RESTORE)

    def _reading(self) -> str:
        if os.access(self.folder, os.W_OK) or not self._guard.log_is_empty():
            return "mode=ro"
        return "mode=ro&immutable=1"  # a folder on a read-only disk: there can be no writer

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        if application_id != APPLICATION_ID:
            raise StoreCorruptError(
                self.path, problem="it is not the database of a store", advice=RESTORE
            )
        foreign = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type IN ('trigger', 'view')"
        ).fetchone()
        if foreign is not None:  # they would run with our next statement
            raise StoreCorruptError(
                self.path, problem=f"'{foreign[0]}' in it is not of a store", advice=RESTORE
            )

    def _is_outdated(self, connection: sqlite3.Connection) -> bool:
        found, ours = describe_versions(connection)
        if found == ours:
            return False
        difference = f"The store '{self.folder}' has the format {found} and this phi3-industry "
        if found[0] > ours[0] or found[1] > ours[1]:
            raise StoreError(
                f"{difference}works with formats up to {ours}. Use the version that wrote it, or "
                "a later one."
            )
        if self.read_only:
            raise StoreError(
                f"{difference}reads {ours}. Open it once with read_only=False, which brings it up "
                "to date."
            )
        return True

    def _bring_up_to_date(self) -> None:
        held = self.lock.held
        self.lock.acquire()
        try:
            self._guard.open()
            connection = self._connect(_WRITING)
            try:
                connection.execute("BEGIN IMMEDIATE")
                _check_pages(connection)
                migrate(connection, self.folder)
                connection.execute("COMMIT")
            finally:
                _roll_back(connection)
                self._close_writing(connection)
        finally:
            if not held:
                self._guard.close()
                self.lock.release()

    def _check_size(self, connection: sqlite3.Connection) -> None:
        if not self._guard.log_is_empty():
            return  # what is cut off may stand in the log
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        if self.path.stat().st_size % page_bytes:
            raise StoreCorruptError(self.path, problem="its end is cut off", advice=RESTORE)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except DamagedContentError as error:
            raise StoreCorruptError(self.path, problem=str(error), advice=RESTORE) from error
        except sqlite3.DatabaseError as error:
            raise self._in_plain_words(error) from error
        except OSError as error:
            if error.errno not in (*_NO_SPACE, errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise self._not_written(error.strerror or str(error)) from error

    def _in_plain_words(self, error: sqlite3.DatabaseError) -> Exception:
        extended = getattr(error, "sqlite_errorcode", None)
        code = None if extended is None else extended & 0xFF
        if (
            code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            or extended == sqlite3.SQLITE_IOERR_SHORT_READ
            or str(error).startswith(_DAMAGE_AS_ERROR)
        ):
            return StoreCorruptError(self.path, problem=str(error), advice=RESTORE)
        if code in (
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
        ):
            return self._not_written(str(error))
        if code == sqlite3.SQLITE_BUSY:
            return StoreError(f"The store '{self.folder}' was busy for 30 s. Try again later.")
        return error

    def _not_written(self, problem: str) -> StoreError:
        return StoreError(
            f"The store '{self.folder}' cannot be read or written: {problem}. What was "
            "acknowledged before is intact. Free some space or correct the permissions, and try "
            "again."
        )


def _check(connection: sqlite3.Connection) -> int:
    _check_pages(connection)
    meta = read_meta(connection)
    seal = meta["lexical_seal"]
    if (
        seal is not None
        and seal["generation"] == meta["generation"]
        and seal["checksum"] != lexical_checksum(connection)
    ):
        raise DamagedContentError("the lexical index does not match its checksum")
    count = check_all_rows(connection)
    if count != meta["count"]:
        raise DamagedContentError(f"it has {count} nodes where there were {meta['count']}")
    return count


def _check_pages(connection: sqlite3.Connection) -> None:
    for (line,) in connection.execute("PRAGMA integrity_check(1)"):
        if line != "ok":
            raise DamagedContentError(str(line))


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
