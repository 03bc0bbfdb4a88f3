"""The passages of any store are read, and questions find those that answer them."""

from __future__ import annotations

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from phi3_industry.errors import ConfigurationError, TrainingDataError
from phi3_industry.finetuning.embedding_corpus import label, passages_of, read_passages, split
from phi3_industry.grounding.questions import Question
from phi3_industry.vector_stores import FaissSQLiteVectorStore


def test_every_kind_of_store_gives_the_same_passages(nodes, retriever, questions, tmp_path):
    expected = passages_of(nodes)
    assert len(expected) == 8
    assert expected[0].text.startswith("pump-1.md\n")  # as it is embedded, header included
    assert expected[0].document == "pump-1.md"
    embed = MockEmbedding(embed_dim=4)
    index = VectorStoreIndex(nodes, embed_model=embed)
    assert sorted(p.node_id for p in read_passages(index, questions)) == sorted(
        node.node_id for node in nodes
    )
    with FaissSQLiteVectorStore(tmp_path / "store") as store:
        for node in nodes:
            node.embedding = [1.0, 0.0, 0.0, 0.0]
        store.add(nodes)
        assert read_passages(store, questions) == expected
        own = VectorStoreIndex.from_vector_store(store, embed_model=embed)
        assert read_passages(own, questions) == expected
    assert read_passages(nodes, questions) == expected
    assert {p.node_id for p in read_passages(retriever, questions)} == {
        node.node_id for node in nodes
    }


class Closed(BasePydanticVectorStore):
    """Keeps its nodes to itself, as some hosted stores do."""

    stores_text: bool = True

    @property
    def client(self) -> object:
        return None

    def add(self, nodes, **_):
        return []

    def delete(self, ref_doc_id, **_):
        pass

    def query(self, query, **_):
        raise AssertionError


def test_what_cannot_be_read_is_refused_with_what_to_give(questions):
    with pytest.raises(ConfigurationError, match=r"A Closed cannot list its nodes. Give the nodes"):
        read_passages(Closed(), questions)
    with pytest.raises(TypeError, match="The store is a dict; it must be a knowledge base"):
        read_passages({}, questions)
    with pytest.raises(TrainingDataError, match="holds 0 passages"):
        read_passages([], questions)


@pytest.mark.parametrize("name", ["node-pump-3.md#Data", "pump-3.md#Data", "pump-3.md"])
def test_gold_ids_are_node_source_or_document_ids(nodes, name):
    question = Question(id="q", question="?", answers=("33.5 bar",), gold_ids=(name,))
    (item,) = label([question], passages_of(nodes))
    assert item.gold == (2,)


def test_of_a_document_the_passages_that_answer_are_gold(node):
    passages = passages_of(
        [
            node("a#1", "a", "The pump was painted green."),
            node("a#2", "a", "Its pressure is 38 bar."),
            node("b#1", "b", "Its pressure is 38 bar."),
        ]
    )
    asked = {"question": "Which pressure?", "gold_ids": ("a",)}
    found = label([Question(id="q", answers=("38 bar",), **asked)], passages)
    assert found[0].gold == (1,)
    found = label([Question(id="q", answers=("thirty-eight",), **asked)], passages)
    assert found[0].gold == (0, 1)


def test_questions_without_a_passage_are_left_out_and_none_left_is_an_error(nodes, questions):
    passages = passages_of(nodes)
    assert len(label(questions, passages)) == 8
    lost = Question(id="x", question="?", answers=("1",), gold_ids=("nowhere",))
    assert len(label([*questions, lost], passages)) == 8
    with pytest.raises(
        TrainingDataError, match=r"1 questions 1 name .* 'nowhere' .* 'pump-1.md#Da"
    ):
        label([lost], passages)
    with pytest.raises(TrainingDataError, match="2 questions 0 name passages"):
        label(questions[-2:], passages)


def test_no_document_is_on_both_sides_of_the_split(node):
    nodes = [
        node(f"{d}#{n}", f"doc-{d}", f"Fact {d}-{n} is {d * n}.") for d in range(12) for n in (1, 2)
    ]
    questions = [
        Question(id=f"q{p.node_id}", question="?", answers=("1",), gold_ids=(p.node_id,))
        for p in nodes
    ]
    passages = passages_of(nodes)
    train, held, split_by = split(label(questions, passages), passages, share=0.25, seed=1)
    assert (len(train), len(held), split_by) == (18, 6, "document")
    sides = [
        {passages[place].document for item in side for place in item.gold} for side in (train, held)
    ]
    assert not sides[0] & sides[1]
    assert split(train, passages, share=0.0, seed=1) == (train, [], "nothing")
