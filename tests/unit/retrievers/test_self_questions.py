"""A corpus asks itself: pieces of passages, answered by the rest of their documents."""

from __future__ import annotations

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from phi3_industry.retrievers.self_questions import self_questions


def passage(node_id: str, text: str, doc: str) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)}
    return TextNode(id_=node_id, text=text, relationships=source)


def test_questions_are_pieces_and_their_answers_the_other_passages_of_the_document():
    nodes = [passage(f"{d}{n}", f"w{d}{n} " * 20 + "end", d) for d in "ab" for n in range(3)]
    nodes.append(passage("alone", "one two three four", "c"))
    made = self_questions(nodes, most=99)
    assert {question.node_id for question in made} == {n.node_id for n in nodes[:-1]}
    texts = {node.node_id: node.text for node in nodes}
    for question in made:
        assert question.text in texts[question.node_id]
        assert len(question.text.split()) == 8
        document = question.node_id[0]
        assert question.others == {f"{document}{n}" for n in range(3)} - {question.node_id}


def test_scripts_without_spaces_give_pieces_of_characters_and_empty_texts_none():
    nodes = [passage(f"j{n}", "油圧ポンプの圧力を確認してください。" * 3, "j") for n in range(2)]
    nodes += [passage("empty", " \n", "j")]
    made = self_questions(nodes, most=9)
    assert len(made) == 2
    assert all(len(question.text) == 16 and question.text in nodes[0].text for question in made)


def test_the_seed_decides_and_there_are_no_more_than_asked_for():
    nodes = [passage(str(n), " ".join(f"x{n}y{i}" for i in range(50)), "d") for n in range(40)]
    first = self_questions(nodes, most=5, seed=1)
    assert len(first) == 5
    assert first == self_questions(nodes, most=5, seed=1)
    assert first != self_questions(nodes, most=5, seed=2)
