"""Parquet files: typed tables, read some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from phi3_industry._optional import import_optional
from phi3_industry.errors import IngestionError
from phi3_industry.ingestion.limits import ReadLimits
from phi3_industry.ingestion.pieces import PIECE_ROWS, record_pieces
from phi3_industry.ingestion.source import SourceDocument
from phi3_industry.ingestion.tables import Table

__all__ = ["read_parquet"]

_BUFFER_BYTES = 1 << 20
_METADATA_BYTES = 64 * 2**20
_METADATA_ITEMS = 1_000_000


def read_parquet(
    stream: BinaryIO, *, source: str, title: str, limits: ReadLimits
) -> SourceDocument:
    """Read a Parquet file.

    Args:
        stream: The file, to be read while the document's blocks are gone through.
        source: The file, for messages.
        title: The document's title.
        limits: What is read at most.

    Returns:
        The document; its blocks are an iterator, which raises an `IngestionError` where the file
        turns out to be damaged.

    Raises:
        IngestionError: The file is damaged or too large.
        MissingDependencyError: pyarrow is not installed.
    """
    parquet = import_optional("pyarrow.parquet", purpose=f"read '{source}'", extra="readers")
    try:
        file = parquet.ParquetFile(
            stream,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,  # or whole row groups are read ahead
            thrift_string_size_limit=_METADATA_BYTES,
            thrift_container_size_limit=_METADATA_ITEMS,
        )
        metadata = file.metadata
        unpacked = sum(
            metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)
        )
        columns = [str(name) for name in file.schema_arrow.names]
    except Exception as error:  # pyarrow raises whatever a damaged file leads it to
        raise _damaged(source, error) from error
    if unpacked > limits.streamed_bytes or len(columns) > limits.columns:
        raise IngestionError(
            source,
            f"It would unpack to {unpacked} bytes in {len(columns)} columns; at most "
            f"{limits.streamed_bytes} bytes in {limits.columns} columns are read. Split the file, "
            "or raise the limits.",
        )
    return SourceDocument(title=title, blocks=_pieces(file, columns, source))


def _pieces(file: Any, columns: list[str], source: str) -> Iterator[Table]:
    yield from record_pieces(_records(file, source), columns=columns)


def _records(file: Any, source: str) -> Iterator[tuple[Any, ...]]:
    batches = file.iter_batches(batch_size=PIECE_ROWS, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            values = [column.to_pylist() for column in batch.columns]
        except Exception as error:  # pyarrow raises whatever a damaged file leads it to
            raise _damaged(source, error) from error
        yield from zip(*values, strict=True)


def _damaged(source: str, error: Exception) -> IngestionError:
    return IngestionError(source, f"The Parquet file is damaged ({error}). Write it anew.")
