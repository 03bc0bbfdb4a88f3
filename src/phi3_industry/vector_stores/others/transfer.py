"""From our own store to another one and back: all of it, compared at the end, or an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from llama_index.core.schema import BaseNode

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.identity import check_identity
from phi3_industry.vector_stores.others.nodes import batches

__all__ = ["TransferReport", "TransferableStore", "transfer"]

# Both vectors were brought to length 1 in 32 bits, by different programs.
_VECTOR_TOLERANCE = 1e-6


class TransferableStore(Protocol):
    """What is asked of both stores; our own has it, and every other one with a register."""

    path: str
    identity: dict[str, Any] | None

    @property
    def metric(self) -> Any:
        """How vectors are compared."""

    @property
    def count(self) -> int:
        """The number of nodes."""

    @property
    def dimensions(self) -> int | None:
        """Length of the vectors."""

    @property
    def stored_identity(self) -> dict[str, Any] | None:
        """The identity that the store was built with."""

    def ref_doc_ids(self) -> dict[str, str | None]:
        """Return every document's id with its content hash."""

    def unfinished_documents(self) -> set[str]:
        """Return the documents whose replacement or deletion was interrupted."""

    def node_ids(self, ref_doc_id: str | None) -> list[str]:
        """Return the ids of a document's nodes; ``None`` for nodes of none."""

    def nodes_with_vectors(self, node_ids: Sequence[str]) -> list[BaseNode]:
        """Return some nodes with their embeddings."""

    def add(self, nodes: Iterable[BaseNode]) -> list[str]:
        """Add nodes, replacing those with the same ids."""

    def replace_document(
        self, ref_doc_id: str, content_hash: str, nodes: Sequence[BaseNode]
    ) -> list[str]:
        """Put a document's nodes in the place of those that it had."""


@dataclass(frozen=True, kw_only=True)
class TransferReport:
    """A transfer after which both stores hold the same.

    Attributes:
        documents: Documents in both.
        nodes: Nodes in both.
        written: Nodes that this run wrote; the others were there from an earlier one.
        digest: SHA-256 of the ids, texts, metadata, relationships and content hashes of both.
        largest_difference: Between two numbers of the vectors.
    """

    documents: int
    nodes: int
    written: int
    digest: str
    largest_difference: float

    def __str__(self) -> str:
        return (
            f"{self.documents} documents, {self.nodes} nodes in both, {self.written} of them "
            f"written now. SHA-256 of both: {self.digest}. Vectors differ by at most "
            f"{self.largest_difference:.1g}."
        )


def transfer(
    source: TransferableStore, target: TransferableStore, *, show_progress: bool = False
) -> TransferReport:
    """Copy everything from one store to another, and compare.

    Texts, metadata, relationships, content hashes and vectors are kept, so that nothing has to be
    embedded or read anew. The source stays as it is. Memory holds the nodes of one document, or
    a few hundred, at a time. An interrupted transfer goes on when it is made again.

    Args:
        source: The store to copy from.
        target: The store to copy to, opened with ``identity=source.stored_identity``: an empty
            one, or one that an interrupted transfer has begun to fill.
        show_progress: Whether to show progress bars.

    Returns:
        What both hold.

    Raises:
        StoreIdentityError: The target was built with another embedding.
        StoreError: The stores do not fit together, one of them fails, or they do not hold the
            same at the end.
    """
    _check_fit(source, target)
    written, there = 0, target.ref_doc_ids()
    for name, content in _progress(_documents(source), show_progress, "Copying"):
        ids = source.node_ids(name)
        if name is None or content is None:
            written += _copy_nodes(source, target, ids)
        elif there.get(name) != content or set(target.node_ids(name)) != set(ids):
            nodes = [node for batch in batches(ids) for node in source.nodes_with_vectors(batch)]
            written += len(target.replace_document(name, content, nodes))
    return _compared(source, target, written=written, show_progress=show_progress)


def _check_fit(source: TransferableStore, target: TransferableStore) -> None:
    identity = target.stored_identity or target.identity
    if identity is None and source.stored_identity is not None:
        raise StoreError(
            f"The store '{source.path}' says which embedding made it, and '{target.path}' was "
            "opened without one. Open it with identity=source.stored_identity."
        )
    properties = {"identity": source.stored_identity, "dimensions": source.dimensions}
    check_identity(source.path, properties, identity=identity, metric=source.metric)
    if source.metric != target.metric:
        raise StoreError(
            f"The store '{source.path}' compares by '{source.metric}' and '{target.path}' by "
            f"'{target.metric}', which would rank otherwise."
        )
    if unfinished := source.unfinished_documents():
        raise StoreError(
            f"In the store '{source.path}' {len(unfinished)} documents are not whole, such as "
            f"'{min(unfinished)}': adding or deleting them was interrupted. Do that again first."
        )
    strangers = target.ref_doc_ids().keys() - source.ref_doc_ids().keys()
    if strangers:
        raise StoreError(
            f"The store '{target.path}' holds {len(strangers)} documents that "
            f"'{source.path}' has not, such as '{min(strangers)}'. Give an empty one."
        )


def _documents(store: TransferableStore) -> list[tuple[str | None, str | None]]:
    """Return each document with its content hash, and ``None`` for the nodes of no document."""
    documents: dict[str | None, str | None] = dict(sorted(store.ref_doc_ids().items()))
    if store.node_ids(None):
        documents[None] = None
    return list(documents.items())


def _copy_nodes(source: TransferableStore, target: TransferableStore, ids: Sequence[str]) -> int:
    """Copy nodes of which no content hash vouches; returns the number of those written."""
    written = 0
    for batch in batches(ids):
        if len(target.nodes_with_vectors(batch)) < len(batch):
            written += len(target.add(source.nodes_with_vectors(batch)))
    return written


def _compared(
    source: TransferableStore, target: TransferableStore, *, written: int, show_progress: bool
) -> TransferReport:
    """Compare both stores, node by node."""
    documents = _documents(source)
    if documents != _documents(target):
        raise StoreError(
            f"The stores '{source.path}' and '{target.path}' do not hold the same documents with "
            "the same content hashes. Was one of them written to meanwhile? Transfer again."
        )
    digest, nodes, largest = hashlib.sha256(), 0, 0.0
    for name, content in _progress(documents, show_progress, "Comparing"):
        digest.update(json.dumps([name, content]).encode())
        for batch in batches(source.node_ids(name)):
            pairs = _pairs(source, target, batch)
            nodes += len(pairs)
            for one, other in pairs:
                written_down = _written_down(one)
                if written_down != _written_down(other):
                    raise _difference(target, one, "another text, metadata or relationships")
                digest.update(written_down)
                largest = max(largest, _apart(target, one, other))
    if not nodes == source.count == target.count:
        raise StoreError(
            f"{nodes} nodes were compared; '{source.path}' counts {source.count} and "
            f"'{target.path}' {target.count}. Was one of them written to meanwhile? Transfer again."
        )
    return TransferReport(
        documents=sum(name is not None for name, _ in documents),
        nodes=nodes,
        written=written,
        digest=digest.hexdigest(),
        largest_difference=largest,
    )


def _pairs(
    source: TransferableStore, target: TransferableStore, ids: Sequence[str]
) -> list[tuple[BaseNode, BaseNode]]:
    """Read nodes from both."""
    found = [
        {node.node_id: node for node in store.nodes_with_vectors(ids)} for store in (source, target)
    ]
    for store, nodes in zip((source, target), found, strict=True):
        if absent := [node_id for node_id in ids if node_id not in nodes]:
            raise StoreError(
                f"The store '{store.path}' lacks {len(absent)} nodes, such as '{absent[0]}'. "
                "Transfer again."
            )
    return [(found[0][node_id], found[1][node_id]) for node_id in ids]


def _written_down(node: BaseNode) -> bytes:
    fields = node.model_dump(mode="json", exclude={"embedding"})
    return json.dumps([node.class_name(), fields], sort_keys=True).encode()


def _apart(target: TransferableStore, one: BaseNode, other: BaseNode) -> float:
    apart = float(np.abs(np.subtract(one.get_embedding(), other.get_embedding())).max())
    if not apart <= _VECTOR_TOLERANCE:
        raise _difference(target, one, f"a vector that differs by {apart:.2g}")
    return apart


def _difference(target: TransferableStore, node: BaseNode, what: str) -> StoreError:
    return StoreError(
        f"The node '{node.node_id}' has {what} in '{target.path}'. Begin with an empty store."
    )


_Item = TypeVar("_Item")


def _progress(items: Sequence[_Item], show: bool, what: str) -> Iterable[_Item]:
    if not show:
        return items
    from tqdm.auto import tqdm

    bar: Any = tqdm
    return cast("Iterable[_Item]", bar(items, desc=what, unit="document"))
