"""How search by words does in inflected languages and in those without spaces between words.

    python benchmarks/lexical_languages.py

Sixteen sentences of a manual in each of six languages, all in one index, and for each a question in
other inflections. Compared are our store's text search, LlamaIndex's BM25 retriever as it comes
(English stemmer and stop words), the same with the stemmer of each question's language where there
is one, and what else our segmentation could have been: no stems, stems of other lengths, pieces of
four letters. A system that returns no sentence, or one that shares nothing, has not found it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import Stemmer
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.retrievers.bm25 import BM25Retriever
from measuring import print_table

from phi3_industry.vector_stores import FaissSQLiteVectorStore, lexical

SENTENCES = Path(__file__).parents[1] / "tests/unit/vector_stores/manual_sentences.json"
Find = Callable[[str, str], list[str]]


def stems(length: int) -> Callable[[str], str | None]:
    return lambda word: word[:length] + "…" if len(word) >= length else None


def ours(nodes: list[TextNode], ask: Callable[[Find], Any], stem: Any = lexical._stem) -> Any:
    """Let our store be asked, its stems cut in some way."""
    with (
        mock.patch.object(lexical, "_stem", stem),
        tempfile.TemporaryDirectory() as folder,
        FaissSQLiteVectorStore(folder) as store,
    ):
        store.add(nodes)

        def find(question: str, _: str) -> list[str]:
            mode = VectorStoreQueryMode.TEXT_SEARCH
            query = VectorStoreQuery(query_str=question, similarity_top_k=10, mode=mode)
            return store.query(query).ids or []

        return ask(find)


def pieces(nodes: list[TextNode], ask: Callable[[Find], Any]) -> Any:
    """Let our store index words and their pieces of four letters in place of stems."""
    cut, asked = lexical.index_text, lexical.query_terms

    def with_pieces(text: str) -> list[str]:
        return [f"{piece}……" for piece in lexical.letter_pieces(text) if len(piece) == 4]

    with (
        mock.patch(
            "phi3_industry.vector_stores.rows.index_text",
            lambda text: " ".join([cut(text), *with_pieces(text)]),
        ),
        mock.patch(
            "phi3_industry.vector_stores.search.query_terms",
            lambda text: [*asked(text), *with_pieces(text)],
        ),
    ):
        return ours(nodes, ask, stem=lambda _: None)


def llama_index(nodes: list[TextNode], *, own_stemmer: bool) -> Find:
    known: dict[str, Any] = {}

    def find(question: str, language: str) -> list[str]:
        name = language.lower()
        stemmed = own_stemmer and name in Stemmer.algorithms()
        key = name if stemmed else "english"
        if key not in known:
            known[key] = BM25Retriever.from_defaults(
                nodes=nodes, similarity_top_k=10, stemmer=Stemmer.Stemmer(key)
            )
        # it fills up its list with sentences that have the score 0
        hits = [hit for hit in known[key].retrieve(question) if (hit.score or 0) > 0]
        return [hit.node.node_id for hit in hits]

    return find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=Path, default=SENTENCES)
    sentences = json.loads(parser.parse_args().sentences.read_text(encoding="utf-8"))
    vector = [1.0, 0.0]
    nodes = [
        TextNode(id_=f"{language} {number}", text=text, embedding=vector)
        for language, pairs in sentences.items()
        for number, (text, _) in enumerate(pairs)
    ]

    def ask(find: Find) -> list[str]:
        cells = []
        for language, pairs in sentences.items():
            ranks = []
            for number, (_, question) in enumerate(pairs):
                found = find(question, language)
                wanted = f"{language} {number}"
                ranks.append(found.index(wanted) + 1 if wanted in found else np.inf)
            places = np.array(ranks)
            cells.append(f"{(places == 1).mean():.2f} / {(1 / np.log2(places + 1)).mean():.2f}")
        return cells

    rows = [
        ["LlamaIndex BM25", *ask(llama_index(nodes, own_stemmer=False))],
        ["LlamaIndex BM25, own stemmer", *ask(llama_index(nodes, own_stemmer=True))],
        ["**ours** (words and stems of 5)", *ours(nodes, ask)],
        ["ours without stems", *ours(nodes, ask, stem=lambda _: None)],
        *(
            [f"ours with stems of {length}", *ours(nodes, ask, stem=stems(length))]
            for length in (4, 6, 7)
        ),
        ["ours with pieces of 4 letters", *pieces(nodes, ask)],
    ]
    print(f"hit@1 / nDCG@10, {len(next(iter(sentences.values())))} questions a language\n")
    print_table(["system", *sentences], rows)


if __name__ == "__main__":
    main()
