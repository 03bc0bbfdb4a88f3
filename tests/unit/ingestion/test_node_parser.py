from __future__ import annotations

import hashlib
import json
import pickle

import pytest
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import Document, MetadataMode, NodeRelationship

from phi3_industry.ingestion import SectionNodeParser, parse_document

MANUAL = (
    b"# Manual\n\n## Pump P-1\n\n### Operation\n\nThe oil temperature of P-1 is 65 \xc2\xb0C.\n"
)
TABLE = b"Tag,Kind,Load,Note\nP-1,pump,12,a\nP-2,pump,3.5,\n"


def count(text: str) -> int:
    return len(text.split())


def parser(**settings: int) -> SectionNodeParser:
    return SectionNodeParser(token_counter=count, **settings)


def test_text_node_carries_its_headings_as_context() -> None:
    [node] = parser().nodes_of(parse_document(MANUAL, name="m.md"), document_id="a/m.md")
    assert node.text == "The oil temperature of P-1 is 65 °C."
    expected = "Manual > Pump P-1 > Operation\nThe oil temperature of P-1 is 65 °C."
    assert node.get_content(MetadataMode.EMBED) == expected
    assert node.get_content(MetadataMode.LLM) == expected
    assert node.metadata == {
        "context_header": "Manual > Pump P-1 > Operation",
        "file_name": "m.md",
        "file_path": "a/m.md",
        "title": "Manual",
        "section": "Pump P-1 > Operation",
        "kind": "text",
        "source_id": "a/m.md#Pump P-1 > Operation",
    }
    assert node.ref_doc_id == "a/m.md"


def test_row_node_carries_its_key_and_typed_cells() -> None:
    document = parse_document(TABLE, name="pump-list.csv")
    nodes = parser().nodes_of(document, document_id="t/pump-list.csv")
    assert [node.text for node in nodes] == [
        "Tag: P-1; Kind: pump; Load: 12; Note: a",
        "Tag: P-2; Kind: pump; Load: 3.5",
    ]
    metadata = nodes[1].metadata
    assert metadata["context_header"] == "pump list"
    assert (metadata["kind"], metadata["row_key"], metadata["row_number"]) == (
        "table_row", "P-2", 2,
    )  # fmt: skip
    assert metadata["source_id"] == "t/pump-list.csv#P-2"
    assert (metadata["cell:Load"], metadata["cell:Kind"]) == (3.5, "pump")
    assert "cell:Note" not in metadata
    assert nodes[1].get_content(MetadataMode.LLM) == f"pump list\n{nodes[1].text}"


def test_node_ids_hash_document_position_and_text() -> None:
    document = parse_document(b"# T\n\n## A\n\nsame\n\n## B\n\nsame", name="m.md")
    nodes = parser().nodes_of(document, document_id="m.md")
    again = parser().nodes_of(document, document_id="m.md")
    elsewhere = parser().nodes_of(document, document_id="n.md")
    assert [node.node_id for node in nodes] == [node.node_id for node in again]
    assert len({node.node_id for node in (*nodes, *elsewhere)}) == 4
    digest = hashlib.sha256(json.dumps(["m.md", 1, "same"]).encode()).hexdigest()
    assert nodes[1].node_id == digest


def test_no_node_exceeds_the_limit_with_its_header() -> None:
    text = "# T\n\n## A long heading of some words\n\n" + "One two three four. " * 300
    document = parse_document(text.encode(), name="m.md")
    nodes = parser(max_tokens=64, min_tokens=40).nodes_of(document, document_id="m.md")
    sizes = [count(node.get_content(MetadataMode.EMBED)) for node in nodes]
    assert max(sizes) <= 64
    assert min(sizes[:-1]) >= 40
    assert "".join(node.text for node in nodes).replace(" ", "") == "Onetwothreefour." * 300


def test_small_sections_stay_apart() -> None:
    document = parse_document(b"# T\n\n## A\n\none\n\n## B\n\ntwo", name="m.md")
    nodes = parser().nodes_of(document, document_id="m.md")
    assert [node.text for node in nodes] == ["one", "two"]


def test_long_header_keeps_title_and_last_heading() -> None:
    text = "# T\n\n" + "".join(f"{'#' * n} level {n} word word word\n\n" for n in range(2, 7)) + "x"
    document = parse_document(text.encode(), name="m.md")
    [node] = parser(max_tokens=30, min_tokens=10).nodes_of(document, document_id="m.md")
    header = node.metadata["context_header"]
    assert header.startswith("T > ")
    assert header.endswith("level 6 word word word")
    assert count(header) <= 10


def test_absurd_heading_leaves_room_for_text() -> None:
    text = "# T\n\n## " + "word " * 5000 + "\n\nThe text."
    document = parse_document(text.encode(), name="m.md")
    nodes = parser(max_tokens=48, min_tokens=16).nodes_of(document, document_id="m.md")
    assert nodes[-1].text == "The text."
    assert all(count(node.get_content(MetadataMode.EMBED)) <= 48 for node in nodes)


def test_long_row_keeps_its_key_in_each_node() -> None:
    data = ("Tag,Note\nP-1," + "word " * 300 + "\nP-2,b\n").encode()
    document = parse_document(data, name="t.csv")
    nodes = parser(max_tokens=32, min_tokens=16).nodes_of(document, document_id="t.csv")
    assert len(nodes) > 9
    assert all(node.text.startswith("Tag: P-1; Note: ") for node in nodes[:1])
    assert all(node.text.startswith("Tag: P-1; ") for node in nodes[:-1])
    assert {node.metadata["source_id"] for node in nodes} == {"t.csv#P-1", "t.csv#P-2"}
    assert "cell:Note" not in nodes[0].metadata


def test_works_as_a_transformation_of_a_pipeline() -> None:
    documents = [
        Document(
            text="# Manual\n\n## A\n\none\n\n## B\n\ntwo", id_="d1", metadata={"author": "me"}
        ),
        Document(text="three", id_="d2", metadata={"file_name": "c.md"}),
    ]
    pipeline = IngestionPipeline(transformations=[SectionNodeParser(), MockEmbedding(embed_dim=4)])
    nodes = pipeline.run(documents=documents)
    assert [node.get_content(MetadataMode.EMBED) for node in nodes] == [
        "Manual > A\none",
        "Manual > B\ntwo",
        "c.md\nthree",
    ]
    assert nodes[0].metadata["author"] == "me"
    assert [node.ref_doc_id for node in nodes] == ["d1", "d1", "d2"]
    assert nodes[0].relationships[NodeRelationship.NEXT].node_id == nodes[1].node_id
    assert len(nodes[0].embedding) == 4


def test_plain_text_keeps_its_marks() -> None:
    parsed = SectionNodeParser(text_format="plain")
    [node] = parsed.get_nodes_from_documents([Document(text="# no heading", id_="d")])
    assert node.get_content(MetadataMode.EMBED) == "d\n# no heading"


def test_parser_is_rebuilt_from_its_settings() -> None:
    original = SectionNodeParser(max_tokens=100, min_tokens=50)
    copy = SectionNodeParser.from_dict(original.to_dict())
    assert (copy.max_tokens, copy.min_tokens) == (100, 50)
    assert copy.fingerprint == original.fingerprint != SectionNodeParser().fingerprint
    assert pickle.loads(pickle.dumps(original)).fingerprint == original.fingerprint


def test_limits_of_the_embedding_lower_the_defaults() -> None:
    class Small(MockEmbedding):
        max_length: int = 120

    made = SectionNodeParser.from_embed_model(Small(embed_dim=4))
    assert (made.max_tokens, made.min_tokens) == (120, 80)
    made = SectionNodeParser.from_embed_model(MockEmbedding(embed_dim=4))
    assert (made.max_tokens, made.min_tokens) == (384, 256)


def test_contradicting_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="min_tokens is 300 and max_tokens is 200"):
        SectionNodeParser(max_tokens=200, min_tokens=300)


def test_date_stands_at_the_end_of_the_context_and_in_the_metadata() -> None:
    document = parse_document(b"---\ndate: 2024-05-01\n---\n# T\n\n## A\n\none", name="m.md")
    [node] = parser().nodes_of(document, document_id="m.md")
    assert node.metadata["context_header"] == "T > A > 2024-05-01"
    assert node.metadata["date"] == "2024-05-01"


def test_front_matter_says_of_what_a_document_is_a_version() -> None:
    data = b"---\ndate: 2024-05-01\nversion_of: 'M-7'\n---\n# T\n\n## A\n\none"
    [node] = parser().nodes_of(parse_document(data, name="m.md"), document_id="m.md")
    assert node.metadata["version_of"] == "M-7"
    assert "M-7" not in node.get_content(MetadataMode.LLM)
    [other] = parser().nodes_of(parse_document(b"# T\n\none", name="m.md"), document_id="m.md")
    assert "version_of" not in other.metadata


def test_group_of_rows_is_a_part_of_their_context_and_of_their_source() -> None:
    data = b"Item,2019,2018\nSales:,,\nPumps,5 (1),4\nCosts:,,\nPumps,2,1\n(1) Estimated.,,\n"
    nodes = parser().nodes_of(parse_document(data, name="t.csv"), document_id="t.csv")
    assert [node.get_content(MetadataMode.LLM) for node in nodes] == [
        "t > Sales\nItem: Pumps; 2019: 5 (1); 2018: 4; (1): Estimated.",
        "t > Costs\nItem: Pumps; 2019: 2; 2018: 1",
    ]
    assert nodes[1].metadata["source_id"] == "t.csv#Costs > Pumps"
    assert nodes[1].metadata["group"] == "Costs"


def test_amounts_and_dates_are_typed_for_filters_beside_the_cells() -> None:
    data = "Tag;Load (t);Pressure;Checked\nP-1;3;12,5 bar;1.5.2024\nP-2;4;3 bar;2.5.2024\n"
    nodes = parser().nodes_of(parse_document(data.encode(), name="t.csv"), document_id="t.csv")
    assert nodes[0].text == "Tag: P-1; Load (t): 3; Pressure: 12,5 bar; Checked: 1.5.2024"
    typed = {key: value for key, value in nodes[0].metadata.items() if ":" in key}
    assert typed == {
        "cell:Tag": "P-1",
        "cell:Load (t)": 3,
        "unit:Load (t)": "t",
        "cell:Pressure": "12,5 bar",
        "number:Pressure": 12.5,
        "unit:Pressure": "bar",
        "cell:Checked": "1.5.2024",
        "date:Checked": "2024-05-01",
    }


def test_code_block_is_one_node_where_it_fits() -> None:
    words = "word " * 30
    code = "a = 1\n\nb = 2\n\n" * 5
    text = f"# T\n\n## A\n\n{words}\n\n```\n{code}```\n\n{words}"
    nodes = parser(max_tokens=48, min_tokens=20).nodes_of(
        parse_document(text.encode(), name="m.md"), document_id="m.md"
    )
    assert sum(code.strip() in node.text for node in nodes) == 1
