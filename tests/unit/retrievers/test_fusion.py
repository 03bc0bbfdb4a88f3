"""Reciprocal rank fusion, with scores worked by hand."""

from __future__ import annotations

import pytest

from phi3_industry.retrievers import reciprocal_rank_fusion


def test_scores_are_sums_of_reciprocal_ranks():
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a"]])
    assert [node_id for node_id, _ in fused] == ["a", "c", "b"]
    assert dict(fused) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})


def test_weights_multiply_and_zero_leaves_a_list_out():
    fused = reciprocal_rank_fusion([["a"], ["b"]], weights=[1, 3])
    assert fused == [("b", pytest.approx(3 / 61)), ("a", pytest.approx(1 / 61))]
    assert reciprocal_rank_fusion([["a"], ["b"]], weights=[1, 0]) == [("a", 1 / 61)]


def test_a_larger_k_narrows_the_lead_of_the_first_ranks():
    def lead(k: float) -> float:
        scores = dict(reciprocal_rank_fusion([["a", "b"]], k=k))
        return scores["a"] / scores["b"]

    assert lead(1) == pytest.approx(1.5)
    assert lead(1000) < lead(60) < lead(1)


def test_equal_scores_keep_first_met_order():
    fused = reciprocal_rank_fusion([["z", "a"], ["a", "z"], []])
    assert [node_id for node_id, _ in fused] == ["z", "a"]
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], []]) == []


def test_arguments_are_not_changed():
    rankings = [["a", "b"], ["b"]]
    reciprocal_rank_fusion(rankings, weights=[1, 2])
    assert rankings == [["a", "b"], ["b"]]


@pytest.mark.parametrize(
    ("rankings", "settings", "message"),
    [
        ([["a"]], {"k": 0}, "k is 0; it must be at least 1"),
        ([["a"]], {"k": float("nan")}, "k is nan"),
        ([["a", "a"]], {}, "Ranking 1 names a node more than once"),
        ([["a"]], {"weights": [1, 2]}, "1 rankings and 2 weights"),
        ([["a"]], {"weights": [-1]}, "each must be a number of at least 0"),
    ],
)
def test_wrong_arguments_are_refused(rankings, settings, message):
    with pytest.raises(ValueError, match=message):
        reciprocal_rank_fusion(rankings, **settings)
