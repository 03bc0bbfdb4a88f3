"""Index a table that need not fit into memory; kill it half-way, run it again; say what it took.

    python benchmarks/huge_table.py --megabytes 16 32 64

Writes a table of each size and puts it into a knowledge base with an embedding that costs next to
nothing, so that what is measured is reading, making nodes and storing them. Every measurement is a
process of its own; peak memory is what it took beyond what it had when the table was opened. The
largest table is put in twice: the second time the process is killed when half of the rows are
stored, and started again. ``--kinds parquet`` takes the same rows from Parquet. With
``--read-only`` the rows are read and thrown away: the reader alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import MockEmbedding

from phi3_industry.errors import StoreError
from phi3_industry.ingestion import Table
from phi3_industry.ingestion.readers import stream_document
from phi3_industry.knowledge_base import KnowledgeBase
from phi3_industry.vector_stores import FaissSQLiteVectorStore

DIMENSIONS = 384
WORDS = ("oil", "seal", "shaft", "bearing", "motor", "valve", "gasket", "flange", "rotor", "coil")
COLUMNS = ("Tag", "Kind", "Site", "Load (t)", "Pressure", "Checked", "Note")


class CheapEmbedding(MockEmbedding):
    """Gives each text a vector of its own, always the same, and counts the texts."""

    _texts: int = PrivateAttr(default=0)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._texts += len(texts)
        seeds = np.array([zlib.crc32(text.encode()) for text in texts]) / 2**32
        vectors: list[list[float]] = np.sin(
            np.outer(seeds, np.arange(1, self.embed_dim + 1)) * 997.0
        ).tolist()
        return vectors


# The table


def rows(seed: int = 1) -> Iterator[list[str]]:
    draw = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield [
            f"P-{number:08}",
            draw.choice(("pump", "valve", "fan")),
            f"hall {draw.randrange(400)}",
            str(draw.randrange(1, 90)),
            f"{draw.uniform(0.5, 80):.1f} bar",
            f"{draw.randrange(1, 29)}.{draw.randrange(1, 13)}.2024",
            " ".join(draw.choices(WORDS, k=10)),
        ]


def write_csv(file: Path, *, size: int) -> int:
    """Write rows until the file has that many bytes; return how many they are."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for number, row in enumerate(rows(), start=1):
            writer.writerow(row)
            if stream.tell() >= size:
                return number
    raise AssertionError("there is no end to the rows")


def write_parquet(table: Path) -> Path:
    import pyarrow.csv
    import pyarrow.parquet

    file = table.with_suffix(".parquet")
    with (
        pyarrow.csv.open_csv(table) as reader,
        pyarrow.parquet.ParquetWriter(file, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
    return file


# One measurement, in a process of its own


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(file: Path, base: Path | None) -> dict[str, Any]:
    embedding = CheapEmbedding(embed_dim=DIMENSIONS)
    before, began, cpu = peak_mb(), time.perf_counter(), time.process_time()
    if base is None:
        with file.open("rb") as stream:
            blocks = stream_document(stream, name=file.name).blocks
            count = sum(len(block.rows) for block in blocks if isinstance(block, Table))
    else:
        with KnowledgeBase.open(base, embed_model=embedding) as opened:
            count = opened.add(file).nodes
    return {
        "stored": count,
        "embedded": embedding._texts,
        "seconds": time.perf_counter() - began,
        "CPU seconds": time.process_time() - cpu,
        "MB": peak_mb() - before,
    }


def command(file: Path, base: Path | None) -> list[str]:
    return [sys.executable, __file__, "--child", str(file), "" if base is None else str(base)]


def in_own_process(file: Path, base: Path | None) -> dict[str, Any]:
    finished = subprocess.run(command(file, base), check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


def count_of(base: Path) -> int:
    """How many rows are stored; 0 while there is no store yet."""
    try:
        with FaissSQLiteVectorStore(base, read_only=True) as store:
            return store.count
    except StoreError:
        return 0


def kill_half_way(file: Path, base: Path, *, expected: int) -> int:
    """Return how many rows were stored when the process was killed."""
    process = subprocess.Popen(command(file, base), stdout=subprocess.DEVNULL)
    try:
        while count_of(base) < expected / 2:
            if process.poll() is not None:
                raise SystemExit("It was done before it could be killed. Take a larger table.")
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    return count_of(base)


def must_be(found: int, written: int) -> None:
    if found != written:
        raise SystemExit(f"{written:,} rows were written, {found:,} were found")


def show(title: str, file: Path, found: dict[str, Any]) -> None:
    megabytes, rate = file.stat().st_size / 1e6, found["stored"] / found["CPU seconds"]
    print(
        f"{title:24}{file.suffix[1:]:8}{megabytes:8.1f} MB{found['stored']:12,} stored"
        f"{found['embedded']:12,} embedded{found['seconds']:10.1f} s"
        f"{found['CPU seconds']:10.1f} CPU s{rate:10,.0f} rows/CPU s{found['MB']:8.0f} MB more",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[16, 32, 64])
    parser.add_argument("--kinds", nargs="+", default=["csv"], choices=("csv", "parquet"))
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one if not given")
    parser.add_argument("--read-only", action="store_true", help="read the rows and store none")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        file, base = arguments.child
        print(json.dumps(measure(Path(file), Path(base) if base else None)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in sorted(arguments.megabytes):
            table = Path(folder) / "table.csv"
            written = write_csv(table, size=int(size * 1e6))
            for kind in arguments.kinds:
                file = table if kind == "csv" else write_parquet(table)
                base = None if arguments.read_only else Path(folder) / "kb"
                found = in_own_process(file, base)
                must_be(found["stored"], written)
                show("read" if base is None else "put in", file, found)
                if base is not None:
                    shutil.rmtree(base)
        if base is None:
            return
        killed = kill_half_way(file, base, expected=written)
        print(f"killed when {killed:,} of {written:,} rows were stored", flush=True)
        show("put in again after that", file, in_own_process(file, base))
        must_be(count_of(base), written)
        show("and again", file, in_own_process(file, base))


if __name__ == "__main__":
    main()
