"""Brings an older store to the present format, all in one transaction.

A store carries two version numbers. ``PRAGMA user_version`` is the format of the tables, and the
property ``lexical_version`` says how texts were cut into terms. A writer that opens an older store
runs what is between inside one transaction: a crash leaves the store as it was. A reader may not
write, so it refuses an older store and says who can help; a newer store is refused by both.

To change the format:

- *How texts are cut, or which columns FTS5 has*: change ``lexical.py``, ``rows.passage_of`` and
  ``schema.LEXICAL_TABLES``, and raise ``lexical.LEXICAL_VERSION``. Nothing is needed here: the
  tables are dropped, made anew and filled from the nodes by :func:`cut_all_texts_anew`.
- *Anything else*: raise ``schema.SCHEMA_VERSION`` and add the step from the version before to
  ``_STEPS``. A step takes a connection inside the transaction. It never calls code that knows
  only the present tables, because later steps have not run yet.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi3_industry.vector_stores.lexical import LEXICAL_VERSION
from phi3_industry.vector_stores.nodes import all_nodes
from phi3_industry.vector_stores.rows import passage_of
from phi3_industry.vector_stores.schema import (
    LEXICAL_TABLES,
    SCHEMA_VERSION,
    read_properties,
    write_meta,
)
from phi3_industry.vector_stores.writing import insert_passage

__all__ = ["cut_all_texts_anew", "describe_versions", "migrate"]

_logger = logging.getLogger(__name__)

_Versions = tuple[int, int]


def describe_versions(connection: sqlite3.Connection) -> tuple[_Versions, _Versions]:
    """Return the format and lexical version of a store, and those that this code works with.

    Raises:
        DamagedContentError: The store's properties are damaged.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    lexical = int(read_properties(connection).get("lexical_version", 0))
    return (int(version), lexical), (SCHEMA_VERSION, LEXICAL_VERSION)


def migrate(connection: sqlite3.Connection, folder: Path) -> None:
    """Bring a store to the present versions, inside the caller's transaction.

    Args:
        connection: A connection inside a transaction, on a store that is not newer than this code.
        folder: The store's folder, to name in the log.

    Raises:
        DamagedContentError: A row is damaged; nothing may be committed.
    """
    found, wanted = describe_versions(connection)
    if found == wanted:
        return  # another process was quicker
    _logger.info("The store '%s' is brought from version %s to %s.", folder, found, wanted)
    for version in range(found[0], SCHEMA_VERSION):
        _STEPS[version](connection)
    if found[1] != LEXICAL_VERSION:
        cut_all_texts_anew(connection)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def cut_all_texts_anew(connection: sqlite3.Connection) -> None:
    """Make the lexical tables anew and fill them from the nodes, inside a transaction."""
    for table in ("terms", "passages"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in LEXICAL_TABLES:
        connection.execute(statement)
    for row, node in all_nodes(connection):
        insert_passage(connection, row, passage_of(node))
    write_meta(connection, lexical_version=LEXICAL_VERSION, lexical_seal=None)


def _name_the_metric_and_the_count(connection: sqlite3.Connection) -> None:
    """1 to 2: stores compare by cosine, inner product or L2; there was only cosine before."""
    (count,) = connection.execute("SELECT count(*) FROM nodes").fetchone()
    write_meta(connection, metric="cosine", count=count)


def _index_the_metadata(connection: sqlite3.Connection) -> None:
    """2 to 3: filters read the metadata alone and no longer the whole table."""
    connection.execute("CREATE INDEX nodes_by_metadata ON nodes (metadata)")


#: For each version, the step to the next one.
_STEPS: dict[int, Callable[[sqlite3.Connection], Any]] = {
    1: _name_the_metric_and_the_count,
    2: _index_the_metadata,
}
