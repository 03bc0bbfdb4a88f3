"""To and from LlamaIndex's own FAISS store with its docstore: all of it, or an error.

LlamaIndex keeps the vectors in a ``FaissVectorStore``, which numbers them as they come, the nodes
in a docstore, and which is whose in the index structure. Each of the three can be out of step
with the others, because that store cannot delete and adds a node that comes twice a second time.
So everything is compared before anything is written, and counts and hashes once more after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.schema import BaseNode

from phi3_industry._optional import import_optional
from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.nodes import all_nodes, vectors_after
from phi3_industry.vector_stores.similarity import Metric

if TYPE_CHECKING:
    from llama_index.core import StorageContext, VectorStoreIndex

__all__ = ["compare_nodes", "metric_of", "nodes_with_vectors", "storage_context"]

# Lengths of vectors that were brought to length 1 in 32 bits.
_UNIT_TOLERANCE = 1e-3


def metric_of(index: VectorStoreIndex, wanted: Metric | None) -> Metric:
    """Return how a FAISS index of LlamaIndex compares, or refuse it.

    Args:
        index: An index over a ``FaissVectorStore``.
        wanted: How the new store shall compare; as the index does if ``None``.

    Raises:
        StoreError: It is an index of another kind, keeps no exact vectors, or compares so that the
            wanted metric would give another order.
    """
    faiss: Any = import_optional("faiss", package="faiss-cpu", purpose="search vectors")
    vectors = _faiss_index(index)
    found: Metric | None = {
        faiss.METRIC_INNER_PRODUCT: "ip",
        faiss.METRIC_L2: "l2",
    }.get(vectors.metric_type)  # type: ignore[assignment]  # a dict of literals
    if found is None:
        raise StoreError(
            f"The FAISS index compares by its metric number {vectors.metric_type}; only inner "
            "product and L2 can be taken over. Embed the nodes anew."
        )
    if wanted in (None, found):
        return found
    lengths = np.linalg.norm(_reconstructed(vectors, 0, vectors.ntotal), axis=1)
    if np.any(np.abs(lengths - 1) > _UNIT_TOLERANCE):
        raise StoreError(
            f"The FAISS index compares by '{found}', and its vectors have lengths from "
            f"{lengths.min():.3g} to {lengths.max():.3g}: '{wanted}' would rank them otherwise. "
            f"Leave metric out, or pass '{found}'."
        )
    assert wanted is not None  # noqa: S101 - None has returned above
    return wanted


def nodes_with_vectors(index: VectorStoreIndex) -> Iterator[BaseNode]:
    """Yield copies of an index's nodes with their vectors, in the order of the vectors.

    Raises:
        StoreError: Vectors, nodes and index structure do not fit together.
    """
    vectors, names = _faiss_index(index), _names(index)
    docstore = index.storage_context.docstore
    for position in range(vectors.ntotal):
        node = docstore.get_document(names[position], raise_error=False)
        if not isinstance(node, BaseNode):
            raise StoreError(
                f"Vector {position} belongs to the node '{names[position]}', which the docstore "
                "does not have. Persist and load the docstore together with the index."
            )
        vector = _reconstructed(vectors, position, 1)[0]
        yield node.model_copy(update={"embedding": vector.tolist()})


def compare_nodes(stored: Iterable[BaseNode], index: VectorStoreIndex) -> int:
    """Compare what was stored with where it came from, node by node; return the count.

    Raises:
        StoreError: A node is missing, or its hash is another.
    """
    docstore, names = index.storage_context.docstore, set(_names(index).values())
    for node in stored:
        original = docstore.get_document(node.node_id, raise_error=False)
        if node.node_id not in names or original is None or original.hash != node.hash:
            raise StoreError(
                f"The node '{node.node_id}' is not the one in the docstore. Its metadata may hold "
                "values that JSON has not, such as NaN; remove them and import again."
            )
        names.discard(node.node_id)
    if names:
        raise StoreError(f"{len(names)} nodes were not taken over, such as '{min(names)}'.")
    return len(_names(index))


def storage_context(
    connection: sqlite3.Connection | None, meta: Mapping[str, Any]
) -> StorageContext:
    """Return a store's content as LlamaIndex keeps it, all of it in memory."""
    from llama_index.core import StorageContext
    from llama_index.core.data_structs import IndexDict

    faiss: Any = import_optional("faiss", package="faiss-cpu", purpose="search vectors")
    if connection is None or meta["dimensions"] is None:
        raise StoreError("The store is empty: there is nothing to export. Add nodes first.")
    measure = faiss.METRIC_L2 if meta["metric"] == "l2" else faiss.METRIC_INNER_PRODUCT
    vectors = faiss.IndexFlat(int(meta["dimensions"]), measure)
    for _, block in vectors_after(connection, 0, dimensions=int(meta["dimensions"])):
        vectors.add(block)
    context = StorageContext.from_defaults(vector_store=_faiss_store()(faiss_index=vectors))
    nodes = [node for _, node in all_nodes(connection)]
    context.docstore.add_documents(nodes)
    struct = IndexDict()
    for position, node in enumerate(nodes):
        struct.add_node(node, text_id=str(position))
    context.index_store.add_index_struct(struct)
    return context


def _faiss_store() -> Any:
    return import_optional(
        "llama_index.vector_stores.faiss",
        package="llama-index-vector-stores-faiss",
        purpose="exchange stores with LlamaIndex",
    ).FaissVectorStore


def _faiss_index(index: VectorStoreIndex) -> Any:
    store = index.vector_store
    if type(store) is not _faiss_store():
        raise StoreError(
            f"The index is over a {type(store).__name__}; only LlamaIndex's FaissVectorStore can "
            "be taken over. From another store, add its nodes with their embeddings."
        )
    vectors = store.client
    kind = type(vectors).__name__
    if kind not in ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat"):
        raise StoreError(
            f"The FAISS index is an {kind}, from which exact vectors cannot be read in order. "
            "Embed the nodes anew, or put them into an IndexFlat first."
        )
    return vectors


def _names(index: VectorStoreIndex) -> dict[int, str]:
    """Return the node id of each position."""
    vectors, entries = _faiss_index(index), index.index_struct.nodes_dict
    names = {int(position): node_id for position, node_id in entries.items() if position.isdigit()}
    if sorted(names) != list(range(vectors.ntotal)) or len(names) != len(entries):
        raise StoreError(
            f"The FAISS index has {vectors.ntotal} vectors and the index structure names "
            f"{len(entries)} of them: they are not of one state. Persist both together."
        )
    if len(set(names.values())) != len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise StoreError(
            f"The node '{twice}' has several vectors, and nothing says which is its own. It was "
            "added more than once: embed it anew, and leave the others as they are."
        )
    return names


def _reconstructed(vectors: Any, first: int, count: int) -> Any:
    return vectors.reconstruct_n(first, count)
