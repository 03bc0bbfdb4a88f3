"""What it costs to note each change before it is acknowledged.

    python benchmarks/note_cost.py

Adds the same nodes to new stores in turns, as the store does it and without reading the log back
and without writing the note; in calls of 1, 10 and 500 nodes. ``--clock wall`` includes waiting for
the disk.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from measuring import (
    add_common_options,
    alternate,
    now,
    print_conditions,
    print_table,
    spread,
    times_faster,
)
from store_size import nodes

from phi3_industry.vector_stores import FaissSQLiteVectorStore
from phi3_industry.vector_stores.log_guard import LogGuard

NOTED, NOT_NOTED = "noted", "not noted"
CALLS = {1: 300, 10: 60, 500: 4}


def let_sqlite_fold(_: LogGuard, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_autocheckpoint = 1000")


def add_all(folder: Path, batches: list[list[Any]], *, clock: Any) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    with FaissSQLiteVectorStore(folder) as store:
        store.add(batches[0])
        began = now(clock)
        for batch in batches[1:]:
            store.add(batch)
        return now(clock) - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_common_options(parser, clock="cpu", rounds=5)
    options = parser.parse_args()
    print_conditions(options)
    rows = []
    for size, calls in CALLS.items():
        calls = 3 if options.quick else calls
        everything = list(nodes("hard", size * (calls + 1)))
        batches = [everything[first : first + size] for first in range(0, len(everything), size)]
        with tempfile.TemporaryDirectory() as folder:

            def noted(
                _: int, path: Path = Path(folder) / "store", batches: list[list[Any]] = batches
            ) -> float:
                return add_all(path, batches, clock=options.clock)

            def not_noted(number: int, noted: Callable[[int], float] = noted) -> float:
                with mock.patch.object(LogGuard, "note", let_sqlite_fold):
                    return noted(number)

            seconds = alternate({NOTED: noted, NOT_NOTED: not_noted}, rounds=options.rounds)
        for name in (NOTED, NOT_NOTED):
            rates = [size * calls / taken for taken in seconds[name]]
            ratio = times_faster(seconds, name, than=NOT_NOTED)
            rows.append([str(size), name, spread(rates, digits=0), ratio])
    print_table(("nodes a call", "", "nodes per second", "x not noted"), rows)


if __name__ == "__main__":
    main()
