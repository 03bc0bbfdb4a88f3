"""PostgreSQL with pgvector, as LlamaIndex's package speaks to it.

That package writes keys and values of filters into its SQL as they are, so that they are escaped
here, twice: for SQL, and for SQLAlchemy, to which a colon begins a parameter.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from phi3_industry.errors import StoreError
from phi3_industry.vector_stores.others.dialect import StoreDialect
from phi3_industry.vector_stores.others.filters import (
    Filter,
    any_of,
    is_among,
    is_not_among,
    numbers_and_texts,
    one,
    refuse_not,
    rewritten,
    unsupported,
)

__all__ = ["PgvectorDialect"]

_COMPARISONS = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
_INSIDE_LISTS = (FilterOperator.CONTAINS, FilterOperator.ANY, FilterOperator.ALL)
# Texts that every collation puts into the same order.
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?)?")
_ITERATIVE_SCAN = "SELECT current_setting('hnsw.iterative_scan', true)"
_HNSW_INDEXES = (
    "SELECT count(*) FROM pg_indexes WHERE schemaname = %s AND tablename = %s "
    "AND indexdef LIKE '%% USING hnsw %%'"
)


class PgvectorDialect(StoreDialect):
    """A ``PGVectorStore``."""

    lost_connection: ClassVar[frozenset[str]] = frozenset({"OperationalError", "InterfaceError"})

    def __init__(self, store: BasePydanticVectorStore) -> None:
        super().__init__(store)
        # or it would take a server that is down for one whose table is there
        self.store.initialization_fail_on_error = True

    @property
    def place(self) -> str:
        """The table."""
        return f"the table '{self.store.schema_name}.data_{self.store.table_name}' of PostgreSQL"

    @property
    def searches_words(self) -> bool:
        """Whether it keeps a text search vector."""
        return bool(self.store.hybrid_search)

    def check(self) -> None:
        """Refuse an approximate index that filters would starve."""
        if self.store.hnsw_kwargs is not None:
            self.check_filled()

    def check_filled(self) -> None:
        """Refuse such an index if somebody else has made it."""
        self.store.get_nodes(node_ids=["-"])  # connects and sets up
        table = (self.store.schema_name, f"data_{self.store.table_name}")
        with self.store.client.connect() as connection:
            mode = connection.exec_driver_sql(_ITERATIVE_SCAN).scalar()
            indexes = connection.exec_driver_sql(_HNSW_INDEXES, table).scalar()
        if indexes and mode in (None, "", "off"):
            raise StoreError(
                f"{self.place} has an HNSW index, and hnsw.iterative_scan is off: a filter would "
                "let fewer nodes through than there are. Say hnsw=yes in the address, or pass "
                "create_engine_kwargs={'connect_args': {'options': "
                "'-c hnsw.iterative_scan=strict_order'}} (pgvector 0.8 or later)."
            )

    def check_node(self, node: BaseNode) -> None:
        """Refuse the one character that PostgreSQL's texts cannot hold."""
        # JSON writes it as an escape, which a text of the same six characters has not
        written = node.model_dump_json(exclude={"embedding"}).replace("\\\\", "")
        if "\\u0000" in written:
            raise ValueError(
                f"The node '{node.node_id}' holds the character NUL, which PostgreSQL cannot "
                "store. Remove it from the document."
            )

    def filters(self, filters: MetadataFilters) -> MetadataFilters | None:
        """Write filters for LlamaIndex's package."""
        refuse_not(filters, store=self.name)
        return rewritten(filters, self._rewritten, store=self.name)

    def search_settings(self, *, similarity_top_k: int) -> dict[str, Any]:
        """Let an HNSW index look at as many candidates as are asked for; it gives no more."""
        if self.store.hnsw_kwargs is None:
            return {}
        wanted = int(self.store.hnsw_kwargs.get("hnsw_ef_search", 40))
        return {"hnsw_ef_search": min(max(wanted, similarity_top_k), 1000)}

    def _rewritten(self, entry: MetadataFilter) -> Filter:
        key, operator = _escaped(entry.key), entry.operator
        if operator in (FilterOperator.EQ, FilterOperator.IN):
            # EQ would take a text that looks like a number for one
            return is_among(key, entry, escape=_escaped)
        missing = one(key, FilterOperator.IS_EMPTY, None)
        if operator in (FilterOperator.NE, FilterOperator.NIN):
            return any_of([missing, is_not_among(key, entry, escape=_escaped)])
        if operator == FilterOperator.IS_EMPTY:
            return any_of([missing, one(key, FilterOperator.IN, ["", "[]"])])
        if operator in _COMPARISONS:
            return one(key, operator, self._comparable(entry))
        if operator in _INSIDE_LISTS:
            return one(key, operator, self._list_value(entry))
        if operator == FilterOperator.TEXT_MATCH_INSENSITIVE and not str(entry.value).isascii():
            reason = "which letters are the same beyond ASCII depends on the database's locale"
            raise unsupported(entry, store=self.name, reason=reason)
        return one(key, operator, _escaped(_pattern(str(entry.value))))

    def _comparable(self, entry: MetadataFilter) -> str | int | float:
        if isinstance(entry.value, int | float):
            return entry.value
        if not _DATE.fullmatch(str(entry.value)):
            reason = (
                "it orders texts by the database's collation and takes what looks like a number "
                "for one; numbers, and dates written as 2026-01-31, can be compared"
            )
            raise unsupported(entry, store=self.name, reason=reason)
        return _escaped(str(entry.value))

    def _list_value(self, entry: MetadataFilter) -> str | list[str]:
        numbers, texts = numbers_and_texts(entry)
        if numbers:
            reason = "LlamaIndex's package looks for texts in lists, and not for numbers"
            raise unsupported(entry, store=self.name, reason=reason)
        if entry.operator == FilterOperator.CONTAINS:
            return _escaped(json.dumps(texts[0], ensure_ascii=False)[1:-1])
        return [_escaped(text) for text in texts]


def _escaped(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"The filter holds the character NUL, which PostgreSQL has not: {text!r}.")
    return text.replace("'", "''").replace(":", "\\:")


def _pattern(text: str) -> str:
    """Write a text so that LIKE takes it for itself."""
    return re.sub(r"([\\%_])", r"\\\1", text)
