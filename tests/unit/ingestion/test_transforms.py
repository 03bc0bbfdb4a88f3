"""What a distributed ingestion needs: every transform made of plain values, and pickled."""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any

import pytest
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import Document, MetadataMode, TransformComponent

from phi3_industry import ingestion
from phi3_industry.ingestion import FileNodeParser, SectionNodeParser
from phi3_industry.ingestion.tokens import NamedTokenizer

DOCUMENT = Document(text="# T\n\n## A\n\n" + "One two three. " * 400, id_="d")
PLAIN: dict[str, Any] = {"max_tokens": 254, "min_tokens": 169, "tokenizer": "embedded"}


def transforms() -> list[type[TransformComponent]]:
    found = [getattr(ingestion, name) for name in ingestion.__all__]
    return [f for f in found if inspect.isclass(f) and issubclass(f, TransformComponent)]


def test_every_transform_is_tested_here() -> None:
    assert transforms() == [FileNodeParser, SectionNodeParser]


@pytest.mark.parametrize("parser", [FileNodeParser, SectionNodeParser])
@pytest.mark.parametrize("settings", [{}, PLAIN, {"text_format": "plain"}])
def test_transform_made_of_plain_values_survives_pickle_and_json(
    parser: type[SectionNodeParser], settings: dict[str, Any]
) -> None:
    made = parser(**json.loads(json.dumps(settings)))
    expected = [node.text for node in made([DOCUMENT])]
    assert len(expected) > 1
    for copy in (
        pickle.loads(pickle.dumps(made)),
        parser.from_dict(json.loads(json.dumps(made.to_dict()))),
    ):
        assert [node.text for node in copy([DOCUMENT])] == expected


def test_named_tokenizer_counts_as_the_embedding_does_and_fills_its_window() -> None:
    from phi3_industry.embeddings import load_embedding

    beside = SectionNodeParser.from_embed_model(load_embedding("embedded"))
    copy = pickle.loads(pickle.dumps(beside))  # with its tokenizer
    named = SectionNodeParser(**PLAIN)
    assert (beside.max_tokens, beside.min_tokens) == (254, 169)
    texts = [node.get_content(MetadataMode.EMBED) for node in named([DOCUMENT])]
    for other in (beside, copy):
        assert texts == [node.get_content(MetadataMode.EMBED) for node in other([DOCUMENT])]
    assert 169 <= named.token_counter(texts[0]) <= 254


def test_tokenizer_is_loaded_at_the_first_count() -> None:
    parser = SectionNodeParser(tokenizer="nobody/has-this")
    assert parser.token_counter == NamedTokenizer("nobody/has-this")


def test_pickled_transforms_give_the_nodes_that_these_give() -> None:
    pipeline = IngestionPipeline(
        transformations=[SectionNodeParser(**PLAIN), MockEmbedding(embed_dim=4)]
    )
    copy = pickle.loads(pickle.dumps(pipeline.transformations))
    alone = pipeline.run(documents=[DOCUMENT])
    again = IngestionPipeline(transformations=copy).run(documents=[DOCUMENT])
    assert [node.node_id for node in alone] == [node.node_id for node in again]
