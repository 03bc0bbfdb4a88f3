"""A durable LlamaIndex vector store in one folder: SQLite is the truth, FAISS the accelerator."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.accelerator import Accelerator
from phi3_industry.vector_stores.arguments import check_document, check_selection
from phi3_industry.vector_stores.async_calls import AsyncCalls
from phi3_industry.vector_stores.database import Database
from phi3_industry.vector_stores.dense import Hit
from phi3_industry.vector_stores.filters import Condition
from phi3_industry.vector_stores.identity import check_identity, expected_dimensions
from phi3_industry.vector_stores.nodes import (
    all_nodes,
    choice,
    has_document,
    load_nodes,
    load_vectors,
    matching_rows,
)
from phi3_industry.vector_stores.report import StoreReport
from phi3_industry.vector_stores.rows import NodeRow, to_row
from phi3_industry.vector_stores.schema import DATABASE_NAME, read_meta, write_meta
from phi3_industry.vector_stores.search import check_query, search
from phi3_industry.vector_stores.similarity import METRICS, Metric
from phi3_industry.vector_stores.writing import Change

if TYPE_CHECKING:
    from llama_index.core import StorageContext, VectorStoreIndex

__all__ = ["FaissSQLiteVectorStore"]

_logger = logging.getLogger(__name__)

# Nodes that are turned into rows and written at a time; bounds the memory that adding takes.
_BATCH = 512


class FaissSQLiteVectorStore(AsyncCalls):
    """Nodes, their texts and their vectors, in one folder that survives any crash.

    Every call that changes the store is one transaction: when it returns, the change is on disk,
    and if the process dies before, none of it is. One process writes at a time; it takes the
    writer's lock with its first change and gives it back with :meth:`close`. Any number of others
    read meanwhile, each call on one committed state. A store object may be shared by threads.

    Vectors are compared by cosine, inner product or L2, as chosen when the store is made
    (:mod:`phi3_industry.vector_stores.similarity`); whichever it is, higher is better. A small
    store compares with every vector. A large one keeps them compressed in memory and compares
    exactly with the best candidates; ``index_recall`` says how much of what is near that finds,
    measured on the store's own vectors. Text search is BM25
    over the terms of :mod:`phi3_industry.vector_stores.lexical`; its scores are positive, higher
    is better, and comparable only within one query. Hybrid scores are those of reciprocal rank
    fusion.

    In a LlamaIndex application::

        store = FaissSQLiteVectorStore("kb/vectors", identity=embedding_identity(embed_model))
        index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)

    Args:
        path: The store's folder. It is made at the first write.
        identity: What makes the vectors, as JSON values by name, such as ``{"embedding_model":
            "all-MiniLM-L6-v2", "dimensions": 384}``. The first writer's is kept, and opening the
            store with another one is refused. ``None`` leaves the check out.
        read_only: Never write and need no lock; the store must exist.
        metric: ``"cosine"``, ``"ip"`` or ``"l2"``; the store's own, or cosine for a new store, if
            ``None``.

    Raises:
        ValueError: There is no such metric.
        StoreError: There is no such store to read, or it cannot be read.
        StoreIdentityError: The store was built with another identity or metric.
        StoreCorruptError: The database is damaged.
    """

    stores_text: bool = Field(default=True, exclude=True)
    is_embedding_query: bool = Field(default=True, exclude=True)
    path: str = Field(description="The store's folder.")
    identity: dict[str, Any] | None = Field(
        default=None, description="What makes the vectors, as JSON values by name."
    )
    read_only: bool = Field(default=False, description="Never write.")
    metric: Metric = Field(default="cosine", description="How vectors are compared.")

    #: Whether queries in the modes TEXT_SEARCH, SPARSE and HYBRID are answered.
    supports_text_search: ClassVar[bool] = True

    _database: Database = PrivateAttr()
    _accelerator: Accelerator = PrivateAttr()
    _lock: Any = PrivateAttr()

    def __init__(
        self,
        path: str | PathLike[str],
        identity: dict[str, Any] | None = None,
        read_only: bool = False,
        metric: Metric | None = None,
    ) -> None:
        if metric is not None and metric not in METRICS:
            raise ValueError(f"The metric is {metric!r}; it must be one of {', '.join(METRICS)}.")
        identity = None if identity is None else json.loads(json.dumps(identity))
        super().__init__(path=fspath(path), identity=identity, read_only=read_only)  # type: ignore[call-arg]  # pydantic's fields
        self._lock = threading.RLock()
        self._database = Database(Path(self.path), read_only=read_only)
        self._accelerator = Accelerator(Path(self.path))
        weakref.finalize(self, _close_quietly, self._database)
        with self._database.snapshot() as connection:
            meta = {} if connection is None else read_meta(connection)
            self.metric = metric or meta.get("metric") or "cosine"
            self._check(meta)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "FaissSQLiteVectorStore"

    @classmethod
    def from_path(
        cls,
        path: str | PathLike[str],
        *,
        identity: dict[str, Any] | None = None,
        read_only: bool = False,
        metric: Metric | None = None,
    ) -> FaissSQLiteVectorStore:
        """Open a store that exists.

        Raises:
            StoreError: There is no store in that folder.
        """
        if not (Path(path) / DATABASE_NAME).exists():
            cls(path, read_only=True).close()  # says what is wrong with the folder
        return cls(path, identity=identity, read_only=read_only, metric=metric)

    @classmethod
    def from_llamaindex(
        cls,
        index: VectorStoreIndex,
        path: str | PathLike[str],
        *,
        identity: dict[str, Any] | None = None,
        metric: Metric | None = None,
    ) -> FaissSQLiteVectorStore:
        """Take over an index that LlamaIndex keeps in a ``FaissVectorStore`` and a docstore.

        Texts, metadata, relationships and vectors are kept; nothing is embedded anew. All of it
        is taken over, in one transaction, or nothing::

            context = StorageContext.from_defaults(persist_dir=..., vector_store=...)
            index = load_index_from_storage(context, embed_model=embed_model)
            store = FaissSQLiteVectorStore.from_llamaindex(index, "kb/vectors")

        Args:
            index: The index.
            path: Folder of the new store; there must be none in it yet.
            identity: What makes the vectors.
            metric: How to compare them; as the FAISS index does if ``None``. Another one is
                refused unless all vectors have length 1, where the order is the same.

        Raises:
            StoreError: There is a store already, or the index cannot be taken over as it is.
        """
        from phi3_industry.vector_stores.interchange import (
            compare_nodes,
            metric_of,
            nodes_with_vectors,
        )

        store = cls(path, identity=identity, metric=metric_of(index, metric))
        if store.count:
            raise StoreError(f"There is a store in '{store.path}' already. Give a new folder.")
        with store._lock, store._change() as (connection, change):
            for batch in store._batches(nodes_with_vectors(index), []):
                change.put(batch)
            compare_nodes((node for _, node in all_nodes(connection)), index)
        return store

    def to_llamaindex(self) -> StorageContext:
        """Return the content as LlamaIndex keeps it, with a ``FaissVectorStore`` and a docstore.

        All of it is in memory. ``load_index_from_storage(context, embed_model=...)`` makes an
        index of it, and ``context.persist(folder)`` writes it. Vectors that are compared by
        cosine are of length 1 there.

        Raises:
            StoreError: The store is empty.
        """
        from phi3_industry.vector_stores.interchange import storage_context

        with self._snapshot() as (connection, meta):
            return storage_context(connection, meta)

    # Properties

    @property
    def client(self) -> Any:
        """The FAISS index in memory, as of the last query; ``None`` before the first."""
        index = self._accelerator.index
        if index is None:
            return None
        return index.flat if index.compressed is None else index.compressed.faiss_index

    @property
    def index_kind(self) -> str:
        """How vectors are searched: ``"flat"`` (all, exactly) or ``"pq_fastscan"`` (compressed)."""
        with self._snapshot() as (_, meta):
            return self._accelerator.kind_and_recall(meta)[0]

    @property
    def index_recall(self) -> float:
        """The measured share of the 10 nearest nodes that a query finds; 1 if it is exact."""
        with self._snapshot() as (_, meta):
            return self._accelerator.kind_and_recall(meta)[1]

    @property
    def count(self) -> int:
        """The number of nodes."""
        with self._snapshot() as (_, meta):
            return int(meta.get("count", 0))

    @property
    def generation(self) -> int:
        """How many transactions have changed the store."""
        with self._snapshot() as (_, meta):
            return int(meta.get("generation", 0))

    @property
    def dimensions(self) -> int | None:
        """Length of the vectors; ``None`` while there are none and the identity names none."""
        with self._snapshot() as (_, meta):
            return expected_dimensions(meta, self.identity)

    @property
    def stored_identity(self) -> dict[str, Any] | None:
        """The identity that the store was built with."""
        with self._snapshot() as (_, meta):
            identity: dict[str, Any] | None = meta.get("identity")
            return identity

    # Writing

    def add(self, nodes: Iterable[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ARG002 - LlamaIndex's
        """Add nodes, replacing those with the same ids, in one transaction.

        Args:
            nodes: Nodes with embeddings, any number of them: they are taken from the iterable and
                written a few hundred at a time. Of several with one id the last is kept. NaN and
                infinity in metadata become ``None``.
            **kwargs: Taken for LlamaIndex's sake; there are no further settings.

        Returns:
            The nodes' ids.

        Raises:
            ValueError: A node has no embedding, or one of wrong length or with NaN, or one of
                zeros that is to be compared by cosine.
            StoreLockedError: Another process is writing.
            StoreError: The disk is full or the folder cannot be written to; nothing is changed.
        """
        ids: list[str] = []
        with self._lock:
            batches = self._batches(nodes, ids)
            first = next(batches, None)  # a node that cannot be used is found before the lock is
            if first is not None:
                with self._change() as (_, change):
                    change.put(first)
                    for batch in batches:
                        change.put(batch)
                self._save_if_worth_it(closing=False)
        return ids

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ARG002 - LlamaIndex's
        """Delete the nodes of a document; a document that is not there is no error."""
        self._delete_where(("ref_doc_id = ?", [ref_doc_id]), ref_doc_id=ref_doc_id)

    def delete_document(self, ref_doc_id: str) -> None:
        """Delete a document: its nodes and its content hash."""
        self.delete(ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ARG002 - LlamaIndex's
    ) -> None:
        """Delete the nodes that have one of the ids and pass the filters.

        Raises:
            ValueError: Neither is given; :meth:`clear` empties a store.
        """
        check_selection(node_ids, filters)
        self._delete_where(choice(node_ids, filters))

    def clear(self) -> None:
        """Delete every node and document, and forget what made the vectors."""
        with self._lock:
            if not self.generation:
                return
            with self._transaction() as (connection, meta):
                generation = int(meta["generation"]) + 1
                for table in ("nodes", "documents", "deletions", "passages"):
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
                write_meta(
                    connection,
                    generation=generation,
                    deletions_since=generation,  # no index of before can follow; it starts anew
                    count=0,
                    dimensions=None,
                    metric=None,
                    identity=self.identity,
                    accelerator=None,
                )
            self._accelerator.tidy(keep=None)

    def replace_document(
        self, ref_doc_id: str, content_hash: str, nodes: Sequence[BaseNode]
    ) -> list[str]:
        """Put a document's nodes in the place of those that it had, in one transaction.

        Args:
            ref_doc_id: The document.
            content_hash: What :meth:`document_hashes` shall report for it, until its nodes are
                changed by another call.
            nodes: All its nodes, with embeddings; none for a document without text.

        Returns:
            The nodes' ids.

        Raises:
            ValueError: A node is of another document, or its embedding cannot be used.
        """
        check_document(ref_doc_id, nodes)
        ids: list[str] = []
        with self._lock:
            batches = list(self._batches(nodes, ids))
            with self._change() as (connection, change):
                change.delete(matching_rows(connection, ("ref_doc_id = ?", [ref_doc_id])))
                for batch in batches:
                    change.put(batch)
                change.record_document(ref_doc_id, content_hash)
            self._save_if_worth_it(closing=False)
        return ids

    # Reading

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes that have one of the ids and pass the filters, oldest first.

        Args:
            node_ids: Ids; an id that is not there is passed over. ``None`` for all.
            filters: Metadata filters; ``None`` for all.

        Returns:
            The nodes without their embeddings.
        """
        with self._snapshot() as (connection, _):
            if connection is None:
                return []
            return load_nodes(connection, matching_rows(connection, choice(node_ids, filters)))

    def document_hashes(self) -> dict[str, str]:
        """Return the content hash of each document that :meth:`replace_document` put here."""
        with self._snapshot() as (connection, _):
            if connection is None:
                return {}
            return dict(connection.execute("SELECT ref_doc_id, content_hash FROM documents"))

    def unfinished_documents(self) -> set[str]:
        """Return the documents whose replacement was interrupted: none, it is one transaction."""
        return set()

    def ref_doc_ids(self) -> dict[str, str | None]:
        """Return every document's id with its content hash, ``None`` if that is not known."""
        with self._snapshot() as (connection, _):
            if connection is None:
                return {}
            return dict(
                connection.execute(
                    "SELECT ref_doc_id, max(content_hash) FROM (SELECT ref_doc_id, content_hash "
                    "FROM documents UNION ALL SELECT DISTINCT ref_doc_id, NULL FROM nodes WHERE "
                    "ref_doc_id IS NOT NULL) GROUP BY ref_doc_id ORDER BY ref_doc_id"
                )
            )

    def node_ids(self, ref_doc_id: str | None) -> list[str]:
        """Return the ids of a document's nodes, oldest first; ``None`` for nodes of none."""
        with self._snapshot() as (connection, _):
            if connection is None:
                return []
            found = connection.execute(
                "SELECT node_id FROM nodes WHERE ref_doc_id IS ? ORDER BY row", (ref_doc_id,)
            )
            return [node_id for (node_id,) in found]

    def nodes_with_vectors(self, node_ids: Sequence[str]) -> list[BaseNode]:
        """Return some nodes with their embeddings as the store keeps them, oldest first."""
        with self._snapshot() as (connection, meta):
            rows = (
                matching_rows(connection, choice(node_ids, None)) if connection is not None else []
            )
            if connection is None or not rows:
                return []
            nodes = load_nodes(connection, rows)
            vectors = load_vectors(connection, rows, dimensions=int(meta["dimensions"]))
            for node, vector in zip(nodes, vectors, strict=True):
                node.embedding = vector.tolist()
            return nodes

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes.

        Args:
            query: Its ``mode`` is DEFAULT (by vector), TEXT_SEARCH or SPARSE (by words), HYBRID
                (both, fused by rank; ``alpha`` weighs vectors against words) or MMR.
                ``filters``, ``doc_ids`` and ``node_ids`` are obeyed exactly in every mode.
            **kwargs: ``mmr_threshold``, from 0 (diverse) to 1 (similar).

        Returns:
            The best nodes, their scores (higher is better) and their ids; MMR's are in the order
            of choice.

        Raises:
            ValueError: The mode is another, or the query lacks what its mode needs.
        """
        return self.query_many([query], **kwargs)[0]

    def query_many(
        self, queries: Sequence[VectorStoreQuery], **kwargs: Any
    ) -> list[VectorStoreQueryResult]:
        """Answer several queries from one and the same committed state."""
        thresholds = [kwargs.get("mmr_threshold", query.mmr_threshold) for query in queries]
        for query, threshold in zip(queries, thresholds, strict=True):
            check_query(query, mmr_threshold=threshold)
        with self._snapshot() as (connection, meta):
            if connection is None:
                return [VectorStoreQueryResult([], [], []) for _ in queries]
            hits = [
                search(
                    connection,
                    meta,
                    query,
                    accelerator=self._accelerator,
                    mmr_threshold=threshold,
                )
                for query, threshold in zip(queries, thresholds, strict=True)
            ]
            return [_result(connection, found) for found in hits]

    # Upkeep

    def persist(self, persist_path: str = "", fs: Any = None) -> None:  # noqa: ARG002 - LlamaIndex's
        """Write the accelerator's file now, so that the next opening is quick.

        Nodes need no such call: they are on disk when the call that adds them returns.

        Args:
            persist_path: Ignored; the store lives in its own folder.
            fs: Ignored.

        Raises:
            StoreError: The file cannot be written; the nodes are safe.
        """
        if not self.read_only and self.generation:
            self._write_accelerator()

    def rebuild(self) -> None:
        """Build the accelerator anew from the database and write it."""
        with self._lock:
            self._accelerator.index = None
            if self.generation:
                with self._transaction() as (connection, _):
                    write_meta(connection, accelerator=None)
                self._write_accelerator()

    def verify(self) -> StoreReport:
        """Read the whole store and compare everything with its checksums.

        Returns:
            What there is, and how well it is searched.

        Raises:
            StoreCorruptError: Something is damaged that cannot be made anew; names the file.
        """
        with self._lock:
            self._database.check()
            with self._snapshot() as (_, meta):
                kind, recall = self._accelerator.kind_and_recall(meta)
                return StoreReport(
                    count=int(meta.get("count", 0)),
                    generation=int(meta.get("generation", 0)),
                    metric=self.metric,
                    index_kind=kind,
                    index_recall=recall,
                    index_file=self._accelerator.file_state(meta),
                )

    def close(self) -> None:
        """Give up the files and the writer's lock; the object opens them again if it is used.

        The accelerator's file is written if this object has changed much; where that fails, the
        nodes are safe and the next opening takes longer, which is logged.
        """
        with self._lock:
            try:
                self._save_if_worth_it(closing=True)
            finally:
                self._accelerator = Accelerator(Path(self.path))
                self._database.close()

    def __enter__(self) -> FaissSQLiteVectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.path, self.identity, self.read_only, self.metric)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> FaissSQLiteVectorStore:
        return self  # a folder has no copy; a second handle would find it locked by the first

    # Inside

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[sqlite3.Connection | None, dict[str, Any]]]:
        with self._lock, self._database.snapshot() as connection:
            meta = {} if connection is None else read_meta(connection)
            self._check(meta)
            yield connection, meta

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, dict[str, Any]]]:
        with self._lock, self._database.transaction() as connection:
            meta = read_meta(connection)
            self._check(meta)
            yield connection, meta

    @contextmanager
    def _change(self) -> Iterator[tuple[sqlite3.Connection, Change]]:
        with self._transaction() as (connection, meta):
            change = Change(connection, meta)
            yield connection, change
            change.finish(identity=self.identity, metric=self.metric)

    def _check(self, meta: dict[str, Any]) -> None:
        check_identity(self.path, meta, identity=self.identity, metric=self.metric)

    def _batches(self, nodes: Iterable[BaseNode], ids: list[str]) -> Iterator[list[NodeRow]]:
        dimensions, remaining = self.dimensions, iter(nodes)
        while batch := list(islice(remaining, _BATCH)):
            rows: dict[str, NodeRow] = {}
            for node in batch:
                row = to_row(node, metric=self.metric, dimensions=dimensions)
                dimensions = dimensions or len(row.vector) // 4
                rows[row.node_id] = row
                ids.append(row.node_id)
            yield list(rows.values())

    def _delete_where(self, condition: Condition, *, ref_doc_id: str | None = None) -> None:
        with self._lock:
            with self._snapshot() as (connection, _):
                if connection is None or not (
                    matching_rows(connection, condition) or has_document(connection, ref_doc_id)
                ):
                    return
            with self._change() as (connection, change):
                change.delete(matching_rows(connection, condition))
                change.forget_document(ref_doc_id)
            self._save_if_worth_it(closing=False)

    def _save_if_worth_it(self, *, closing: bool) -> None:
        heals = closing and self._accelerator.file_is_of_no_use and not self.read_only
        if not (self._database.lock.held or heals):
            return
        try:
            with self._snapshot() as (connection, meta):
                worth_it = connection is not None and self._accelerator.is_worth_writing(
                    connection, meta, closing=closing
                )
            if worth_it:
                self._write_accelerator()
            if closing:
                self._database.seal()
        except StoreError as error:
            _logger.warning("The index of '%s' was not written: %s", self.path, error)

    def _write_accelerator(self) -> None:
        with self._lock:
            with self._transaction() as (connection, meta):
                path = self._accelerator.write(connection, meta)
            self._accelerator.tidy(keep=path)


def _result(connection: sqlite3.Connection, hits: Sequence[Hit]) -> VectorStoreQueryResult:
    nodes = load_nodes(connection, [row for row, _ in hits])
    return VectorStoreQueryResult(
        nodes=nodes,
        similarities=[score for _, score in hits],
        ids=[node.node_id for node in nodes],
    )


def _close_quietly(database: Database) -> None:
    try:
        database.close()
    except (sqlite3.Error, OSError):
        _logger.warning("The store '%s' could not be closed.", database.folder, exc_info=True)
