"""What holds for our own store holds for the others, or is refused: one set of tests for all.

Those that need a server, or packages that the default environment lacks, are marked ``servers``.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from stores_under_test import EMBED_DIM, MAKERS, StoreMaker, WordEmbedding, word_vector

from phi3_industry import FaissSQLiteVectorStore, KnowledgeBase
from phi3_industry.errors import StoreError, StoreIdentityError
from phi3_industry.vector_stores.others import RegisteredVectorStore, open_store

pytestmark = [
    # Qdrant's local mode says that it ignores payload indexes
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
]

HERE = ("ours", "qdrant", "qdrant-hybrid")
WITH_WORDS = ("ours", "qdrant-hybrid", "pgvector-hybrid")
OTHERS = [kind for kind in MAKERS if kind != "ours"]


def kinds(names: Any = MAKERS) -> Any:
    marks = {name: () if name in HERE else pytest.mark.servers for name in names}
    params = [pytest.param(name, marks=marks[name]) for name in names]
    return pytest.mark.parametrize("maker", params, indirect=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    (root / "tables").mkdir(parents=True)
    (root / "a.md").write_text("# Manual\n\n## Pump\n\nThe pump runs.\n\n## Valve\n\nIt closes.")
    (root / "b.txt").write_text("Text of the gasket.")
    (root / "tables" / "t.csv").write_text("Tag,Load\nP-1,2 t\nP-2,3 t\n")
    return root


def opened(maker: StoreMaker, *, dimensions: int = EMBED_DIM, **settings: Any) -> KnowledgeBase:
    return KnowledgeBase.open(
        maker.folder / "kb",
        embed_model=WordEmbedding(dimensions=dimensions),
        vector_store=maker(),
        **settings,
    )


def all_ids(kb: KnowledgeBase) -> list[str]:
    """Ask the store itself, past the register, which nodes it holds."""
    store = getattr(kb.vector_store, "vector_store", kb.vector_store)
    query = VectorStoreQuery(query_embedding=word_vector("pump"), similarity_top_k=1000)
    return sorted(store.query(query).ids)


def texts(kb: KnowledgeBase) -> set[str]:
    return {node.get_content() for node in kb.vector_store.get_nodes()}


def node(node_id: str, text: str, /, *, document: str = "", **metadata: Any) -> TextNode:
    relationships: Any = {}
    if document:
        relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(
        id_=node_id,
        text=text,
        metadata=metadata,
        relationships=relationships,
        embedding=word_vector(text),
    )


# Documents


@kinds()
def test_documents_are_added_kept_and_found_again(maker: StoreMaker, folder: Path) -> None:
    with opened(maker) as kb:
        report = kb.add(folder)
        assert report.added == ["a.md", "b.txt", "tables/t.csv"]
        assert (report.nodes, kb.vector_store.count, len(all_ids(kb))) == (5, 5, 5)
        embedded = kb.embed_model.embedded
        assert len(kb.add(folder).unchanged) == 3
        assert kb.embed_model.embedded == embedded
    with opened(maker, read_only=True) as kb:
        assert kb.documents == ["a.md", "b.txt", "tables/t.csv"]
        assert kb.as_retriever().retrieve("gasket")[0].node.get_content() == "Text of the gasket."
        with pytest.raises(StoreError, match="read"):
            kb.delete("b.txt")


@kinds()
def test_refresh_touches_only_what_changed(maker: StoreMaker, folder: Path) -> None:
    with opened(maker) as kb:
        kb.add(folder)
        before = kb.embed_model.embedded
        (folder / "a.md").write_text("# Manual\n\nAll is new.")
        (folder / "b.txt").unlink()
        (folder / "c.txt").write_text("Text of c.")
        report = kb.refresh(folder)
        assert (report.added, report.updated) == (["c.txt"], ["a.md"])
        assert (report.deleted, report.unchanged) == (["b.txt"], ["tables/t.csv"])
        assert kb.embed_model.embedded == before + 2
        assert "All is new." in texts(kb)
        assert not {"The pump runs.", "Text of the gasket."} & texts(kb)
        assert len(all_ids(kb)) == kb.vector_store.count == 4


@kinds()
def test_delete_takes_all_of_a_document_and_nothing_else(maker: StoreMaker, folder: Path) -> None:
    with opened(maker) as kb:
        kb.add(folder)
        assert kb.delete("a.md")
        assert not kb.delete("a.md")
        assert kb.documents == ["b.txt", "tables/t.csv"]
        assert len(all_ids(kb)) == 3
        kb.vector_store.delete_nodes(
            filters=MetadataFilters(filters=[MetadataFilter(key="row_key", value="P-1")])
        )
        assert len(all_ids(kb)) == kb.vector_store.count == 2
        assert kb.add(folder).updated == []  # a document that lost a node is no longer known
        assert len(all_ids(kb)) == 5


@kinds()
def test_a_node_of_the_same_id_is_replaced(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        store = kb.vector_store
        assert store.add([node("n1", "old pump"), node("n2", "valve")]) == ["n1", "n2"]
        store.add([node("n1", "new gasket", kind="seal")])
        assert len(all_ids(kb)) == store.count == 2
        [found] = store.get_nodes(["n1"])
        assert (found.get_content(), found.metadata) == ("new gasket", {"kind": "seal"})
        query = VectorStoreQuery(query_embedding=word_vector("new gasket"), similarity_top_k=1)
        assert store.query(query).ids == ["n1"]
        assert store.query(query).similarities == [pytest.approx(1.0, abs=1e-5)]
        store.clear()
        assert (store.count, store.get_nodes(), store.query(query).ids) == (0, [], [])


@kinds()
def test_an_empty_store_answers_with_nothing(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        assert (kb.documents, kb.vector_store.count, kb.vector_store.get_nodes()) == ([], 0, [])
        assert kb.as_retriever().retrieve("pump") == []
        assert not kb.delete("x")
        kb.vector_store.delete_nodes(["x"])
        engine = kb.as_query_engine(MockLLM(), strategy="rag")
        assert engine.query("pump").source_nodes == []


@kinds()
def test_another_embedding_is_refused(maker: StoreMaker, folder: Path) -> None:
    with opened(maker) as kb:
        kb.add(folder)
    with pytest.raises(StoreIdentityError, match="built with another embedding"):
        opened(maker, dimensions=8)


@kinds()
def test_vectors_that_cannot_be_compared_are_refused(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        short = TextNode(text="x", embedding=[1.0, 2.0])
        with pytest.raises(ValueError, match="has 2 dimensions"):
            kb.vector_store.add([short])
        with pytest.raises(ValueError, match="has no embedding"):
            kb.vector_store.add([TextNode(text="x")])
        assert kb.vector_store.count == 0


# Searches


CODES = [f"K{number:03d}" for number in range(40)]


def corpus() -> list[TextNode]:
    return [
        node(
            f"{code}-{half}",
            f"The {kind} of {code} holds {half} bar.",
            document=f"doc {code}",
            half=half,
            code=code,
        )
        for code in CODES
        for half, kind in enumerate(("pump", "gasket"))
    ]


@kinds()
def test_scores_are_cosines_and_the_nearest_come_first(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(corpus())
        asked = np.array(word_vector("gasket of K007"))
        query = VectorStoreQuery(query_embedding=(3 * asked).tolist(), similarity_top_k=20)
        found = kb.vector_store.query(query)
        exact = {
            n.node_id: float(np.dot(n.embedding, asked) / np.linalg.norm(n.embedding))
            for n in corpus()
        }
        length = float(np.linalg.norm(asked))
        wanted = sorted((score / length for score in exact.values()), reverse=True)[:20]
        assert found.similarities == pytest.approx(wanted, abs=1e-5)
        for node_id, score in zip(found.ids, found.similarities, strict=True):
            assert score == pytest.approx(exact[node_id] / length, abs=1e-5)
        assert all(found_node.embedding is None for found_node in found.nodes)


@kinds()
def test_documents_and_nodes_can_be_chosen(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(corpus())
        modes = [VectorStoreQueryMode.DEFAULT]
        if maker.kind in WITH_WORDS:
            modes += [VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.HYBRID]
        for mode in modes:
            settings: dict[str, Any] = {
                "query_embedding": word_vector("gasket"),
                "query_str": "gasket of K003 or K005",
                "similarity_top_k": 80,
                "mode": mode,
            }
            among = VectorStoreQuery(doc_ids=["doc K003", "doc K005"], **settings)
            assert set(kb.vector_store.query(among).ids) == {
                f"{code}-{half}" for code in ("K003", "K005") for half in (0, 1)
            }
            both = VectorStoreQuery(
                doc_ids=["doc K003"], node_ids=["K003-1", "K005-1", "none"], **settings
            )
            assert kb.vector_store.query(both).ids == ["K003-1"]
            none = VectorStoreQuery(doc_ids=[], **settings)
            assert kb.vector_store.query(none).ids == []


@kinds()
def test_the_hybrid_retriever_works_as_it_is(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(corpus())
        filters = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
        retriever = kb.as_retriever(filters=filters, weights=(1, 2))
        found = retriever.retrieve_with_details("gasket of K007")
        assert {entry.node.metadata["half"] for entry in found} == {1}
        assert len(found) == 5
        if maker.kind in WITH_WORDS:
            assert found[0].node.node_id == "K007-1"
            assert found[0].searches == ("dense", "lexical")
            assert found[0].lexical_rank == 1
        else:
            assert found[0].searches == ("dense",)


@kinds()
async def test_asynchronous_calls_find_the_same(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        await kb.vector_store.async_add(corpus())
        retriever = kb.as_retriever()
        found = await retriever.aretrieve("gasket of K007")
        assert [hit.node.node_id for hit in found] == [
            hit.node.node_id for hit in retriever.retrieve("gasket of K007")
        ]


@kinds(OTHERS)
def test_modes_that_a_store_does_not_offer_are_refused(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(corpus())
        modes = [VectorStoreQueryMode.MMR, VectorStoreQueryMode.SVM]
        if maker.kind not in WITH_WORDS:
            modes += [VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.TEXT_SEARCH]
        for mode in modes:
            query = VectorStoreQuery(
                query_embedding=word_vector("pump"), query_str="pump", mode=mode
            )
            with pytest.raises(ValueError, match=f"mode '{mode.value}' is not offered"):
                kb.vector_store.query(query)


@kinds(WITH_WORDS)
def test_words_find_what_vectors_do_not(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(corpus())
        for mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.HYBRID):
            query = VectorStoreQuery(
                query_embedding=word_vector("bar"),
                query_str="K007",
                similarity_top_k=4,
                alpha=0.1 if mode == VectorStoreQueryMode.HYBRID else None,
                mode=mode,
            )
            found = kb.vector_store.query(query)
            assert set(found.ids[:2]) == {"K007-0", "K007-1"}
            assert found.similarities == sorted(found.similarities, reverse=True)


@kinds()
def test_the_query_engine_shows_what_filters_let_through(maker: StoreMaker, folder: Path) -> None:
    with opened(maker) as kb:
        kb.add(folder)
        filters = MetadataFilters(filters=[MetadataFilter(key="cell:Load", value="3 t")])
        engine = kb.as_query_engine(MockLLM(), strategy="rag", filters=filters)
        sources = engine.query("What load has P-1?").source_nodes
        assert [hit.node.metadata["source_id"] for hit in sources] == ["tables/t.csv#P-2"]
        assert isinstance(kb.index, VectorStoreIndex)
        assert len(kb.index.as_retriever(similarity_top_k=2).retrieve("load of P-1")) == 2


@kinds()
def test_documents_ask_themselves_to_fit_the_weights(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(corpus())
        assert kb.as_retriever().fit().source == "corpus"


# Filters

ROWS: dict[str, dict[str, Any]] = {
    "whole": {"load": 3, "name": "pump", "made": "2024-05-01"},
    "real": {"load": 3.0, "name": "Pump"},
    "more": {"load": 4.5, "name": "100% pump_1", "made": "2025-01-31"},
    "negative": {"load": -7, "name": "it's a \\ 'pump'"},
    "digits": {"name": "3", "made": "2023-12-31"},
    "none": {"name": None, "other": 1},
    "empty": {"name": ""},
    "missing": {"other": 2},
    "colon": {"name": "at 12:30 :x, done", "a.b[0]": "dots", "it's": "quoted", "cell:Größe": "ä"},
    "umlaut": {"name": "ÄRMEL ärmel", "cell:Größe": "größer", "泵": "水泵"},
}
Op = FilterOperator
F = MetadataFilter

FILTERS: dict[str, MetadataFilters] = {
    name: MetadataFilters(filters=[F(key=key, operator=operator, value=value)])
    for name, key, operator, value in [
        ("text ==", "name", Op.EQ, "pump"),
        ("quoted ==", "name", Op.EQ, "it's a \\ 'pump'"),
        ("injected ==", "name", Op.EQ, "x' OR '1'='1"),
        ("injected key", "name' IS NOT NULL OR 'a", Op.EQ, "pump"),
        ("colon ==", "name", Op.EQ, "at 12:30 :x, done"),
        ("dotted key", "a.b[0]", Op.EQ, "dots"),
        ("quoted key", "it's", Op.EQ, "quoted"),
        ("colon key", "cell:Größe", Op.EQ, "größer"),
        ("Chinese key", "泵", Op.EQ, "水泵"),
        ("empty ==", "name", Op.EQ, ""),
        ("number ==", "load", Op.EQ, 3),
        ("real ==", "load", Op.EQ, 3.0),
        ("text !=", "name", Op.NE, "pump"),
        ("number !=", "load", Op.NE, 3),
        (">", "load", Op.GT, 3),
        (">=", "load", Op.GTE, 3),
        ("<", "load", Op.LT, 4.5),
        ("<=", "load", Op.LTE, -7),
        ("date >=", "made", Op.GTE, "2024-05-01"),
        ("date <", "made", Op.LT, "2024-05-01"),
        ("text >", "name", Op.GT, "a"),
        ("texts in", "name", Op.IN, ["pump", "100% pump_1", "it's a \\ 'pump'"]),
        ("numbers in", "load", Op.IN, [3, 4.5]),
        ("mixed in", "name", Op.IN, ["pump", "absent"]),
        ("texts nin", "name", Op.NIN, ["pump", "Pump"]),
        ("numbers nin", "load", Op.NIN, [3, 4]),
        ("is_empty", "name", Op.IS_EMPTY, None),
        ("text_match", "name", Op.TEXT_MATCH, "pump"),
        ("text_match %", "name", Op.TEXT_MATCH, "% pump_"),
        ("text_match \\", "name", Op.TEXT_MATCH, "\\ 'p"),
        ("insensitive", "name", Op.TEXT_MATCH_INSENSITIVE, "PUMP"),
        ("insensitive beyond ASCII", "name", Op.TEXT_MATCH_INSENSITIVE, "ärmel"),
        ("document", "ref_doc_id", Op.EQ, "doc whole"),
        ("documents", "ref_doc_id", Op.IN, ["doc whole", "doc real", "doc none"]),
    ]
}
FILTERS |= {
    "and": MetadataFilters(filters=[F(key="load", value=3), F(key="name", value="pump")]),
    "or": MetadataFilters(
        filters=[F(key="load", value=3), F(key="other", value=1)], condition=FilterCondition.OR
    ),
    "not": MetadataFilters(
        filters=[F(key="load", value=3), F(key="other", value=1)], condition=FilterCondition.NOT
    ),
    "nested": MetadataFilters(
        filters=[
            MetadataFilters(
                filters=[F(key="name", value="pump"), F(key="name", value="Pump")],
                condition=FilterCondition.OR,
            ),
            MetadataFilters(filters=[]),
            F(key="load", operator=Op.GTE, value=3),
        ]
    ),
    "nothing": MetadataFilters(filters=[]),
}
#: What each store refuses. Everything else has to be answered as our own store answers it.
REFUSED: dict[str, set[str]] = {
    "qdrant": {
        *("date >=", "date <", "text >", "text_match", "text_match %", "text_match \\"),
        *("insensitive", "insensitive beyond ASCII"),
    },
    "chroma": {
        *("date >=", "date <", "text >", "text_match", "text_match %", "text_match \\"),
        *("insensitive", "insensitive beyond ASCII", "is_empty", "not", "empty =="),
    },
    "pgvector": {"text >", "insensitive beyond ASCII", "not"},
}


@kinds()
def test_filters_mean_the_same_or_are_refused(maker: StoreMaker, tmp_path: Path) -> None:
    nodes = [
        node(name, "pump", document=f"doc {name}", **metadata) for name, metadata in ROWS.items()
    ]
    reference = FaissSQLiteVectorStore(tmp_path / "reference")
    reference.add(nodes)
    with opened(maker) as kb:
        kb.vector_store.add(nodes)
        for name, filters in FILTERS.items():
            expected = {found.node_id for found in reference.get_nodes(filters=filters)}
            query = VectorStoreQuery(
                query_embedding=word_vector("pump"), filters=filters, similarity_top_k=100
            )
            if name in REFUSED.get(maker.kind.partition("-")[0], set()):
                with pytest.raises(ValueError, match="filter"):
                    kb.vector_store.query(query)
                with pytest.raises(ValueError, match="filter"):
                    kb.vector_store.get_nodes(filters=filters)
                continue
            found = kb.vector_store.query(query)
            assert set(found.ids) == expected, name
            listed = {each.node_id for each in kb.vector_store.get_nodes(filters=filters)}
            assert listed == expected, name


@kinds(["qdrant", "chroma", "pgvector"])
@pytest.mark.parametrize(
    ("operator", "value", "wanted"),
    [
        (Op.EQ, None, "a number or a text"),
        (Op.EQ, ["a"], "a number or a text"),
        (Op.GT, float("nan"), "finite numbers"),
        (Op.IN, "pump", "a list"),
        (Op.NIN, [], "a list"),
        (Op.TEXT_MATCH, 3, "a text"),
    ],
)
def test_values_that_mean_nothing_are_refused(
    maker: StoreMaker, operator: FilterOperator, value: Any, wanted: str
) -> None:
    with opened(maker) as kb:
        kb.vector_store.add([node("n", "pump", name="pump")])
        filters = MetadataFilters(filters=[F(key="name", operator=operator, value=value)])
        with pytest.raises(ValueError, match=f"'name' with operator .* give it {wanted}"):
            kb.vector_store.get_nodes(filters=filters)


@kinds(["pgvector"])
def test_lists_are_looked_into(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add(
            [
                node("two", "pump", tags=["hot", 'it\'s "cold"']),
                node("one", "pump", tags=["hot"]),
                node("none", "pump", tags=[]),
            ]
        )
        for operator, value, expected in [
            (Op.CONTAINS, 'it\'s "cold"', {"two"}),
            (Op.ANY, ['it\'s "cold"', "hot"], {"one", "two"}),
            (Op.ALL, ['it\'s "cold"', "hot"], {"two"}),
            (Op.IS_EMPTY, None, {"none"}),
        ]:
            filters = MetadataFilters(filters=[F(key="tags", operator=operator, value=value)])
            found = kb.vector_store.get_nodes(filters=filters)
            assert {each.node_id for each in found} == expected


@kinds(["pgvector"])
def test_a_number_that_meets_texts_is_an_error_in_plain_words(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        kb.vector_store.add([node("a", "pump", load=3), node("b", "pump", load="3 t")])
        filters = MetadataFilters(filters=[F(key="load", value=3)])
        with pytest.raises(StoreError, match=r"refused what it was asked .*double precision"):
            kb.vector_store.get_nodes(filters=filters)


# Texts of all kinds

ODD_TEXTS = [
    "泵的额定排出压力为38.2巴",
    "الضغط الاسمي للمضخة",
    "ΑΝΤΛΊΑ — насос — ポンプ",
    unicodedata.normalize("NFD", "Größe ä é"),
    "quotes ' \" ` and \\ back \\u0041 \t tab\nline \u2028 end",
    "emoji 👩‍🔧 and astral 𝔓𝔲𝔪𝔭",
    "$1 %s {x} :name ?| <|end|>",
]


@kinds()
def test_texts_ids_and_metadata_come_back_as_they_went(maker: StoreMaker) -> None:
    nodes = [
        node(f"{text} #{n}", text, document=f"Ordner/{text}.md", **{f"({text[:20]})": text, "n": n})
        for n, text in enumerate(ODD_TEXTS)
    ]
    with opened(maker) as kb:
        kb.vector_store.add(nodes)
        found = kb.vector_store.get_nodes()
        assert [each.node_id for each in found] == [each.node_id for each in nodes]
        for each, original in zip(found, nodes, strict=True):
            assert each.get_content() == original.get_content()
            assert each.metadata == original.metadata
            assert each.ref_doc_id == original.ref_doc_id
            assert each.hash == original.hash
        assert set(kb.vector_store.ref_doc_ids()) == {each.ref_doc_id for each in nodes}
        kb.vector_store.delete(f"Ordner/{ODD_TEXTS[0]}.md")
        assert len(all_ids(kb)) == len(nodes) - 1


@kinds(["chroma"])
def test_metadata_that_chroma_cannot_keep_is_refused(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        for metadata in ({"$cost": 3}, {"#": "x"}, {"tags": ["a"]}, {"inner": {"a": 1}}):
            with pytest.raises(ValueError, match=r"node 'n' has metadata .* Chroma"):
                kb.vector_store.add([node("n", "pump", **metadata)])
        assert kb.vector_store.count == 0


@kinds(["pgvector"])
def test_a_character_that_postgres_has_not_is_refused(maker: StoreMaker) -> None:
    with opened(maker) as kb:
        with pytest.raises(ValueError, match="node 'n' holds the character NUL"):
            kb.vector_store.add([node("n", "a\0b")])
        kb.vector_store.add([node("n", "a\\u0000b")])
        assert texts(kb) == {"a\\u0000b"}


# What belongs together


@kinds(OTHERS)
def test_a_register_is_of_one_store_alone(maker: StoreMaker, folder: Path) -> None:
    with opened(maker) as kb:
        kb.add(folder)
    path, embed_model = maker.folder / "kb", WordEmbedding(dimensions=EMBED_DIM)
    with pytest.raises(StoreError, match=r"register in .* is of .*, and given was"):
        KnowledgeBase.open(path, embed_model=embed_model, vector_store=maker("other"))
    with pytest.raises(StoreError, match="lie in another vector store"):
        KnowledgeBase.open(path, embed_model=embed_model)
    fresh = KnowledgeBase.open(maker.folder / "new", embed_model=embed_model, vector_store=maker())
    with fresh, pytest.raises(StoreError, match="knows nothing of them"):
        fresh.add(folder)
    emptied: Any = maker()
    if maker.kind.startswith("chroma"):
        emptied.client.delete(where={"half": {"$ne": 7}})
    else:
        emptied.clear()
    with pytest.raises(StoreError, match="has none of those that were looked for"):
        opened(maker)


def test_the_register_of_nothing_cannot_be_read(tmp_path: Path) -> None:
    maker = StoreMaker("qdrant", tmp_path, None)
    with pytest.raises(StoreError, match="There is no knowledge base"):
        open_store(tmp_path / "none", vector_store=maker(), read_only=True)
    maker.close()
    FaissSQLiteVectorStore(tmp_path / "own").add([node("n", "pump")])
    with pytest.raises(StoreError, match="holds a store of our own"):
        open_store(tmp_path / "own", vector_store=maker())
    maker.close()


def test_a_store_that_keeps_no_text_is_refused(tmp_path: Path) -> None:
    from llama_index.core.vector_stores.simple import SimpleVectorStore

    with pytest.raises(StoreError, match="does not keep the text"):
        RegisteredVectorStore(tmp_path, SimpleVectorStore())


class ListStore(BasePydanticVectorStore):
    """A store that nobody knows, and which adds a node of the same id a second time."""

    stores_text: bool = True
    kept: list[Any] = []

    @property
    def client(self) -> None:
        return None

    def add(self, nodes: Any, **_: Any) -> list[str]:
        self.kept += [each.model_copy() for each in nodes]
        return [each.node_id for each in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        self.kept = [each for each in self.kept if each.ref_doc_id != ref_doc_id]

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        assert query.filters is None
        found = self.kept[: query.similarity_top_k]
        return VectorStoreQueryResult(found, [0.5] * len(found), [each.id_ for each in found])


class FullListStore(ListStore):
    def delete_nodes(self, node_ids: Any = None, filters: Any = None, **_: Any) -> None:
        self.kept = [each for each in self.kept if each.node_id not in node_ids]

    def get_nodes(self, node_ids: Any = None, filters: Any = None) -> list[Any]:
        return [each.model_copy() for each in self.kept if each.node_id in node_ids]


def test_a_store_that_nobody_knows_works_by_llamaindex_s_interface_alone(
    tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(StoreError, match=r"ListStore does not offer delete_nodes\(\)"):
        RegisteredVectorStore(tmp_path / "kb", ListStore())
    store = FullListStore()
    embed_model = WordEmbedding()
    with KnowledgeBase.open(tmp_path / "kb", embed_model=embed_model, vector_store=store) as kb:
        kb.add(folder)
        (folder / "b.txt").write_text("Text of the gasket, changed.")
        assert kb.refresh(folder).updated == ["b.txt"]
        assert len(store.kept) == len({each.node_id for each in store.kept}) == 5
        assert len(kb.as_retriever(duplicate_resemblance=None).retrieve("pump")) == 5


def test_qdrant_s_distances_are_refused(tmp_path: Path) -> None:
    from qdrant_client.models import Distance, VectorParams

    maker = StoreMaker("qdrant", tmp_path, None)
    store: Any = maker()
    store.client.create_collection(
        store.collection_name,
        vectors_config=VectorParams(size=EMBED_DIM, distance=Distance.EUCLID),
    )
    with pytest.raises(StoreError, match="compares by Euclid"):
        RegisteredVectorStore(tmp_path / "kb", store)
    maker.close()


@kinds(["pgvector-hnsw"])
def test_an_index_that_filters_would_starve_is_refused(maker: StoreMaker) -> None:
    from llama_index.vector_stores.postgres import PGVectorStore

    store = PGVectorStore(
        connection_string=maker.server.url,
        async_connection_string=maker.server.url.replace("postgresql:", "postgresql+asyncpg:"),
        table_name="starving",
        embed_dim=EMBED_DIM,
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40},
    )
    with pytest.raises(StoreError, match=r"hnsw\.iterative_scan is off"):
        RegisteredVectorStore(maker.folder / "kb", store)
    store.client.dispose()


# Interruptions


class Interrupted(BaseException):
    """As a kill would, it passes every ``except Exception``."""


@kinds([kind for kind in OTHERS if kind != "qdrant-hybrid"])
def test_whatever_call_is_interrupted_the_next_run_completes(
    maker: StoreMaker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call to the store fails once, before it was done and after, at adding and refreshing."""
    with opened(maker) as kb:
        kb.add(folder)
        whole = set(all_ids(kb))
    changed = {"a.md": "# Manual\n\n## Pump\n\nThe pump runs.\n\nMore.", "c.txt": "Text of c."}
    interruptions = 0
    for is_done in (False, True):
        for position in range(1, 30):
            made = StoreMaker(maker.kind, maker.folder / f"{is_done}{position}", maker.server)
            made.folder.mkdir()
            try:
                happened = _interrupted_run(made, folder, changed, position, is_done=is_done)
            finally:
                made.close()
            interruptions += happened
            if not happened:
                break
    assert interruptions >= 8
    assert len(whole) == 5


def _interrupted_run(
    maker: StoreMaker, folder: Path, changed: dict[str, str], position: int, *, is_done: bool
) -> bool:
    """Interrupt the given call to the store; whether there was one. Then run to the end."""
    root = maker.folder / "documents"
    (root / "tables").mkdir(parents=True)
    for file in folder.rglob("*.*"):
        (root / file.relative_to(folder)).write_bytes(file.read_bytes())
    calls = 0

    def interrupt(call: Any) -> Any:
        def counted(*arguments: Any, **settings: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == position and not is_done:
                raise Interrupted
            answer = call(*arguments, **settings)
            if calls == position:
                raise Interrupted
            return answer

        return counted

    def change() -> None:
        for name, text in changed.items():
            (root / name).write_text(text)
        (root / "b.txt").unlink(missing_ok=True)

    happened = False
    for step in ("add", "refresh"):
        if step == "refresh":
            change()
        with opened(maker) as kb:
            inner: Any = kb.vector_store.vector_store
            with pytest.MonkeyPatch.context() as patch:
                for name in ("add", "delete_nodes"):
                    patch.setattr(type(inner), name, interrupt(getattr(type(inner), name)))
                try:
                    getattr(kb, step)(root)
                except Interrupted:
                    happened = True
        with opened(maker) as kb:
            getattr(kb, step)(root)
    with opened(maker) as kb:
        assert kb.documents == ["a.md", "c.txt", "tables/t.csv"]
        assert kb.vector_store.unfinished_documents() == set()
        held = all_ids(kb)
        assert len(held) == len(set(held)) == kb.vector_store.count
        assert texts(kb) == {
            "The pump runs.\n\nMore.",
            "Text of c.",
            "Tag: P-1; Load: 2 t",
            "Tag: P-2; Load: 3 t",
        }
    return happened
