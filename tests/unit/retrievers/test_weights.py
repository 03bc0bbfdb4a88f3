"""Weights are checked, saved and read back."""

from __future__ import annotations

import json

import pytest

from phi3_industry.retrievers import FusionWeights


def test_weights_come_back_from_their_file(tmp_path):
    weights = FusionWeights(dense=1.25, lexical=6, letters=0.1, document_dense=2)
    weights.save(tmp_path / "fusion.json")
    assert FusionWeights.load(tmp_path / "fusion.json") == weights
    assert json.loads(weights.to_json())["dense"] == 1.25
    assert FusionWeights.of(weights.values) == weights


def test_only_what_counts_is_searched():
    assert FusionWeights.only("dense").searches == ("dense",)
    assert FusionWeights(lexical=1).searches == ("lexical",)
    assert FusionWeights(lexical=1, document_dense=1).searches == ("dense", "lexical")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other", "dense": 1}', '{"dense": 1, "lexical": 1}']
)
def test_other_files_are_refused(text):
    with pytest.raises(ValueError, match="These are no fusion weights"):
        FusionWeights.from_json(text)
    with pytest.raises(ValueError, match="These are no fusion weights"):
        FusionWeights.from_json(FusionWeights(dense=1).to_json().replace("letters", "colours"))


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(value):
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        FusionWeights(dense=1, letters=value)
    with pytest.raises(ValueError, match="No search would be made"):
        FusionWeights(letters=1)
