"""A node as the database holds it, and the checks that it must pass before it gets there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode

from phi3_industry.vector_stores.lexical import index_text
from phi3_industry.vector_stores.similarity import Metric, prepared

__all__ = ["NodeRow", "Passage", "passage_of", "to_row"]


#: Terms between spaces, one text for each column of the table ``passages``.
Passage = tuple[str, ...]

# LlamaIndex's stores let filters name a node's document under any of these keys
_ID_KEYS = ("ref_doc_id", "doc_id", "document_id")


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the database holds it.

    Attributes:
        node_id: The node's id.
        ref_doc_id: The id of the document that it came from.
        node_type: The LlamaIndex class that reads it back.
        content: The whole node but its vector, as JSON.
        metadata: What filters see: the metadata and the document's id, as JSON.
        vector: The vector, of length 1 if compared by cosine, as bytes of float32.
        passage: The terms under which lexical search finds it.
    """

    node_id: str
    ref_doc_id: str | None
    node_type: str
    content: str
    metadata: str
    vector: bytes
    passage: Passage


def to_row(node: BaseNode, *, metric: Metric, dimensions: int | None) -> NodeRow:
    """Turn a node into a row, checking all of it before anything is written.

    Args:
        node: A node with an embedding.
        metric: How vectors will be compared.
        dimensions: Length that the embedding must have; ``None`` if any will do.

    Raises:
        ValueError: The node has no usable embedding, or cannot be written as JSON.
    """
    where = f"The node '{node.node_id}'"
    if node.embedding is None:
        raise ValueError(f"{where} has no embedding. Embed it before adding it to a store.")
    what = f"{where}: its embedding"
    vector = prepared(node.embedding, metric=metric, dimensions=dimensions, what=what)
    try:
        # NaN and infinity, which JSON has not, become None here
        fields = node.model_dump(mode="json", exclude={"embedding"})
        fields["embedding"] = None
        content = _to_json(fields)
        metadata = _to_json(_filterable(fields.get("metadata") or {}, node.ref_doc_id))
        node.node_id.encode()
        (node.ref_doc_id or "").encode()
    except (TypeError, ValueError) as error:  # pydantic's and Unicode's errors are ValueErrors
        raise ValueError(
            f"{where} cannot be stored: {error}. Its ids and metadata must be made of texts, "
            "numbers, lists and dictionaries."
        ) from error
    return NodeRow(
        node_id=node.node_id,
        ref_doc_id=node.ref_doc_id,
        node_type=node.class_name(),
        content=content,
        metadata=metadata,
        vector=vector.tobytes(),
        passage=passage_of(node),
    )


def passage_of(node: BaseNode) -> Passage:
    """Cut a node's texts into the terms of the columns of the table ``passages``, in their order.

    The header is the metadata that an embedding model would see, the body is the text.
    """
    return (
        index_text(node.get_metadata_str(mode=MetadataMode.EMBED)),
        index_text(node.get_content(metadata_mode=MetadataMode.NONE)),
    )


def _filterable(metadata: Mapping[str, Any], ref_doc_id: str | None) -> dict[str, Any]:
    ids = {} if ref_doc_id is None else dict.fromkeys(_ID_KEYS, ref_doc_id)
    return {**ids, **metadata}


def _to_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: it can be kept only as an escape
        return json.dumps(value)
    return text
