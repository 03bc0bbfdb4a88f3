"""Weights are fitted where questions tell, and kept where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phi3_industry.retrievers.fitting import MIN_QUESTIONS, Judged, fit_weights, ndcg_at_10
from phi3_industry.retrievers.weights import FusionWeights

START = FusionWeights(dense=1, lexical=1, letters=1)


def questions(true_weights, *, count, seed=0):
    """Draw questions whose right passage follows the model with known weights."""
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        evidence = generator.random((20, 5))
        logits = evidence @ np.array(true_weights, dtype=float)
        chances = np.exp(logits - logits.max())
        right = np.zeros(20, dtype=bool)
        right[generator.choice(20, p=chances / chances.sum())] = True
        drawn.append(Judged(evidence, right, 1))
    return drawn


def test_weights_that_made_the_questions_are_found():
    true = (8.0, 2.0, 0.0, 0.0, 4.0)
    report = fit_weights(questions(true, count=600), START, source="questions")
    assert report.adopted
    assert report.after > report.before
    assert report.gain_low > 0
    assert report.weights.values == pytest.approx(true, abs=1.2)
    assert "adopted: they find more" in str(report)


def test_evidence_that_speaks_against_a_passage_gets_the_weight_0():
    report = fit_weights(questions((8, 0, -6, 0, 0), count=300), START, source="questions")
    assert report.weights.letters == 0
    assert report.weights.dense > 4


def test_too_few_questions_change_nothing():
    few = questions((8, 0, 0, 0, 0), count=MIN_QUESTIONS - 1)
    report = fit_weights(few, START, source="questions")
    assert not report.adopted
    assert report.weights == START
    assert f"it takes {MIN_QUESTIONS} usable questions" in report.reason
    assert fit_weights([], START, source="corpus").questions == 0


def test_questions_that_do_not_tell_change_nothing():
    report = fit_weights(questions((0, 0, 0, 0, 0), count=60), START, source="corpus")
    assert not report.adopted
    assert report.weights == START
    assert "no more than chance" in report.reason


def test_a_prior_lets_few_questions_move_weights_less_than_many():
    def ratio(count):
        report = fit_weights(questions((9, 1, 1, 0, 0), count=count), START, source="questions")
        return report.weights.dense / report.weights.lexical

    assert 1 < ratio(60) < ratio(1000)


def test_weights_that_are_not_free_keep_their_proportion():
    start = FusionWeights(dense=1, lexical=1, letters=2, document_dense=1)
    free = [True, True, False, False, False]
    report = fit_weights(questions((9, 2, 0, 0, 0), count=400), start, source="corpus", free=free)
    assert report.adopted
    assert report.weights.dense > 2 * report.weights.lexical
    assert report.weights.letters == pytest.approx(2 * report.weights.document_dense, rel=0.01)


def test_ndcg_counts_right_passages_that_were_not_found():
    evidence = np.array([[3.0], [2.0], [1.0]])
    question = Judged(evidence, np.array([False, True, False]), 2)
    expected = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert ndcg_at_10(question, np.array([1.0])) == pytest.approx(expected)
