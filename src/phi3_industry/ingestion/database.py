"""What a database answers to a query is a table, read some rows at a time and never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError, MissingDependencyError
from phi3_industry.ingestion.limits import DEFAULT_LIMITS, ReadLimits
from phi3_industry.ingestion.pieces import PIECE_ROWS, record_pieces
from phi3_industry.ingestion.source import SourceDocument

__all__ = ["SqlQuery"]

_READ_ONLY = {
    "mariadb": "SET TRANSACTION READ ONLY",
    "mysql": "SET TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "postgresql": "SET TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
"""How a database is told to refuse writing; others are rolled back, as these are."""

_WRITABLE = {"sqlite": "PRAGMA query_only = OFF"}
"""How a connection is given back as it was, where the setting outlives the transaction."""


@dataclass(frozen=True, kw_only=True)
class SqlQuery:
    """A query, as a document.

    Rows are fetched some at a time, from a cursor of the server where the driver has such. The
    transaction is read-only where the database knows that, and rolled back in any case.

    Attributes:
        url: A SQLAlchemy URL such as ``"postgresql+psycopg://reader:secret@host/plant"``, or a
            SQLAlchemy engine. It is shown nowhere: neither in nodes nor in reports.
        query: A query that gives rows. Give it an ``ORDER BY``, so that unchanged rows are known
            as such.
        title: The document's title.
        parameters: Values of the query's ``:name`` parameters.
        limits: The most columns.
    """

    url: Any = field(repr=False)
    query: str
    title: str
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    limits: ReadLimits = DEFAULT_LIMITS

    def digest(self) -> str:
        """Run the query and return the SHA-256 of its columns and rows.

        Raises:
            IngestionError: The database refuses the query or cannot be reached.
            MissingDependencyError: SQLAlchemy or the database's driver is not installed.
        """
        digest = hashlib.sha256()
        with self._result() as (columns, records):
            digest.update(repr(columns).encode())
            for record in records:
                digest.update(repr(record).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()

    def read(self) -> SourceDocument:
        """Give the rows as a document; the query runs while its blocks are gone through."""

        def pieces() -> Iterator[Any]:
            with self._result() as (columns, records):
                yield from record_pieces(records, columns=columns)

        return SourceDocument(title=self.title, blocks=pieces())

    @contextmanager
    def _result(self) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
        """Run the query and give its columns and rows."""
        sqlalchemy = import_optional("sqlalchemy", purpose="read a database", extra="sql")
        engine = self._engine(sqlalchemy)
        try:
            with engine.connect() as connection, _read_only(connection, sqlalchemy.text):
                rows = connection.execution_options(yield_per=PIECE_ROWS).execute(
                    sqlalchemy.text(self.query), dict(self.parameters)
                )
                columns = [str(name) for name in rows.keys()]  # noqa: SIM118 - no dictionary
                if len(columns) > self.limits.columns:
                    raise self._refused(f"It gives more than {self.limits.columns} columns.")
                yield columns, (tuple(row) for row in rows)
        except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            # the driver's own words, without the address that it was given
            raise self._refused(f"{type(error).__name__}: {error}") from None
        finally:
            if engine is not self.url:
                engine.dispose()

    def _engine(self, sqlalchemy: Any) -> Any:
        if hasattr(self.url, "connect"):
            return self.url
        try:
            engine = sqlalchemy.create_engine(self.url, hide_parameters=True)
        except ModuleNotFoundError as error:
            name = (error.name or "a driver").split(".")[0]
            raise MissingDependencyError(name, purpose="reach the database") from None
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise self._refused(
                "The address is no SQLAlchemy URL. Write it like "
                "'postgresql+psycopg://user:password@host/database' or 'sqlite:///file.db'."
            ) from None
        file = str(engine.url.database or ":memory:") if engine.dialect.name == "sqlite" else ":"
        if not file.startswith((":", "file:")) and not Path(file).is_file():
            raise self._refused(f"There is no file '{file}'.")  # SQLite would make one
        return engine

    def _refused(self, problem: str) -> IngestionError:
        """Word why it cannot be read, without the password, wherever the driver may repeat it."""
        from sqlalchemy import exc, make_url

        secrets = [str(self.url)]
        with suppress(exc.ArgumentError, ValueError):  # an address that is none has no password
            url = make_url(getattr(self.url, "url", self.url))
            secrets += [url.render_as_string(hide_password=False), str(url.password or "")]
        for secret in filter(None, secrets):
            problem = problem.replace(secret, "***")
        return IngestionError(self.title, f"The database did not answer the query. {problem}")


@contextmanager
def _read_only(connection: Any, text: Callable[[str], Any]) -> Iterator[None]:
    """Keep a connection from writing, and undo what was written where that is not known."""
    dialect = connection.dialect.name
    if dialect in _READ_ONLY:
        connection.execute(text(_READ_ONLY[dialect]))
    try:
        yield
    finally:
        connection.rollback()
        if dialect in _WRITABLE:
            connection.execute(text(_WRITABLE[dialect]))
