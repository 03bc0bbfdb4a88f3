"""From a folder of documents to a checked answer, on real weights."""

from __future__ import annotations

import asyncio

import pytest

from phi3_industry import KnowledgeBase, Phi3LLM, load_embedding

TABLE = """Tag,Kind,Discharge pressure,Flow rate
P-4471,pump,38.2 bar,120 m3/h
P-4472,pump,31.5 bar,90 m3/h
P-4481,pump,12.0 bar,45 m3/h
"""


@pytest.fixture(scope="module")
def knowledge_base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    documents = tmp_path_factory.mktemp("documents")
    (documents / "pumps.csv").write_text(TABLE, encoding="utf-8")
    (documents / "oil.md").write_text(
        "# Oil\n\n## Pump P-4471\n\nThe oil type of pump P-4471 is Tovex 32.\n", encoding="utf-8"
    )
    opened = KnowledgeBase.open(
        tmp_path_factory.mktemp("kb") / "kb", embed_model=load_embedding("embedded")
    )
    opened.add(documents)
    return opened


@pytest.mark.parametrize(
    ("question", "value", "source"),
    [
        ("What is the discharge pressure of P-4471?", "38.2 bar", "pumps.csv#P-4471"),
        ("What is the flow rate of P-4472?", "90 m3/h", "pumps.csv#P-4472"),
        ("What is the discharge pressure of P-4481?", "12.0 bar", "pumps.csv#P-4481"),
        ("What is the oil type of pump P-4471?", "Tovex 32", "oil.md#Pump P-4471"),
    ],
)
def test_a_question_is_answered_from_the_right_place_with_its_citation(
    knowledge_base: KnowledgeBase, embedded_llm: Phi3LLM, question: str, value: str, source: str
) -> None:
    engine = knowledge_base.as_query_engine(embedded_llm, strategy="rag")
    response = engine.query(question)
    metadata = response.metadata or {}
    assert str(response).endswith(f"] {value}")
    citation = metadata["citations"][0]
    assert citation["verified"]
    cited = response.source_nodes[citation["marker"] - 1].node
    assert cited.node_id == citation["node_id"]
    assert cited.metadata["source_id"] == source
    assert metadata["usage"]["prompt_tokens"] > 50
    assert str(asyncio.run(engine.aquery(question))) == str(response)


def test_a_device_that_is_not_there_is_abstained_from(
    knowledge_base: KnowledgeBase, embedded_llm: Phi3LLM
) -> None:
    engine = knowledge_base.as_query_engine(embedded_llm, strategy="rag")
    metadata = engine.query("What is the noise level of boiler K-990?").metadata or {}
    assert metadata["abstained"]


def test_the_index_works_in_a_plain_llamaindex_query_engine(
    knowledge_base: KnowledgeBase, embedded_llm: Phi3LLM
) -> None:
    engine = knowledge_base.index.as_query_engine(llm=embedded_llm, similarity_top_k=2)
    response = engine.query("What is the discharge pressure of P-4471?")
    assert str(response)
    assert len(response.source_nodes) == 2
    assert response.source_nodes[0].score == pytest.approx(response.source_nodes[0].score)
