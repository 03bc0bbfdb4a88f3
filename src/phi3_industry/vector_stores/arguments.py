"""What a store refuses before it changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters

__all__ = ["check_document", "check_selection"]


def check_document(ref_doc_id: str, nodes: Iterable[BaseNode]) -> None:
    """Refuse nodes that are of another document.

    Raises:
        ValueError: A node's SOURCE relationship names another document, or none.
    """
    for node in nodes:
        if node.ref_doc_id != ref_doc_id:
            raise ValueError(
                f"The node '{node.node_id}' is of the document {node.ref_doc_id!r} and not of "
                f"'{ref_doc_id}'. Set its SOURCE relationship."
            )


def check_selection(node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> None:
    """Refuse to delete without a selection.

    Raises:
        ValueError: Neither ids nor filters are given.
    """
    if node_ids is None and filters is None:
        raise ValueError(
            "Neither node_ids nor filters are given. Give one, or call clear() to delete every "
            "node."
        )
