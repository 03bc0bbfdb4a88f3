"""Passages of a corpus, to make questions of, from whatever holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

__all__ = ["corpus_nodes"]


def corpus_nodes(store: Any, index: Any, *, most: int, seed: int = 0) -> Sequence[BaseNode]:
    """Get the passages of some documents, whole, or of all where they cannot be chosen.

    Args:
        store: A LlamaIndex vector store. One that can list its documents (``ref_doc_ids``) is
            asked for some of them, drawn, however large it is.
        index: The index over it, if any.
        most: The most documents to ask for.
        seed: Draws them.

    Raises:
        ValueError: Neither tells what passages there are.
    """
    if hasattr(store, "ref_doc_ids"):
        ids = sorted(store.ref_doc_ids())
        drawn = np.random.default_rng(seed).permutation(len(ids))[:most]
        among: list[str] = [ids[place] for place in drawn]
        chosen = MetadataFilter(key="ref_doc_id", value=among, operator=FilterOperator.IN)
        nodes: Sequence[BaseNode] = store.get_nodes(filters=MetadataFilters(filters=[chosen]))
        return nodes
    documents = getattr(getattr(index, "docstore", None), "docs", {})
    if documents:
        return list(documents.values())
    try:
        listed: Sequence[BaseNode] = store.get_nodes()
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{type(store).__name__} does not list its passages. Pass some to fit(nodes=...), or "
            "labelled questions to fit(questions)."
        ) from error
    return listed
