"""Opening the store of a folder: our own, or the register of another one."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.faiss_sqlite import FaissSQLiteVectorStore
from phi3_industry.vector_stores.others.register import REGISTER_NAME
from phi3_industry.vector_stores.others.registered import RegisteredVectorStore
from phi3_industry.vector_stores.schema import DATABASE_NAME

__all__ = ["open_store"]


def open_store(
    path: str | PathLike[str],
    *,
    identity: dict[str, Any] | None = None,
    vector_store: BasePydanticVectorStore | None = None,
    read_only: bool = False,
) -> FaissSQLiteVectorStore | RegisteredVectorStore:
    """Open the store of a folder, or begin one.

    Args:
        path: The folder.
        identity: What makes the vectors; ``None`` leaves the check out.
        vector_store: The LlamaIndex store that the nodes lie in; ``None`` if they lie in the
            folder.
        read_only: Never write.

    Raises:
        StoreIdentityError: It was built with another embedding.
        StoreError: The folder's nodes lie elsewhere, or it cannot be read.
    """
    folder = Path(path)
    if vector_store is None:
        if (folder / REGISTER_NAME).exists():
            raise StoreError(
                f"The nodes of '{folder}' lie in another vector store, of which the folder holds "
                "the register. Pass that store as vector_store=."
            )
        return FaissSQLiteVectorStore(folder, identity=identity, read_only=read_only)
    if (folder / DATABASE_NAME).exists():
        raise StoreError(
            f"The folder '{folder}' holds a store of our own. Pass another folder for the "
            "register; transfer() copies one into the other."
        )
    return RegisteredVectorStore(folder, vector_store, identity=identity, read_only=read_only)
