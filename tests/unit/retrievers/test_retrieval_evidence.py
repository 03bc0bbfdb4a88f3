"""Evidence, with numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from phi3_industry.retrievers.evidence import evidence


def columns(question="", **given):
    given.setdefault("texts", [""] * len(given["documents"]))
    none = [None] * len(given["documents"])
    given = {"dense": none, "lexical": none, **given}
    names = ("dense", "lexical", "letters", "document_dense", "document_lexical")
    matrix = evidence(question, **given)
    assert matrix.shape == (len(given["documents"]), len(names))
    return {name: matrix[:, place].tolist() for place, name in enumerate(names)}


def test_dense_evidence_is_1_for_the_best_0_for_the_last_found_and_less_for_farther_ones():
    found = columns(documents="abcd", dense=[0.9, 0.7, 0.4, None], dense_floor=0.5)
    assert found["dense"] == pytest.approx([1.0, 0.5, -0.25, 0.0])


def test_scales_of_embedding_models_and_of_word_scores_make_no_difference():
    wide = columns(documents="abc", dense=[0.9, 0.5, 0.1], lexical=[8.0, 4.0, None])
    narrow = columns(documents="abc", dense=[0.90, 0.88, 0.86], lexical=[2.0, 1.0, None])
    assert wide["dense"] == pytest.approx(narrow["dense"])
    assert wide["lexical"] == narrow["lexical"] == [1.0, 0.5, 0.0]


def test_what_a_cut_off_search_did_not_bring_has_at_most_its_last_score():
    found = columns(documents="abc", lexical=[8.0, 4.0, None], lexical_floor=4.0)
    assert found["lexical"] == [1.0, 0.5, 0.5]


def test_a_document_has_the_evidence_of_its_best_passage():
    found = columns(documents=["a", "b", "a"], dense=[0.1, 0.5, 0.9], lexical=[2.0, 1.0, None])
    assert found["document_dense"] == [1.0, 0.5, 1.0]
    assert found["document_lexical"] == [1.0, 0.5, 1.0]


def test_pieces_of_words_are_found_in_other_forms_and_compounds_of_any_script():
    texts = ["Das Öldruckventil", "the pressure", "давление насосов", "油圧ポンプ"]
    for question, best in (("Druckventile", 0), ("насоса", 2), ("ポンプの", 3)):
        letters = columns(question, documents="abcd", texts=texts)["letters"]
        assert np.argmax(letters) == best
        assert letters.count(0.0) == 3
    assert columns("P-4471 of 10", documents="abcd", texts=texts)["letters"] == [0.0] * 4


def test_equal_scores_and_nothing_found_are_no_evidence():
    assert columns(documents="ab", dense=[0.5, 0.5])["dense"] == [0.0, 0.0]
    assert evidence("x", texts=[], documents=[], dense=[], lexical=[]).shape == (0, 5)
