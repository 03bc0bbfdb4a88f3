"""A store in a temporary folder, and nodes with chosen vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from phi3_industry.vector_stores import FaissSQLiteVectorStore

MakeNode = Callable[..., TextNode]


@pytest.fixture
def node() -> MakeNode:
    """Make a node: ``node("a", [1, 0], text=..., doc=..., **metadata)``."""

    def make(
        node_id: str, vector: list[float], *, text: str = "", doc: str | None = "d", **metadata: Any
    ) -> TextNode:
        relationships = {}
        if doc is not None:
            relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=doc)
        return TextNode(
            id_=node_id,
            text=text or f"text of {node_id}",
            embedding=[float(number) for number in vector],
            metadata=metadata,
            relationships=relationships,
        )

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[FaissSQLiteVectorStore]:
    with FaissSQLiteVectorStore(folder) as opened:
        yield opened
