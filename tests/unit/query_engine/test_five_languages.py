"""The same page of a manual in five languages: retrieval, citations, abstention, budgets."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from engine_parts import FixedRetriever, ScriptedLLM, engine, found
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from manual_pages import PAGES, Entry

from phi3_industry import FaissSQLiteVectorStore, HybridRetriever, Phi3LLM
from phi3_industry.grounding.matching import words_of

ENTRIES = [
    pytest.param(language, entry, id=f"{language}-{number}")
    for language, page in PAGES.items()
    for number, entry in enumerate(page.entries, start=1)
]


class WordEmbedding(BaseEmbedding):
    """A vector has a place for each word, by its checksum."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.0] * 256
        for word in words_of(text):
            vector[zlib.crc32(word.encode()) % 256] += 1.0
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStoreIndex]:
    """Over one store that holds the page in all five languages."""
    with FaissSQLiteVectorStore(tmp_path_factory.mktemp("pages")) as store:
        index = VectorStoreIndex.from_vector_store(store, embed_model=WordEmbedding())
        index.insert_nodes(
            [
                TextNode(
                    text=entry.passage,
                    metadata={"language": language},
                    excluded_llm_metadata_keys=["language"],
                    excluded_embed_metadata_keys=["language"],
                )
                for language, page in PAGES.items()
                for entry in page.entries
            ]
        )
        yield index


def retriever_of(index: VectorStoreIndex, language: str) -> HybridRetriever:
    only = MetadataFilters(filters=[MetadataFilter(key="language", value=language)])
    return HybridRetriever(index, similarity_top_k=2, filters=only)


@pytest.mark.parametrize(("language", "entry"), ENTRIES)
def test_the_passage_is_found_and_cited(
    index: VectorStoreIndex, language: str, entry: Entry
) -> None:
    retriever = retriever_of(index, language)
    for answer in (f"[1] {entry.answer}", entry.sentence, f"{entry.sentence} [1]"):
        asked = engine(retriever=retriever, llm=ScriptedLLM(answer=answer), strategy="rag")
        response = asked.query(entry.question)
        texts = {node.node.node_id: node.node.get_content() for node in response.source_nodes}
        verified = [c for c in response.metadata["citations"] if c["verified"]]
        assert [texts[c["node_id"]] for c in verified] == [entry.passage]
        assert all(c["quote"] in texts[c["node_id"]] for c in verified)
        assert entry.answer in response.response


@pytest.mark.parametrize("language", PAGES)
def test_what_is_not_on_the_page_is_said_in_the_users_language(
    index: VectorStoreIndex, language: str
) -> None:
    page, retriever = PAGES[language], retriever_of(index, language)
    for question, answer in (
        (page.missing, "[0] I don't know."),
        (page.entries[0].question, f"[1] {page.wrong}"),
        (page.entries[0].question, "[1] 38.20 bar"),
    ):
        asked = engine(
            retriever=retriever,
            llm=ScriptedLLM(answer=answer),
            strategy="rag",
            abstention=page.unknown,
        )
        response = asked.query(question)
        assert (response.response, response.metadata["abstained"]) == (page.unknown, True)


@pytest.mark.parametrize("language", PAGES)
def test_the_budget_holds_in_the_models_own_tokens(embedded_llm: Phi3LLM, language: str) -> None:
    page = PAGES[language]
    passages = [f"{entry.passage} {'– ' + entry.sentence}" * 4 for entry in page.entries] * 3
    small = embedded_llm.model_copy(update={"context_window": 900, "max_new_tokens": 8})
    nodes = found(*passages, scores=tuple(1 / n for n in range(1, 10)))
    asked = engine(retriever=FixedRetriever(nodes), llm=small, strategy="rag")
    plan = asked._planner.plan(page.entries[0].question, nodes)
    messages = [{"role": m.role.value, "content": m.content or ""} for m in plan.messages]
    tokens = small.count_tokens(messages)
    assert 0 < len(plan.shown) < 9
    assert tokens <= 900 - 8
    assert all(text in messages[-1]["content"] for text in plan.shown_texts)
    assert f"{9 - len(plan.shown)} of them did not fit" in plan.choice.reason
    response = asked.query(page.entries[0].question)
    assert response.metadata is not None
    assert response.metadata["usage"]["prompt_tokens"] == tokens


def test_the_embedded_model_answers_what_it_can_read(embedded_llm: Phi3LLM) -> None:
    # whole sentences: telegram style was no part of its training
    nodes = found(*(entry.sentence for entry in PAGES["en"].entries))
    asked = engine(retriever=FixedRetriever(nodes), llm=embedded_llm, strategy="rag")
    response = asked.query("What is the rated discharge pressure of P-4471?")
    assert response.response == "[1] 38.2 bar"
    assert asked.query("What is the supplier of V-12?").metadata["abstained"]


@pytest.mark.parametrize("language", [language for language in PAGES if language != "en"])
def test_in_languages_it_cannot_read_it_says_nothing_that_does_not_stand_there(
    embedded_llm: Phi3LLM, language: str
) -> None:
    page = PAGES[language]
    nodes = found(*(entry.passage for entry in page.entries))
    asked = engine(retriever=FixedRetriever(nodes), llm=embedded_llm)
    for question in [entry.question for entry in page.entries] + [page.missing]:
        response = asked.query(question)
        facts = response.metadata
        assert facts["abstained"] or any(
            c["verified"] and c["quote"] in nodes[int(c["node_id"][1:]) - 1].node.get_content()
            for c in facts["citations"]
        )
