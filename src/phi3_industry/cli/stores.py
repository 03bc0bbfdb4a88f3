"""The vector store that a knowledge base's nodes lie in: its own folder, or an address."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry._addresses import local_folder, masked
from phi3_industry.cli.console import Console
from phi3_industry.errors import StoreError

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.vector_stores.types import BasePydanticVectorStore

__all__ = ["IN_THE_FOLDER", "check_store", "chosen_store", "opened_store", "vector_length"]

IN_THE_FOLDER = "folder"
"""The value of ``--store`` that means the knowledge base's own folder."""


def chosen_store(arguments: argparse.Namespace, console: Console) -> str | None:
    """Return the address that the settings name, and say so if a project file named it.

    Returns:
        The address; ``None`` if the nodes lie in the folder.
    """
    address: str = arguments.store
    if address == IN_THE_FOLDER:
        return None
    if arguments.origins["store"] != "command line":
        console.say(f"The nodes lie in {masked(address)}, as {arguments.project.path} says.")
    return address


def check_store(folder: str, address: str | None, *, option: str) -> None:
    """Check, before anything is connected to, that folder and address can belong together.

    Args:
        folder: The knowledge base's folder; it need not exist.
        address: The address of another store; ``None`` if the nodes lie in the folder.
        option: The option that the address is given with, such as ``--store``.

    Raises:
        StoreError: The nodes lie elsewhere, or the address names a folder that is gone.
    """
    from phi3_industry.vector_stores.others.register import REGISTER_NAME, registered_properties
    from phi3_industry.vector_stores.others.urls import ADDRESS_FORMS
    from phi3_industry.vector_stores.schema import DATABASE_NAME

    if address is None:
        if (Path(folder) / REGISTER_NAME).exists():
            place = registered_properties(folder).get("place", "another vector store")
            raise StoreError(
                f"The nodes of '{folder}' lie in {place}, and the folder holds the register alone. "
                f"Say where that is with {option} ADDRESS: {ADDRESS_FORMS}."
            )
        return
    if (Path(folder) / DATABASE_NAME).exists():
        raise StoreError(
            f"The nodes of '{folder}' lie in the folder itself, and {option} is "
            f"'{masked(address)}'. Say {option} {IN_THE_FOLDER}, or name another folder; "
            "`phi3-industry transfer` copies one into the other."
        )
    place = registered_properties(folder).get("place")
    local = local_folder(address)
    if place is not None and local is not None and not Path(local).expanduser().is_dir():
        raise StoreError(
            f"The nodes of '{folder}' lie in {place}, and there is no folder '{local}' for it. "
            f"Correct {option}; relative paths start in the working folder."
        )


@contextmanager
def opened_store(
    folder: str, address: str | None, *, option: str, dimensions: Callable[[], int | None]
) -> Iterator[BasePydanticVectorStore | None]:
    """Open the store of an address, and close it afterwards.

    Args:
        folder: The folder of the knowledge base, which holds the store's register.
        address: The address; ``None`` if the nodes lie in the folder.
        option: The option that the address is given with.
        dimensions: Tells the length of the vectors, if the register does not know it yet.

    Returns:
        The store; ``None`` without an address.

    Raises:
        ValueError: It is no such address.
        MissingDependencyError: The store's package is not installed.
        StoreError: The nodes lie elsewhere, or the store cannot be used.
    """
    from phi3_industry.vector_stores.others import vector_store_from_url
    from phi3_industry.vector_stores.others.register import registered_properties

    check_store(folder, address, option=option)
    if address is None:
        yield None
        return
    known: int | None = registered_properties(folder).get("dimensions")
    store = vector_store_from_url(address, dimensions=known or dimensions())
    try:
        yield store
    finally:
        _close(store)


def vector_length(embed_model: BaseEmbedding) -> int:
    """Return the length of an embedding's vectors; one that does not tell embeds a word."""
    from phi3_industry.embeddings import embedding_identity

    told: int | None = embedding_identity(embed_model).get("dimensions")
    return told or len(embed_model.get_text_embedding("length"))


def _close(store: Any) -> None:
    for name in ("close", "dispose"):
        close = getattr(store.client, name, None)
        if callable(close):
            close()
