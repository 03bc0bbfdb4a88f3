"""Any LlamaIndex vector store, with a register of its documents in a local folder."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.arguments import check_document, check_selection
from phi3_industry.vector_stores.async_calls import AsyncCalls
from phi3_industry.vector_stores.identity import check_identity, expected_dimensions
from phi3_industry.vector_stores.others.choice import dialect_of
from phi3_industry.vector_stores.others.dialect import StoreDialect
from phi3_industry.vector_stores.others.nodes import as_stored, batches, restored
from phi3_industry.vector_stores.others.queries import fused, hybrid_arms, translated
from phi3_industry.vector_stores.others.register import Register
from phi3_industry.vector_stores.search import TEXT_MODES, check_query
from phi3_industry.vector_stores.similarity import Metric

__all__ = ["RegisteredVectorStore"]

_logger = logging.getLogger(__name__)

_METRIC: Metric = "cosine"
# The most of another package's error that is repeated.
_SAID_CHARS = 500
# Nodes that are looked for when a store is opened.
_SAMPLE = 8

_Answer = TypeVar("_Answer")


class RegisteredVectorStore(AsyncCalls):
    """A LlamaIndex vector store that knows its documents, obeys filters, and can be resumed.

    The nodes lie in a store of LlamaIndex's: Qdrant, PostgreSQL, Chroma. A folder beside it holds
    the documents with their content hashes, the ids of their nodes, and the identity of the
    embedding. Queries mean the same as with our own store; what the other store cannot do is
    refused. Vectors are brought to length 1 and scores are cosines.

    A document is written node by node and counts when all of it is there. Whatever stops that,
    the same call made again completes it: nothing is lost and nothing is there twice. Until then
    a search may find both old and new passages of that one document, or too few. When the
    connection is lost, a call is tried again for a while and fails with a :class:`StoreError`.

    The folder belongs to the store: keep it as you keep the database. One process writes at a
    time, any number read::

        store = RegisteredVectorStore(
            "kb", QdrantVectorStore("passages", client=QdrantClient("http://127.0.0.1:6333"))
        )

    Args:
        path: The folder of the register. It is made at the first write.
        vector_store: Where the nodes lie. It has to keep texts, and is left to you to close.
        identity: What makes the vectors, as JSON values by name. The first writer's is kept, and
            opening the store with another one is refused. ``None`` leaves the check out.
        read_only: Never write.
        retry_waits_s: Seconds to wait before each further try when the connection is lost.

    Raises:
        StoreError: The vector store is not the one that the register is of, or cannot be used.
        StoreIdentityError: It was built with another identity.
        StoreCorruptError: The register is damaged.
    """

    stores_text: bool = Field(default=True, exclude=True)
    is_embedding_query: bool = Field(default=True, exclude=True)
    path: str = Field(description="The folder of the register.")
    identity: dict[str, Any] | None = Field(default=None, description="What makes the vectors.")
    read_only: bool = Field(default=False, description="Never write.")
    retry_waits_s: tuple[float, ...] = Field(
        default=(0.5, 1.0, 2.0, 4.0), description="Seconds before each further try."
    )

    _inner: Any = PrivateAttr()
    _dialect: StoreDialect = PrivateAttr()
    _register: Register = PrivateAttr()
    _lock: Any = PrivateAttr()

    def __init__(
        self,
        path: str | PathLike[str],
        vector_store: BasePydanticVectorStore,
        identity: dict[str, Any] | None = None,
        read_only: bool = False,
        retry_waits_s: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    ) -> None:
        _check_interface(vector_store)
        identity = None if identity is None else json.loads(json.dumps(identity))
        super().__init__(  # type: ignore[call-arg]  # pydantic's fields
            path=fspath(path),
            identity=identity,
            read_only=read_only,
            retry_waits_s=tuple(retry_waits_s),
        )
        self._lock = threading.RLock()
        self._inner = vector_store
        self._dialect = dialect_of(vector_store)
        self._register = Register(Path(self.path), read_only=read_only)
        self._check(self._register.properties)
        self._ask("checking", self._dialect.check)
        self._check_that_nodes_are_there()

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "RegisteredVectorStore"

    # Properties

    @property
    def client(self) -> Any:
        """The client of the store that the nodes lie in."""
        return self._inner.client

    @property
    def vector_store(self) -> BasePydanticVectorStore:
        """The store that the nodes lie in."""
        store: BasePydanticVectorStore = self._inner
        return store

    @property
    def place(self) -> str:
        """What of the store the nodes lie in, such as its table; not where its server is."""
        return self._dialect.place

    @property
    def metric(self) -> Metric:
        """How vectors are compared."""
        return _METRIC

    @property
    def supports_text_search(self) -> bool:
        """Whether queries in the modes TEXT_SEARCH, SPARSE and HYBRID are answered."""
        return self._dialect.searches_words

    @property
    def count(self) -> int:
        """The number of nodes."""
        with self._lock:
            return self._register.count

    @property
    def dimensions(self) -> int | None:
        """Length of the vectors; ``None`` while there are none and the identity names none."""
        with self._lock:
            return expected_dimensions(self._register.properties, self.identity)

    @property
    def stored_identity(self) -> dict[str, Any] | None:
        """The identity that the store was built with."""
        with self._lock:
            identity: dict[str, Any] | None = self._register.properties.get("identity")
            return identity

    # Writing

    def add(self, nodes: Iterable[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ARG002 - LlamaIndex's
        """Add nodes, replacing those with the same ids.

        Args:
            nodes: Nodes with embeddings, any number of them.
            **kwargs: Taken for LlamaIndex's sake; there are no further settings.

        Returns:
            The nodes' ids.

        Raises:
            ValueError: A node has no usable embedding, or the store cannot keep it.
            StoreLockedError: Another process is writing.
            StoreError: The store cannot be reached or refuses; the same call completes it later.
        """
        ids: list[str] = []
        with self._lock:
            for batch in batches(nodes):
                ready = self._ready(batch)
                known = self._begin(partial(self._register.announce, _named(ready)), ready)
                self._put(ready, replaced=known)
                self._register.confirm(ready)
                ids += [node.node_id for node in batch]
        return ids

    def replace_document(
        self, ref_doc_id: str, content_hash: str, nodes: Sequence[BaseNode]
    ) -> list[str]:
        """Put a document's nodes in the place of those that it had.

        Args:
            ref_doc_id: The document.
            content_hash: What :meth:`document_hashes` shall report for it.
            nodes: All its nodes, with embeddings; none for a document without text.

        Returns:
            The nodes' ids.

        Raises:
            ValueError: A node is of another document, or the store cannot keep it.
            StoreError: The store cannot be reached or refuses; the same call completes it later.
        """
        check_document(ref_doc_id, nodes)
        with self._lock:
            ready = self._ready(nodes)
            before = self._register.node_ids(ref_doc_id)
            known = self._begin(
                lambda: self._register.announce_document(ref_doc_id, content_hash, ready), ready
            )
            self._put(ready, replaced=known)
            gone = [node_id for node_id in before if node_id not in ready]
            self._remove(gone)
            self._register.finish_document(ref_doc_id, gone=gone)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ARG002 - LlamaIndex's
        """Delete the nodes of a document; a document that is not there is no error."""
        with self._lock:
            node_ids = self._register.node_ids(ref_doc_id)
            if not node_ids and ref_doc_id not in self._register.hashes():
                return
            self._register.announce_removal(ref_doc_id)
            self._remove(node_ids)
            self._register.forget_document(ref_doc_id)

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
        with self._lock:
            if filters is None:
                chosen = list(self._register.rows(node_ids or []))
            else:
                chosen = [node.node_id for node in self.get_nodes(node_ids, filters)]
            self._remove(chosen)
            self._register.forget(chosen)

    def clear(self) -> None:
        """Delete every node and document, and forget what made the vectors."""
        with self._lock:
            self._remove(self._register.all_node_ids())
            self._register.clear()

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
        written = None if filters is None else self._dialect.filters(filters)
        if written is None:
            with self._lock:
                chosen = self._register.all_node_ids() if node_ids is None else node_ids
            nodes = [node for batch in batches(chosen) for node in self._read(batch)]
        elif self._ask("reading nodes", self._dialect.exists):
            most = self.count
            found = self._ask("reading nodes", lambda: self._dialect.matching(written, most=most))
            among = None if node_ids is None else set(node_ids)
            nodes = [
                node for node in map(restored, found) if among is None or node.node_id in among
            ]
        else:
            nodes = []
        with self._lock:
            rows = self._register.rows(node.node_id for node in nodes)
        for node in nodes:
            node.embedding = None
        return sorted(
            (node for node in nodes if node.node_id in rows), key=lambda node: rows[node.node_id]
        )

    def nodes_with_vectors(self, node_ids: Sequence[str]) -> list[BaseNode]:
        """Return some nodes with their embeddings, in the order of the ids.

        Raises:
            StoreError: The store does not give vectors.
        """
        nodes = {node.node_id: node for node in self._read(node_ids)}
        if any(node.embedding is None for node in nodes.values()):
            raise StoreError(
                f"{self._dialect.name} gives nodes without their vectors. Embed the documents anew."
            )
        return [nodes[node_id] for node_id in node_ids if node_id in nodes]

    def document_hashes(self) -> dict[str, str]:
        """Return the content hash of each document that :meth:`replace_document` put here."""
        with self._lock:
            return self._register.hashes()

    def unfinished_documents(self) -> set[str]:
        """Return the documents whose replacement or deletion was interrupted."""
        with self._lock:
            return self._register.unfinished()

    def ref_doc_ids(self) -> dict[str, str | None]:
        """Return every document's id with its content hash, ``None`` if that is not known."""
        with self._lock:
            return {
                name: content
                for name, content in self._register.documents().items()
                if name is not None
            }

    def node_ids(self, ref_doc_id: str | None) -> list[str]:
        """Return the ids of a document's nodes, oldest first; ``None`` for nodes of none."""
        with self._lock:
            return self._register.node_ids(ref_doc_id)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes.

        Args:
            query: Its ``mode`` is DEFAULT (by vector), and if the store searches by words
                TEXT_SEARCH or SPARSE (by words) or HYBRID (both, fused by rank). ``filters``,
                ``doc_ids`` and ``node_ids`` are obeyed in every mode.
            **kwargs: What else the store's own ``query`` takes.

        Returns:
            The best nodes, their scores (higher is better) and their ids.

        Raises:
            ValueError: The store cannot answer this query, which says why.
            StoreError: The store cannot be reached.
        """
        offered = [VectorStoreQueryMode.DEFAULT]
        if self.supports_text_search:
            offered += [*TEXT_MODES, VectorStoreQueryMode.HYBRID]
        check_query(query, offered=offered, store=f"{self._dialect.name} as it is set up")
        if query.mode == VectorStoreQueryMode.HYBRID:
            return self._hybrid(query, **kwargs)
        nothing = query.doc_ids == [] or query.similarity_top_k == 0
        with self._lock:
            nothing = nothing or not self._register.has_nodes
        if nothing:
            return VectorStoreQueryResult([], [], [])
        asked = translated(query, self._dialect, dimensions=self.dimensions)
        settings = {
            **self._dialect.search_settings(similarity_top_k=query.similarity_top_k),
            **kwargs,
        }
        found = self._ask("searching", lambda: self._inner.query(asked, **settings))
        return self._result(query, found)

    # Upkeep

    def persist(self, persist_path: str = "", fs: Any = None) -> None:
        """Do nothing: what was added is in the store when the call that adds it returns."""

    def close(self) -> None:
        """Give up the register and the writer's lock; the vector store stays open."""
        with self._lock:
            self._register.close()

    def __enter__(self) -> RegisteredVectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> RegisteredVectorStore:
        return self  # a second handle would find the register locked by the first

    # Inside

    def _check(self, properties: dict[str, Any]) -> None:
        check_identity(self.path, properties, identity=self.identity, metric=_METRIC)
        place = properties.get("place")
        if place is not None and place != self._dialect.place:
            raise StoreError(
                f"The register in '{self.path}' is of {place}, and given was "
                f"{self._dialect.place}. Give the store that it belongs to, or another folder."
            )

    def _check_that_nodes_are_there(self) -> None:
        sample = self._register.sample(_SAMPLE)
        if not sample:
            return
        self._ask("checking", self._dialect.check_filled)
        if not self._read(sample):
            raise StoreError(
                f"The register in '{self.path}' knows {self._register.count} nodes, and "
                f"{self._dialect.place} has none of those that were looked for. It was emptied, "
                "or is another one of the same name: give the right one, restore it, or begin "
                "with a new folder."
            )

    def _result(
        self, query: VectorStoreQuery, found: VectorStoreQueryResult
    ) -> VectorStoreQueryResult:
        nodes = [restored(node) for node in found.nodes or []]
        scores = [float(score) for score in found.similarities or []]
        if query.mode == VectorStoreQueryMode.DEFAULT:
            scores = [self._dialect.similarity(score) for score in scores]
        for node in nodes:
            node.embedding = None
        return VectorStoreQueryResult(
            nodes=nodes, similarities=scores, ids=[node.node_id for node in nodes]
        )

    def _hybrid(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search twice and fuse by rank, as our own store does; stores fuse in many ways."""
        found = [self.query(arm, **kwargs) for arm in hybrid_arms(query)]
        return fused(query, *found)

    def _ready(self, nodes: Iterable[BaseNode]) -> dict[str, BaseNode]:
        """Check nodes and write them as the store is to keep them, by their own ids."""
        dimensions = self.dimensions
        ready: dict[str, BaseNode] = {}
        for node in nodes:
            self._dialect.check_node(node)
            written = as_stored(
                node, store_id=self._dialect.store_id(node.node_id), dimensions=dimensions
            )
            dimensions = dimensions or len(written.get_embedding())
            ready[node.node_id] = written
        return ready

    def _begin(self, announce: Callable[[], None], ready: dict[str, BaseNode]) -> list[str]:
        """Announce what will be written; returns the ids that the store may have already."""
        properties = self._register.properties
        self._check(properties)
        if "place" not in properties:
            dimensions = len(next(iter(ready.values())).get_embedding()) if ready else None
            if dimensions is not None:
                self._check_that_it_is_empty(dimensions)
                self._register.set_properties(
                    place=self._dialect.place,
                    metric=_METRIC,
                    dimensions=dimensions,
                    identity=self.identity,
                )
        known = list(self._register.rows(ready))
        announce()
        return known

    def _check_that_it_is_empty(self, dimensions: int) -> None:
        probe = VectorStoreQuery(
            query_embedding=[1.0] + [0.0] * (dimensions - 1), similarity_top_k=1
        )
        there = self._ask("searching", self._dialect.exists)
        if there and self._ask("searching", lambda: self._inner.query(probe)).ids:
            raise StoreError(
                f"{self._dialect.place} holds nodes, and the folder '{self.path}' knows nothing "
                "of them. Give the folder that belongs to it, or a new and empty place."
            )

    def _read(self, node_ids: Sequence[str]) -> list[BaseNode]:
        if not node_ids or not self._ask("reading nodes", self._dialect.exists):
            return []
        store_ids = [self._dialect.store_id(node_id) for node_id in node_ids]
        found = self._ask("reading nodes", lambda: self._dialect.nodes(store_ids))
        return [restored(node) for node in found]

    def _put(self, ready: dict[str, BaseNode], *, replaced: Sequence[str]) -> None:
        if not self._dialect.upserts:
            self._remove(replaced)
        for batch in batches(ready.values()):
            self._ask("writing nodes", partial(self._inner.add, batch))

    def _remove(self, node_ids: Sequence[str]) -> None:
        if not node_ids or not self._ask("deleting nodes", self._dialect.exists):
            return
        for batch in batches(node_ids):
            ids = [self._dialect.store_id(node_id) for node_id in batch]
            self._ask("deleting nodes", partial(self._inner.delete_nodes, node_ids=ids))

    def _ask(self, what: str, call: Callable[[], _Answer]) -> _Answer:
        """Call the store; again after a lost connection, since every call may be repeated."""
        for wait in (*self.retry_waits_s, None):
            try:
                return call()
            except (StoreError, ValueError, TypeError):
                raise
            except Exception as error:
                lost = self._dialect.is_lost_connection(error)
                if not lost or wait is None:
                    raise self._failure(what, error, lost=lost) from error
                _logger.warning(
                    "%s: connection lost while %s; trying again in %g s: %s",
                    self._dialect.place,
                    what,
                    wait,
                    _in_short(error),
                )
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _failure(self, what: str, error: BaseException, *, lost: bool) -> StoreError:
        problem = (
            f"could not be reached in {len(self.retry_waits_s) + 1} tries"
            if lost
            else "refused what it was asked"
        )
        return StoreError(
            f"{self._dialect.place} {problem} while {what}: {_in_short(error)}. Documents that "
            "were acknowledged are in it; the same call made again completes the rest."
        )


def _in_short(error: BaseException) -> str:
    """Leave out what some packages append: the whole statement with texts and vectors."""
    said = str(error).partition("\n[SQL:")[0].partition("\n(Background on this error")[0]
    said = " ".join(said.split()).rstrip(".")
    return said if len(said) <= _SAID_CHARS else f"{said[:_SAID_CHARS]} …"


def _check_interface(store: BasePydanticVectorStore) -> None:
    """Refuse a store in which no knowledge base can lie.

    Raises:
        StoreError: It lacks the texts, or a part of LlamaIndex's interface that is needed.
    """
    name, lacks = type(store).__name__, ""
    if not store.stores_text:
        lacks = "does not keep the text of nodes"
    for method in ("delete_nodes", "get_nodes"):
        if getattr(type(store), method, None) is getattr(BasePydanticVectorStore, method):
            lacks = lacks or f"does not offer {method}()"
    if lacks:
        raise StoreError(
            f"{name} {lacks}, so that no knowledge base can lie in it. Use a store that does, or "
            "leave vector_store out."
        )


def _named(ready: dict[str, BaseNode]) -> list[tuple[str, str | None]]:
    return [(node_id, node.ref_doc_id) for node_id, node in ready.items()]
