"""Passages that look like versions of one another without saying so."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from engine_parts import QUESTION, FixedRetriever, ScriptedLLM, engine
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

from phi3_industry.query_engine.evidence import EvidenceRules
from phi3_industry.query_engine.versions import newest_first


def dated(document: str, date: str, pressure: str, **metadata: Any) -> NodeWithScore:
    """The passage on P-4471 of a manual as ingestion makes it, of some day."""
    described = {"title": "Manual", "date": date, "source_id": f"{document}#Data", **metadata}
    node = TextNode(
        id_=document,
        text=f"Manual > Data > {date}\nThe discharge pressure of P-4471 is {pressure}.",
        metadata=described,
        excluded_llm_metadata_keys=list(described),
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
    return NodeWithScore(node=node, score=0.5)


OLD = dated("a-2021.md", "2021-03-01", "36 bar")
NEW = dated("b-2024.md", "2024-05-31", "38.2 bar")
OTHER = NodeWithScore(node=TextNode(id_="m", text="Something else."), score=0.9)


@pytest.mark.parametrize("passage_order", ["document", "relevance"])
def test_what_looks_like_versions_is_numbered_newest_first(
    passage_order: Literal["document", "relevance"],
) -> None:
    rules = EvidenceRules(passage_order=passage_order)
    for given in ([OLD, OTHER, NEW], [NEW, OTHER, OLD]):
        order = [given[index].node.node_id for index in rules.order(given)]
        assert order.index("b-2024.md") < order.index("a-2021.md")


def test_versions_keep_their_places_among_other_passages() -> None:
    order, dates = newest_first([0, 1, 2], [OLD, OTHER, NEW], date_key="date")
    assert order == [2, 1, 0]
    assert dates == [("2024-05-31", "2021-03-01")]


def test_both_versions_are_shown_and_the_reason_says_so() -> None:
    llm = ScriptedLLM(answer="[1] 38.2 bar", prompts=[])
    asked = engine(llm=llm, retriever=FixedRetriever([OLD, NEW]), strategy="rag")
    response = asked.query(QUESTION)
    assert llm.prompts[0].index("38.2 bar") < llm.prompts[0].index("36 bar")
    assert response.metadata is not None
    assert response.metadata["citations"][0]["node_id"] == "b-2024.md"
    assert response.metadata["reason"].endswith(
        "What looks like versions of one passage is numbered newest first: "
        "2024-05-31 before 2021-03-01."
    )


@pytest.mark.parametrize(
    "other",
    [
        dated("b-2024.md", "last spring", "38.2 bar"),
        dated("b-2024.md", "2021-03-01", "38.2 bar"),
        dated("b-2024.md", "2024-05-31", "38.2 bar", title="Manual of P-9"),
        dated("b-2024.md", "2024-05-31", "38.2 bar", title=""),
        dated("b-2024.md", "2024-05-31", "38.2 bar", source_id="b-2024.md#Care"),
        dated("a-2021.md", "2024-05-31", "38.2 bar"),
    ],
    ids=["no date", "same date", "other title", "no title", "other place", "same document"],
)
def test_what_does_not_look_like_versions_stays_in_order(other: NodeWithScore) -> None:
    assert newest_first([0, 1], [OLD, other], date_key="date") == ([0, 1], [])


def test_same_place_with_other_words_does_not_look_like_a_version() -> None:
    other = dated("b-2024.md", "2024-05-31", "x")
    other.node.set_content("Grease the bearings every month and note the hours in the log.")
    assert newest_first([0, 1], [OLD, other], date_key="date") == ([0, 1], [])
