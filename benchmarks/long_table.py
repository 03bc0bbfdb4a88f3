"""Index a table larger than memory should have to hold, and say what it took.

    python benchmarks/long_table.py /tmp/long --mebibytes 1024

Writes a table of that size, as CSV and as Parquet, and puts each into a knowledge base with an
embedding that costs nothing, so that what is measured is reading, making nodes and storing them.
With ``--read-only`` the rows are read and thrown away: the reader alone.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from llama_index.core.embeddings import MockEmbedding

from phi3_industry.ingestion import Table
from phi3_industry.ingestion.readers import stream_document
from phi3_industry.knowledge_base import KnowledgeBase

_WORDS = (
    "oil",
    "seal",
    "shaft",
    "bearing",
    "motor",
    "valve",
    "gasket",
    "flange",
    "rotor",
    "spring",
)
_COLUMNS = ("Tag", "Kind", "Site", "Load (t)", "Pressure", "Checked", "Note")


class RandomEmbedding(MockEmbedding):
    """Gives random vectors, which cost next to nothing."""

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        draw = np.random.default_rng(len(texts[0]))
        vectors: list[list[float]] = draw.standard_normal((len(texts), self.embed_dim)).tolist()
        return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write the tables and the stores")
    parser.add_argument("--mebibytes", type=int, default=16, help="size of the CSV file")
    parser.add_argument("--kinds", nargs="+", default=["csv", "parquet"])
    parser.add_argument("--read-only", action="store_true", help="read the rows and store none")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    table = arguments.folder / "table.csv"
    write_csv(table, size=arguments.mebibytes * 2**20)
    for kind in arguments.kinds:
        file = table if kind == "csv" else write_parquet(table)
        measure(file, read_only=arguments.read_only)


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
            " ".join(draw.choices(_WORDS, k=10)),
        ]


def write_csv(file: Path, *, size: int) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for row in rows():
            writer.writerow(row)
            if stream.tell() >= size:
                return


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


def measure(file: Path, *, read_only: bool) -> None:
    before = _peak_mib()
    start = time.perf_counter()
    if read_only:
        with file.open("rb") as stream:
            blocks = stream_document(stream, name=file.name).blocks
            count = sum(len(block.rows) for block in blocks if isinstance(block, Table))
    else:
        path = file.parent / f"kb-{file.suffix[1:]}"
        with KnowledgeBase.open(path, embed_model=RandomEmbedding(embed_dim=384)) as base:
            count = base.add(file).nodes
    seconds = time.perf_counter() - start
    print(
        f"{file.suffix[1:]}: {file.stat().st_size / 2**20:.0f} MiB, {count} rows in "
        f"{seconds:.1f} s ({count / seconds:.0f}/s); peak memory {before:.0f} MiB before and "
        f"{_peak_mib():.0f} MiB after"
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
