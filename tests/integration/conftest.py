"""What the integration tests share: a database server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postgres_server import PostgresServer


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
