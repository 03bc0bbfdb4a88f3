"""A vector store by its address, for those who have no Python to make one with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from phi3_industry._addresses import holds_password, holds_secret, masked, without_secrets
from phi3_industry._optional import import_optional
from phi3_industry.errors import Phi3IndustryError, StoreError

__all__ = ["ADDRESS_FORMS", "vector_store_from_url"]

ADDRESS_FORMS = (
    "qdrant:FOLDER?collection=NAME, qdrant+http://HOST:PORT?collection=NAME, "
    "chroma:FOLDER?collection=NAME, chroma+http://HOST:PORT?collection=NAME, "
    "postgresql://USER@HOST:PORT/DATABASE?table=NAME"
)


def vector_store_from_url(url: str, *, dimensions: int | None) -> BasePydanticVectorStore:
    """Make a LlamaIndex vector store.

    Secrets do not belong into an address: Qdrant's key is taken from ``QDRANT_API_KEY``, and
    PostgreSQL's client looks into ``PGPASSWORD`` and ``~/.pgpass``. No message repeats one.

    Args:
        url: ``qdrant:FOLDER?collection=NAME``, ``qdrant+http://HOST:PORT?collection=NAME``,
            the same with ``chroma``, or ``postgresql://USER@HOST:PORT/DATABASE?table=NAME``, to
            which ``&words=simple`` adds search by words and ``&hnsw=yes`` an approximate index.
        dimensions: Length of the vectors, which PostgreSQL has to know to make a table.

    Raises:
        ValueError: It is no such address.
        MissingDependencyError: The store's package is not installed.
        StoreError: There is no such server or folder, or it cannot be used.
    """
    parts = _parts(url)
    kind, _, way = parts.scheme.partition("+")
    if kind not in _MAKERS or way not in (("",) if kind == "postgresql" else ("", "http", "https")):
        raise _is_none(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    place, allowed = _OPTIONS[kind]
    if place not in options or not options.keys() <= {place, *allowed}:
        raise ValueError(
            f"'{masked(url)}' has the options {sorted(options)}; {kind} needs '{place}'"
            + (f" and takes {sorted(allowed)}." if allowed else " and takes no other.")
        )
    if options.get("hnsw", "yes") not in ("yes", "no"):
        raise ValueError(f"'{masked(url)}' says hnsw={options['hnsw']}. Say hnsw=yes or hnsw=no.")
    if kind == "postgresql" and dimensions is None:
        raise ValueError(
            f"How long are the vectors for '{masked(url)}'? The store tells when it has some."
        )
    try:
        return _MAKERS[kind](url, options, dimensions)
    except (Phi3IndustryError, ImportError):
        raise
    except Exception as error:  # each package raises what it likes
        said = without_secrets(" ".join(str(error).split()), url).rstrip(".")
        raise StoreError(
            f"The vector store '{masked(url)}' cannot be opened: {said}. Check the address and "
            "whether its server runs."
        ) from (None if holds_secret(url) else error)


def _parts(url: str) -> SplitResult:
    """Take an address apart; what its parts say of it may repeat its secrets."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a number, or an error
    except ValueError:
        raise _is_none(url) from None
    if holds_password(url) and parts.password is None:  # it ends too early, at a / ? or #
        raise _is_none(url)
    return parts


def _is_none(url: str) -> ValueError:
    problem = f"'{masked(url)}' is no address of a vector store. Give one of: {ADDRESS_FORMS}."
    if holds_secret(url):
        problem += " In a password %40 stands for @, %2F for / and %3A for a colon."
    return ValueError(problem)


def _qdrant(url: str, options: dict[str, str], _: int | None) -> BasePydanticVectorStore:
    package = _package("qdrant")
    client = import_optional("qdrant_client", package="qdrant-client", purpose="reach Qdrant")
    where, server = _place(url)
    key = os.environ.get("QDRANT_API_KEY")
    # a server that is down would be said twice: what compares versions does it in a thread
    told = {"url": where, "api_key": key, "check_compatibility": False}
    made = client.QdrantClient(**told) if server else client.QdrantClient(path=where)
    try:
        # local mode has no such index, and warns of it
        store: BasePydanticVectorStore = package.QdrantVectorStore(
            options["collection"], client=made, index_doc_id=server
        )
    except BaseException:  # it asks the server whether the collection is there
        made.close()
        raise
    return store


def _chroma(url: str, options: dict[str, str], _: int | None) -> BasePydanticVectorStore:
    package = _package("chroma")
    chromadb = import_optional("chromadb", package="chromadb", purpose="reach Chroma")
    where, server = _place(url)
    quiet = chromadb.Settings(anonymized_telemetry=False)
    if server:
        parts = urlsplit(where)
        client = chromadb.HttpClient(
            host=parts.hostname, port=parts.port, ssl=parts.scheme == "https", settings=quiet
        )
    else:
        client = chromadb.PersistentClient(path=where, settings=quiet)
    collection = client.get_or_create_collection(
        options["collection"],
        embedding_function=None,
        configuration={"hnsw": {"space": "cosine"}},
    )
    store: BasePydanticVectorStore = package.ChromaVectorStore(collection)
    return store


def _postgresql(
    url: str, options: dict[str, str], dimensions: int | None
) -> BasePydanticVectorStore:
    package = _package("postgres")
    address = urlsplit(url)._replace(query="").geturl()
    settings: dict[str, Any] = {"table_name": options["table"], "embed_dim": dimensions}
    if "words" in options:
        settings |= {"hybrid_search": True, "text_search_config": options["words"]}
    if options.get("hnsw") == "yes":
        scan = {"options": "-c hnsw.iterative_scan=strict_order"}
        settings |= {
            "hnsw_kwargs": {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40},
            "create_engine_kwargs": {"connect_args": scan},
        }
    store: BasePydanticVectorStore = package.PGVectorStore(
        connection_string=address.replace("postgresql:", "postgresql+psycopg2:", 1),
        async_connection_string=address.replace("postgresql:", "postgresql+asyncpg:", 1),
        use_jsonb=True,
        **settings,
    )
    return store


_Maker = Callable[[str, dict[str, str], int | None], BasePydanticVectorStore]
_MAKERS: dict[str, _Maker] = {"qdrant": _qdrant, "chroma": _chroma, "postgresql": _postgresql}
# The option that names the place, and what else there is.
_OPTIONS: dict[str, tuple[str, set[str]]] = {
    "qdrant": ("collection", set()),
    "chroma": ("collection", set()),
    "postgresql": ("table", {"words", "hnsw"}),
}


def _package(name: str) -> Any:
    return import_optional(
        f"llama_index.vector_stores.{name}",
        package=f"llama-index-vector-stores-{name}",
        purpose=f"keep nodes in {name}",
    )


def _place(url: str) -> tuple[str, bool]:
    """Return the server's address, or the folder, and whether it is a server's."""
    parts = urlsplit(url)
    _, _, way = parts.scheme.partition("+")
    if way:
        return parts._replace(scheme=way, query="").geturl(), True
    return str(Path(parts.netloc + parts.path).expanduser()), False
