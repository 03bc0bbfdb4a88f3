"""What the integration tests share: a working folder, and a database server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_parts import TABLE
from phi3_industry.cli import main
from postgres_server import PostgresServer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one indexed table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pumps.csv").write_text(TABLE, encoding="utf-8")
    assert main(["index", "docs"]) == 0
    return tmp_path


@pytest.fixture(scope="session")
def postgres_of_the_session() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def postgres(postgres_of_the_session: PostgresServer) -> PostgresServer:
    """A PostgreSQL with pgvector that is running; a test may kill it."""
    if not postgres_of_the_session.is_running:
        postgres_of_the_session.start()
    return postgres_of_the_session
