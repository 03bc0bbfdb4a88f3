"""What the integration tests share: database servers, and vector stores made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores_under_test import SERVER_OF, StoreMaker

from chroma_server import ChromaServer
from postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres_of_the_session() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def chroma_of_the_session() -> Iterator[ChromaServer]:
    server = ChromaServer()
    yield server
    server.remove()


@pytest.fixture
def postgres(postgres_of_the_session: PostgresServer) -> PostgresServer:
    """A PostgreSQL with pgvector that is running; a test may kill it."""
    if not postgres_of_the_session.is_running:
        postgres_of_the_session.start()
    return postgres_of_the_session


@pytest.fixture
def chroma(chroma_of_the_session: ChromaServer) -> ChromaServer:
    """A Chroma server that is running; a test may kill it."""
    if not chroma_of_the_session.is_running:
        chroma_of_the_session.start()
    return chroma_of_the_session


@pytest.fixture
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreMaker]:
    """Makes stores of the kind that a test asks for by its parameter."""
    needed = SERVER_OF.get(request.param)
    server: Any = None if needed is None else request.getfixturevalue(needed)
    made = StoreMaker(request.param, tmp_path, server)
    yield made
    made.close()
