"""What a LlamaIndex vector store does in its own way, beside the interface that all share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
)

__all__ = ["StoreDialect"]


class StoreDialect:
    """A store of which nothing is known but LlamaIndex's interface.

    Filters are passed on as they are, so that what they mean is what that store makes of them.

    Args:
        store: The LlamaIndex vector store.
    """

    #: Whether adding a node of an id that is there replaces it; it is deleted first otherwise.
    upserts: ClassVar[bool] = False
    #: Names of exceptions after which the same call may succeed.
    lost_connection: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, store: BasePydanticVectorStore) -> None:
        self.store: Any = store

    @property
    def name(self) -> str:
        """The store's class."""
        return type(self.store).__name__

    @property
    def place(self) -> str:
        """What of the store the nodes lie in, such as its table; not where its server is."""
        return self.name

    @property
    def searches_words(self) -> bool:
        """Whether it is set up to search by words."""
        return False

    def exists(self) -> bool:
        """Whether there is anything to search or delete in yet."""
        return True

    def check(self) -> None:
        """Refuse a store that is set up so that answers would silently be others.

        Raises:
            StoreError: Says what to set up otherwise.
        """

    def check_filled(self) -> None:
        """Refuse likewise a store that has nodes; one without them is not contacted for it.

        Raises:
            StoreError: Says what to set up otherwise.
        """

    def check_node(self, node: BaseNode) -> None:
        """Refuse a node that the store cannot keep whole.

        Raises:
            ValueError: Names the node and what is wrong with it.
        """

    def store_id(self, node_id: str) -> str:
        """Return the id under which the store keeps a node."""
        return node_id

    def similarity(self, score: float) -> float:
        """Return the cosine that the store's score stands for."""
        return score

    def filters(self, filters: MetadataFilters) -> MetadataFilters | None:
        """Write filters so that the store understands them as LlamaIndex's own filters are meant.

        Returns:
            Filters for the store; ``None`` if they let everything through.

        Raises:
            ValueError: The store cannot do that.
        """
        return filters

    def search_settings(self, *, similarity_top_k: int) -> dict[str, Any]:  # noqa: ARG002 - for others
        """Return what else to pass to the store's ``query``."""
        return {}

    def nodes(self, store_ids: Sequence[str]) -> list[BaseNode]:
        """Read some nodes in any order, with their vectors if the store gives them.

        Those that are not there are left out.
        """
        nodes: list[BaseNode] = self.store.get_nodes(node_ids=list(store_ids))
        return nodes

    def matching(self, filters: MetadataFilters, *, most: int) -> list[BaseNode]:  # noqa: ARG002 - for others
        """Read the nodes that pass filters of the store's own kind.

        Args:
            filters: What :meth:`filters` gave.
            most: The number of nodes there are.
        """
        nodes: list[BaseNode] = self.store.get_nodes(filters=filters)
        return nodes

    def is_lost_connection(self, error: BaseException) -> bool:
        """Whether an error says that the store could not be reached, and not that it refuses."""
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        return any(kind.__name__ in self.lost_connection for kind in type(error).__mro__)
