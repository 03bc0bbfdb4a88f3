"""The store works in LlamaIndex's indices, storage contexts and ingestion pipelines."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import IndexNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQueryMode,
)

from phi3_industry.vector_stores import FaissSQLiteVectorStore


class WordEmbedding(BaseEmbedding):
    """Counts of hashed words: texts with common words are near."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.01] * 32
        for word in text.lower().split():
            vector[hashlib.sha256(word.encode()).digest()[0] % 32] += 1.0
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


DOCUMENTS = [
    Document(id_="pump", text="the pump delivers water", metadata={"site": "Oslo"}),
    Document(id_="valve", text="the valve closes slowly", metadata={"site": "Rome"}),
    Document(id_="motor", text="the motor hums loudly", metadata={"site": "Oslo"}),
]


@pytest.fixture
def index(store) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex.from_documents(
        DOCUMENTS, storage_context=context, embed_model=WordEmbedding()
    )


def found(index: VectorStoreIndex, question: str, **settings: object) -> list[str]:
    retriever = index.as_retriever(**{"similarity_top_k": 1, **settings})
    return [hit.node.ref_doc_id for hit in retriever.retrieve(question)]


def test_an_index_from_documents_finds_them(index):
    assert found(index, "water pump") == ["pump"]
    assert found(index, "slowly", vector_store_query_mode=VectorStoreQueryMode.TEXT_SEARCH) == [
        "valve"
    ]
    assert found(index, "loudly", vector_store_query_mode="hybrid", alpha=0.5) == ["motor"]
    assert set(found(index, "the", similarity_top_k=9, doc_ids=["pump", "motor"])) == {
        "pump",
        "motor",
    }


MODES = {
    "default": ["pump"],
    "text_search": ["pump"],
    "sparse": ["pump"],
    "hybrid": ["pump"],
    "mmr": ["pump"],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fusion", [{}, {"alpha": 0.3}])
async def test_every_mode_works_through_retrievers_and_query_engines(index, mode, fusion):
    settings = {"similarity_top_k": 1, "vector_store_query_mode": mode, **fusion}
    assert found(index, "pump delivers water", **settings) == MODES[mode]
    retriever = index.as_retriever(**settings)
    hits = await retriever.aretrieve("pump delivers water")
    assert [hit.node.ref_doc_id for hit in hits] == MODES[mode]
    engine = index.as_query_engine(llm=MockLLM(), **settings)
    for response in (
        engine.query("pump delivers water"),
        await engine.aquery("pump delivers water"),
    ):
        assert [hit.node.ref_doc_id for hit in response.source_nodes] == MODES[mode]


@pytest.mark.parametrize("mode", ["svm", "logistic_regression", "linear_regression"])
def test_a_mode_that_is_not_offered_is_refused_through_the_index(index, mode):
    with pytest.raises(ValueError, match=f"'{mode}' is not offered .* it offers: default, text"):
        found(index, "pump", vector_store_query_mode=mode)


@pytest.mark.parametrize(("threshold", "both_alike"), [(1.0, True), (0.0, False)])
def test_mmr_obeys_the_threshold_that_llamaindex_passes(index, threshold, both_alike):
    index.insert(Document(id_="twin", text="the pump delivers water water"))
    settings = {
        "similarity_top_k": 2,
        "vector_store_query_mode": "mmr",
        "vector_store_kwargs": {"mmr_threshold": threshold},
    }
    hits = found(index, "the pump delivers water", **settings)
    assert (set(hits) == {"pump", "twin"}) == both_alike


def test_nested_filters_and_document_ids_work_through_the_index(index):
    either = MetadataFilters(
        condition="or",
        filters=[
            MetadataFilters(filters=[MetadataFilter(key="site", value="Rome")]),
            MetadataFilter(key="missing", value="x", operator="!="),
        ],
    )
    settings = {"similarity_top_k": 9, "filters": either}
    assert set(found(index, "the", **settings)) == {"pump", "valve", "motor"}
    assert found(index, "the", doc_ids=["valve"], **settings) == ["valve"]
    rome = MetadataFilters(filters=[MetadataFilter(key="site", value="Rome")])
    for mode in MODES:
        hits = found(
            index, "the pump", filters=rome, similarity_top_k=9, vector_store_query_mode=mode
        )
        assert hits in (["valve"], [])  # by words, "pump" is not in Rome


async def test_an_index_is_searched_asynchronously(index):
    hits = await index.as_retriever(similarity_top_k=1).aretrieve("water pump")
    assert [hit.node.ref_doc_id for hit in hits] == ["pump"]


def test_an_index_from_the_vector_store_alone_finds_the_same(index, store):
    again = VectorStoreIndex.from_vector_store(store, embed_model=WordEmbedding())
    assert found(again, "water pump") == ["pump"]
    (hit,) = again.as_retriever(similarity_top_k=1).retrieve("water pump")
    assert hit.node.get_content() == "the pump delivers water"
    assert hit.node.metadata == {"site": "Oslo"}


def test_documents_are_inserted_updated_refreshed_and_deleted(index, store):
    index.insert(Document(id_="seal", text="a seal leaks oil"))
    assert found(index, "seal leaks oil") == ["seal"]
    index.update_ref_doc(Document(id_="seal", text="a gasket weeps"))
    assert found(index, "gasket weeps") == ["seal"]
    index.delete_ref_doc("seal")
    assert store.count == 3
    assert "seal" not in found(index, "gasket weeps", similarity_top_k=9)
    index.delete_nodes([store.get_nodes()[0].node_id])
    assert store.count == 2


def test_refresh_changes_what_has_changed(store):
    context = StorageContext.from_defaults(vector_store=store, docstore=SimpleDocumentStore())
    index = VectorStoreIndex.from_documents(
        DOCUMENTS,
        storage_context=context,
        embed_model=WordEmbedding(),
        store_nodes_override=True,
    )
    changed = [DOCUMENTS[0], Document(id_="valve", text="the valve jams"), *DOCUMENTS[2:]]
    assert index.refresh_ref_docs(changed) == [False, True, False]
    assert store.count == 3
    assert found(index, "jams") == ["valve"]


def test_a_pipeline_with_upserts_keeps_one_copy(store):
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), WordEmbedding()],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    pipeline.run(documents=DOCUMENTS)
    generation = store.generation
    pipeline.run(documents=DOCUMENTS)
    assert (store.count, store.generation) == (3, generation)
    pipeline.run(documents=[Document(id_="pump", text="the pump stopped"), DOCUMENTS[1]])
    texts = {node.ref_doc_id: node.get_content() for node in store.get_nodes()}
    assert texts == {"pump": "the pump stopped", "valve": "the valve closes slowly"}


@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.DUPLICATES_ONLY])
def test_other_docstore_strategies_keep_what_they_promise(store, strategy):
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), WordEmbedding()],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=strategy,
    )
    pipeline.run(documents=DOCUMENTS)
    pipeline.run(documents=DOCUMENTS)
    assert store.count == 3
    pipeline.run(documents=[Document(id_="pump", text="the pump stopped")])
    texts = sorted(node.get_content() for node in store.get_nodes() if node.ref_doc_id == "pump")
    upserts = strategy == DocstoreStrategy.UPSERTS
    assert texts == ["the pump stopped"] if upserts else [DOCUMENTS[0].text, "the pump stopped"]


async def test_a_pipeline_runs_asynchronously(store):
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), WordEmbedding()], vector_store=store
    )
    await pipeline.arun(documents=DOCUMENTS)
    assert store.count == 3


def test_persisting_the_storage_context_is_allowed(index, store, tmp_path):
    index.storage_context.persist(str(tmp_path / "context"))
    assert list(Path(store.path).glob("vectors.*.faiss"))
    with FaissSQLiteVectorStore(store.path, read_only=True) as reader:
        assert reader.count == 3


def test_an_index_node_leads_to_its_object(store):
    target = TextNode(text="the whole table")
    pointer = IndexNode(id_="pointer", text="water table", index_id="table", obj=target)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(
        objects=[pointer], storage_context=context, embed_model=WordEmbedding()
    )
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve("water table")
    assert hit.node.get_content() == "the whole table"
