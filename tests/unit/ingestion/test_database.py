from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy

from phi3_industry.errors import IngestionError, MissingDependencyError
from phi3_industry.ingestion.database import SqlQuery
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.pieces import PIECE_ROWS
from phi3_industry.ingestion.tables import Table

PUMPS = "SELECT * FROM pumps ORDER BY tag"


@pytest.fixture
def url(tmp_path: Path) -> str:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'plant.db'}")
    metadata = sqlalchemy.MetaData()
    pumps = sqlalchemy.Table(
        "pumps",
        metadata,
        sqlalchemy.Column("tag", sqlalchemy.String),
        sqlalchemy.Column("load", sqlalchemy.Float),
        sqlalchemy.Column("since", sqlalchemy.Date),
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [
            {"tag": f"P-{n:05}", "load": n + 0.5, "since": datetime.date(2024, 5, 1)}
            for n in range(2500)
        ]
        connection.execute(pumps.insert(), rows)
    engine.dispose()
    return f"sqlite:///{tmp_path / 'plant.db'}"


def tables(query: SqlQuery) -> list[Table]:
    return [block for block in query.read().blocks if isinstance(block, Table)]


def test_rows_are_fetched_some_at_a_time_with_their_columns(url: str) -> None:
    found = tables(SqlQuery(url=url, query=PUMPS, title="pumps"))
    assert [len(table.rows) for table in found] == [PIECE_ROWS, PIECE_ROWS, 500]
    assert found[0].columns == ("tag", "load", "since")
    assert found[2].rows[0] == ("P-02000", "2000.5", "2024-05-01")


def test_parameters_are_values_and_never_code(url: str) -> None:
    query = "SELECT * FROM pumps WHERE tag = :tag"
    asked = SqlQuery(url=url, query=query, title="p", parameters={"tag": "x' OR '1'='1"})
    assert tables(asked) == []
    asked = SqlQuery(url=url, query=query, title="p", parameters={"tag": "P-00001"})
    assert len(tables(asked)[0].rows) == 1


@pytest.mark.parametrize(
    "query",
    ["DELETE FROM pumps", "INSERT INTO pumps (tag) VALUES ('x') RETURNING tag", "DROP TABLE pumps"],
)
def test_database_is_never_changed(url: str, query: str, tmp_path: Path) -> None:
    with pytest.raises(IngestionError, match="did not answer the query"):
        tables(SqlQuery(url=url, query=query, title="p"))
    with sqlite3.connect(tmp_path / "plant.db") as connection:
        assert connection.execute("SELECT count(*) FROM pumps").fetchone() == (2500,)
    connection.close()


def test_given_engine_can_write_again_afterwards(url: str) -> None:
    engine = sqlalchemy.create_engine(url)
    assert tables(SqlQuery(url=engine, query=PUMPS, title="p"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM pumps"))
    engine.dispose()


def test_digest_changes_with_the_rows_alone(url: str, tmp_path: Path) -> None:
    query = SqlQuery(url=url, query=PUMPS, title="p")
    before = query.digest()
    assert query.digest() == before
    with sqlite3.connect(tmp_path / "plant.db") as connection:
        connection.execute("UPDATE pumps SET load = 7 WHERE tag = 'P-02499'")
    connection.close()
    assert query.digest() != before


def test_missing_file_is_refused_and_not_made(tmp_path: Path) -> None:
    query = SqlQuery(url=f"sqlite:///{tmp_path / 'none.db'}", query=PUMPS, title="p")
    with pytest.raises(IngestionError, match=r"There is no file '.*none\.db'"):
        query.digest()
    assert not (tmp_path / "none.db").exists()


def test_password_is_in_no_error_and_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "sqlite:///file:none?mode=ro&uri=true&password=s3cret"
    query = SqlQuery(url=address, query=PUMPS, title="p")
    assert "s3cret" not in repr(query)

    def refuse(*_: object, **__: object) -> None:
        raise sqlalchemy.exc.OperationalError("connect", {}, Exception(f"to {secret}: s3cret"))

    secret = "postgresql://reader:s3cret@host/plant"
    query = SqlQuery(url=secret, query=PUMPS, title="p")
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda *_, **__: Refusing(refuse))
    with pytest.raises(IngestionError) as caught:
        query.digest()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


class Refusing:
    """An engine that cannot connect."""

    def __init__(self, refuse: object) -> None:
        self.connect = refuse
        self.dialect = type("Dialect", (), {"name": "postgresql"})
        self.url = sqlalchemy.make_url("postgresql://host")

    def dispose(self) -> None:
        pass


def test_missing_driver_and_wrong_address_are_named(url: str) -> None:
    with pytest.raises(MissingDependencyError, match="oracledb' is needed to reach the database"):
        SqlQuery(url="oracle+oracledb://u:p@h/x", query=PUMPS, title="p").digest()
    with pytest.raises(IngestionError, match="The address is no SQLAlchemy URL"):
        SqlQuery(url="plant.db", query=PUMPS, title="p").digest()
    limits = ReadLimits(columns=2)
    with pytest.raises(IngestionError, match="more than 2 columns"):
        SqlQuery(url=url, query=PUMPS, title="p", limits=limits).digest()
