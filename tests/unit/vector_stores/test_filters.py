"""Filters mean what LlamaIndex's own mean, over every operator and kind of value."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from phi3_industry.vector_stores import FaissSQLiteVectorStore

VALUES: list[Any] = [
    "pump",
    "Pumpe",
    "",
    "PUMP ÄÖ",
    "10",
    10,
    10.0,
    10.5,
    -3,
    0,
    True,
    False,
    None,
    [],
    ["pump", "valve"],
    ["10"],
    [10, 20],
    [10.5],
    {"pump": 1},
    "[]",
    "null",
    "o'clock\"\\",
]
METADATA = {f"row{i}": {"key": value} for i, value in enumerate(VALUES)} | {"without": {}}
WANTED: list[Any] = [
    "pump",
    "ump",
    "",
    "PUMP äö",
    "10",
    10,
    10.0,
    9.5,
    0,
    1,
    ["pump", "10"],
    [10, 20],
    [10.5],
    ["o'clock\"\\"],
    [],
    None,
]
MISSING = {row for row, metadata in METADATA.items() if metadata.get("key") is None}
ORDERED = [FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> FaissSQLiteVectorStore:
    store = FaissSQLiteVectorStore(tmp_path_factory.mktemp("filters") / "store")
    store.add(
        [
            TextNode(id_=row, text=row, metadata=metadata, embedding=[1.0, 0.0])
            for row, metadata in METADATA.items()
        ]
    )
    yield store
    store.close()


def upstream(filters: MetadataFilters) -> tuple[set[str], set[str]]:
    """The rows that LlamaIndex's filters let through, and those that they cannot compare."""
    passes = build_metadata_filter_fn(METADATA.__getitem__, filters)
    through, incomparable = set(), set()
    for row in METADATA:
        try:
            if passes(row):
                through.add(row)
        except TypeError:
            incomparable.add(row)
    return through, incomparable


def ours(store: FaissSQLiteVectorStore, filters: MetadataFilters) -> set[str]:
    return {node.node_id for node in store.get_nodes(filters=filters)}


def test_every_operator_with_every_value_lets_the_same_rows_through(rows):
    compared = 0
    messages: list[str] = []
    for operator, value in product(FilterOperator, WANTED):
        filters = MetadataFilters(
            filters=[MetadataFilter(key="key", operator=operator, value=value)]
        )
        through, incomparable = upstream(filters)
        try:
            found = ours(rows, filters)
        except ValueError as error:
            messages.append(str(error))
            # Python orders lists; a filter that asks which list is greater is a mistake
            lists_ordered = operator in ORDERED and isinstance(value, list)
            assert through <= MISSING or lists_ordered, (operator, value)
            continue
        assert found - incomparable == through, (operator, value)
        if operator != FilterOperator.NIN:  # what cannot be compared does not match
            assert not found & incomparable, (operator, value)
        compared += 1
    assert compared > 120
    assert len(messages) > 20
    assert all("with operator" in message and "; give it a" in message for message in messages)


@pytest.mark.parametrize("condition", [*FilterCondition, None])
def test_conditions_join_filters_as_upstream_does(rows, condition):
    seen: set[str] = set()
    for first, second in product(ORDERED, [FilterOperator.NE, FilterOperator.IN]):
        filters = MetadataFilters(
            filters=[
                MetadataFilter(key="key", operator=first, value=5),
                MetadataFilter(key="key", operator=second, value=[10, 20]),
            ],
            condition=condition,
        )
        through, incomparable = upstream(filters)
        assert ours(rows, filters) - incomparable == through
        seen |= through
    assert seen


def test_no_filters_let_everything_through(rows):
    for condition in FilterCondition:
        assert ours(rows, MetadataFilters(filters=[], condition=condition)) == set(METADATA)


def test_nested_filters_work(rows):
    def leaf(operator: str, value: Any) -> MetadataFilter:
        return MetadataFilter(key="key", operator=FilterOperator(operator), value=value)

    small = MetadataFilters(filters=[leaf(">", -1), leaf("<", 10.2)])
    text = MetadataFilters(filters=[leaf("text_match", "ump")])
    either = MetadataFilters(filters=[small, text], condition=FilterCondition.OR)
    neither = MetadataFilters(filters=[small, text], condition=FilterCondition.NOT)
    assert ours(rows, either) == ours(rows, small) | ours(rows, text)
    assert ours(rows, neither) == set(METADATA) - ours(rows, either)
    assert ours(rows, small)
    assert ours(rows, text)


@pytest.mark.parametrize("key", ["it's", 'a"b', "$.a", "a.b", "", "\\", "ключ", "a\nb", "x]['y"])
def test_any_key_is_only_a_key(store, node, key):
    store.add([node("with", [1, 0], **{key: "v"}), node("without", [1, 0])])
    filters = MetadataFilters(filters=[MetadataFilter(key=key, value="v")])
    assert ours(store, filters) == {"with"}


@pytest.mark.parametrize("key", ["ref_doc_id", "doc_id", "document_id"])
def test_the_documents_id_can_be_filtered_on(store, node, key):
    store.add([node("a", [1, 0], doc="x"), node("b", [1, 0], doc="y"), node("c", [1, 0], doc=None)])
    assert ours(store, MetadataFilters(filters=[MetadataFilter(key=key, value="x")])) == {"a"}


def test_a_key_of_the_users_own_wins_over_the_documents_id(store, node):
    store.add([node("a", [1, 0], doc="x", doc_id="mine")])
    filters = MetadataFilters(filters=[MetadataFilter(key="doc_id", value="mine")])
    assert ours(store, filters) == {"a"}


def test_numbers_beyond_64_bits_and_long_lists_are_compared(store, node):
    store.add([node("a", [1, 0], n=2**80), node("b", [1, 0], n=7)])
    over = MetadataFilters(
        filters=[MetadataFilter(key="n", operator=FilterOperator.GT, value=2**70)]
    )
    assert ours(store, over) == {"a"}
    among = list(range(50_000))
    listed = MetadataFilters(
        filters=[MetadataFilter(key="n", operator=FilterOperator.IN, value=among)]
    )
    assert ours(store, listed) == {"b"}


@pytest.mark.parametrize("value", ["v", 2003, "Bergen 5", '"v"'])
def test_a_value_is_found_whatever_stands_beside_it(store, node, value):
    """The quick look into the text of the metadata lets nothing through that is not equal."""
    store.add(
        [
            node("equal", [1, 0], key=value),
            node("nested", [1, 0], other={"key": value}),
            node("quoted", [1, 0], other=f'"key": "{value}"'),
            node("longer", [1, 0], key=f"{value}0"),
            node("listed", [1, 0], key=[value]),
            node("as float", [1, 0], key=float(value) if isinstance(value, int) else value),
        ]
    )
    for operator, wanted in ((FilterOperator.EQ, value), (FilterOperator.IN, [value, value])):
        entry = MetadataFilter(key="key", operator=operator, value=wanted)
        assert ours(store, MetadataFilters(filters=[entry])) == {"equal", "as float"}
