"""Text is cut so that words, codes and scripts without spaces are found."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.vector_stores.lexical import (
    MAX_QUERY_TERMS,
    index_text,
    match_expression,
    query_terms,
)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Pump P-4471 stops.", "pump p4471 p 4471 stops stops…"),
        ("P4471", "p4471 p 4471"),
        ("38.2 bar, 10 A", "38.2 38 2 bar 10 a"),
        ("2024-05-01", "2024-05-01 2024 05 01"),
        ("12_34", "12-34 12 34"),
        ("M8x1.25", "m8x125 m 8 x 1 25"),
        ("e.g. end.", "eg e g end"),
        ("Ｐ－１０ ﬁtting STRASSE straße", "p10 p 10 fitting fitti… strasse stras… strasse stras…"),
        ("圧力", "圧 力 圧力"),
        ("油圧ポンプA", "油 圧 ポ ン プ 油圧 圧ポ ポン ンプ a"),
        ("ความดัน", "ค ว า ม ด น คว วา าม มด ดั ัน"),
        ("유압", "유 압 유압"),
        ("पंप का दबाव", "पंप का दबाव"),
        ("насос čerpadlo", "насос насос… čerpadlo cerpa…"),
        ("Žárovka žárovce", "žárovka zarov… žárovce zarov…"),
        ("йогурт ёмкость", "йогурт иогур… ёмкость емкос…"),
        ("oil-filters x86filters", "oilfilters oil filters filte… x86filters x 86 filters"),
        ("Wait…", "wait"),
        ("it's l'eau", "it s l eau"),
        ("a\x00b \ud800 ‮c", "a b c"),
        ("", ""),
        ("-- !? ()", ""),
    ],
)
def test_index_terms(text, terms):
    assert index_text(text) == terms


def test_a_query_asks_for_pairs_where_a_text_has_single_characters_too():
    assert query_terms("圧力計") == ["圧力", "力計"]
    assert query_terms("圧") == ["圧"]


def test_query_terms_have_no_repeats_and_an_end():
    assert query_terms("pump Pump PUMP") == ["pump"]
    assert len(query_terms(" ".join(f"w{i}" for i in range(5000)))) == MAX_QUERY_TERMS
    assert len(query_terms("x" * 1_000_000)) == 2  # the word and its stem


def test_match_expression_quotes_every_term():
    assert match_expression(["a", 'b"c', "OR"]) == '"a" OR "b""c" OR "OR"'


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("P-4471", "code"),
        ("p4471", "code"),
        ("4471", "code"),
        ("38.2", "number"),
        ("10 A", "single"),
        ("10A", "single"),
        ("油圧の圧力は?", "japanese"),
        ("油", "japanese"),
        ("压力是多少", "chinese"),
        ("ความดัน", "thai"),
        ("압력", "korean"),
        ("давление", "russian"),
        ("TLAK ČERPADLA", "czech"),
        ("ＴＬＡＫ", "czech"),
    ],
)
def test_texts_of_many_languages_are_found(store, node, query, expected):
    texts = {
        "code": "Pump P-4471 is in the basement",
        "other code": "Pump P-4472 is in the attic",
        "number": "discharge 38.2 bar",
        "other number": "discharge 382 bar",
        "single": "fuse 10 A",
        "other single": "fuse 16 B",
        "japanese": "油圧ポンプの圧力を確認する",
        "chinese": "泵的额定压力为十巴",
        "thai": "ตรวจสอบความดันของปั๊ม",
        "korean": "펌프의 압력을 확인",
        "russian": "Рабочее давление насоса",
        "czech": "Tlak čerpadla je 10 bar",
    }
    store.add([node(name, [1, i], text=text) for i, (name, text) in enumerate(texts.items())])
    result = store.query(VectorStoreQuery(query_str=query, similarity_top_k=3, mode="text_search"))
    assert result.ids[0] == expected


SENTENCES = json.loads(Path(__file__).with_name("manual_sentences.json").read_text("utf-8"))


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_other_inflections_find_a_sentence_among_those_of_six_languages(store, node, language):
    assert len(SENTENCES) == 6
    everything = [
        (name, number, pair[0])
        for name, pairs in SENTENCES.items()
        for number, pair in enumerate(pairs)
    ]
    store.add([node(f"{name} {n}", [1, n], text=text) for name, n, text in everything])
    first = 0
    for number, (_, question) in enumerate(SENTENCES[language]):
        found = store.query(
            VectorStoreQuery(query_str=question, similarity_top_k=3, mode="text_search")
        )
        assert f"{language} {number}" in found.ids, question
        first += found.ids[0] == f"{language} {number}"
    assert first >= len(SENTENCES[language]) - 1


def test_the_very_form_comes_before_its_stem_and_codes_have_none(store, node):
    texts = {
        "form": "u čerpadel",
        "stem": "u čerpadla",
        "code": "valve ABCDE-7",
        "other": "valve ABCDE-8",
    }
    store.add([node(name, [1, i], text=text) for i, (name, text) in enumerate(texts.items())])
    ask = partial(VectorStoreQuery, similarity_top_k=4, mode="text_search")
    assert store.query(ask(query_str="čerpadel")).ids == ["form", "stem"]
    assert store.query(ask(query_str="čerpadla")).ids == ["stem", "form"]
    assert store.query(ask(query_str="abcde7")).ids[0] == "code"
    assert store.query(ask(query_str="ABCDEF")).ids == []
