"""A node as another store keeps it: with a vector of length 1, and its own id among its metadata.

Some stores take only ids of their own kind, and some cannot be asked for nodes by their ids in a
search. As metadata the id stays what it is and can be filtered by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from llama_index.core.schema import BaseNode

from phi3_industry.vector_stores.similarity import prepared

__all__ = ["NODE_ID_KEY", "as_stored", "batches", "restored"]

NODE_ID_KEY = "phi3_industry_node_id"

# Nodes that are written or read in one request.
_BATCH = 256

_Item = TypeVar("_Item")


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield items, as many at a time as fit well into one request."""
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def as_stored(node: BaseNode, *, store_id: str, dimensions: int | None) -> BaseNode:
    """Return a copy of a node that the store is to keep.

    Args:
        node: The node, with an embedding.
        store_id: The id under which the store keeps it.
        dimensions: Length that the embedding must have; ``None`` if any will do.

    Raises:
        ValueError: The node has no usable embedding, or uses our key for itself.
    """
    where = f"The node '{node.node_id}'"
    if node.embedding is None:
        raise ValueError(f"{where} has no embedding. Embed it before adding it to a store.")
    if NODE_ID_KEY in node.metadata:
        raise ValueError(f"{where} has metadata under '{NODE_ID_KEY}', which is ours. Rename it.")
    vector = prepared(
        node.embedding, metric="cosine", dimensions=dimensions, what=f"{where}: its embedding"
    )
    hidden = {
        name: [*getattr(node, name), NODE_ID_KEY]
        for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
    }
    return node.model_copy(
        update={
            "id_": store_id,
            "embedding": vector.tolist(),
            "metadata": {**node.metadata, NODE_ID_KEY: node.node_id},
            **hidden,
        }
    )


def restored(node: BaseNode) -> BaseNode:
    """Return the node that :func:`as_stored` was given, but for the length of its vector."""
    if NODE_ID_KEY not in node.metadata:
        return node
    metadata = dict(node.metadata)
    node_id = str(metadata.pop(NODE_ID_KEY))
    shown = {
        name: [key for key in getattr(node, name) if key != NODE_ID_KEY]
        for name in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
    }
    return node.model_copy(update={"id_": node_id, "metadata": metadata, **shown})
