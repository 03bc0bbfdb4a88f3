"""A document with very many nodes is stored in parts, each in one transaction.

The first part has the document's id and is written last, with a digest of the others: it is
there only if all of them are. An interruption leaves parts that need not be computed again, and
a table that grew at its end costs its last part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from llama_index.core.schema import TextNode

from phi3_industry.ingestion.node_parser import source_of
from phi3_industry.ingestion.records import DocumentRecord

__all__ = ["PART_NODES", "as_part", "digest_of_parts", "part_id", "parts_of", "split_parts"]

PART_NODES = 2048
"""Nodes of a part: the most that are in memory at a time, with their vectors."""


def split_parts(nodes: Iterator[TextNode]) -> Iterator[list[TextNode]]:
    """Yield the nodes of each part."""
    while part := list(islice(nodes, PART_NODES)):
        yield part


def part_id(document_id: str, number: int) -> str:
    """Name a part; the first one is named as the document is."""
    return document_id if number == 1 else f"{document_id}#part-{number}"


def as_part(nodes: Sequence[TextNode], name: str) -> tuple[list[TextNode], str]:
    """Give nodes to a part, with ids of its own, and the SHA-256 of their contents."""
    digest = hashlib.sha256()
    own: list[TextNode] = []
    for position, node in enumerate(nodes):
        content = json.dumps([name, position, node.text])
        own.append(
            node.model_copy(
                update={
                    "id_": hashlib.sha256(content.encode()).hexdigest(),
                    "relationships": source_of(name),
                }
            )
        )
        digest.update(json.dumps([node.text, node.metadata], sort_keys=True).encode())
    return own, digest.hexdigest()


def parts_of(document_id: str, records: Mapping[str, DocumentRecord]) -> dict[str, DocumentRecord]:
    """Find the further parts of a document among the records of a store, in their order."""
    names = [
        name
        for name, record in records.items()
        if record.is_part and record.part_of(name) == document_id
    ]
    return {name: records[name] for name in sorted(names, key=lambda name: (len(name), name))}


def digest_of_parts(parts: Mapping[str, DocumentRecord]) -> str:
    """Give the SHA-256 of what the further parts hold; empty if there are none."""
    if not parts:
        return ""
    listed = json.dumps([[name, record.content] for name, record in parts.items()])
    return hashlib.sha256(listed.encode()).hexdigest()
