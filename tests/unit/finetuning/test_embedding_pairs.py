"""Hard negatives are hard, and none of them answers its question."""

from __future__ import annotations

import numpy as np
import pytest

from phi3_industry.finetuning.embedding_config import EmbeddingFinetuneConfig
from phi3_industry.finetuning.embedding_corpus import Labelled, label, passages_of
from phi3_industry.finetuning.embedding_pairs import found_by, mine_pairs
from phi3_industry.finetuning.embedding_quality import compare_ranks, ndcg_of_each
from phi3_industry.grounding.questions import Question


def units(rows: list[list[float]]) -> np.ndarray:
    array = np.asarray(rows, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


@pytest.fixture
def passages(node):
    texts = {
        "gold": "The pressure is 38 bar.",
        "copy": "The pressure is thirty-eight.",  # as near to the gold one as a copy
        "answers": "Also here it says 38 bar.",
        "hard": "The pressure was never measured.",
        "other": "The flow is 12 l/min.",
        "far": "The canteen closes at two.",
    }
    return passages_of([node(name, name, text) for name, text in texts.items()])


PASSAGE_VECTORS = units(
    [[1, 0, 0], [0.99, 0.05, 0], [0.8, 0.6, 0], [0.7, 0.7, 0], [0.2, 0.9, 0.3], [0, 0, 1]]
)
QUESTION_VECTORS = units([[0.95, 0.3, 0]])


def mined(passages, *, also_found=(), **settings) -> list[str]:
    question = Question(id="q", question="Which?", answers=("38 bar",), gold_ids=("gold",))
    (pair,) = mine_pairs(
        label([question], passages),
        passages,
        question_vectors=QUESTION_VECTORS,
        passage_vectors=PASSAGE_VECTORS,
        also_found=also_found,
        config=EmbeddingFinetuneConfig(**settings),
    )
    assert pair.positive == passages[0].text
    names = {passage.text: passage.name for passage in passages}
    return [names[text] for text in pair.negatives]


def test_the_best_ranked_passage_that_does_not_answer_is_the_negative(passages):
    assert mined(passages, num_negatives=1, mined_ranks=1) == ["hard"]
    assert sorted(mined(passages, num_negatives=3)) == ["far", "hard", "other"]


def test_what_is_nearly_the_gold_passage_is_no_negative(passages):
    assert "copy" not in mined(passages, num_negatives=3)
    assert "copy" in mined(passages, num_negatives=4, near_positive=1.0)


def test_a_model_that_finds_all_texts_alike_has_hard_negatives_too(passages):
    alike = units((PASSAGE_VECTORS + np.array([0, 0, 30.0])).tolist())
    assert (alike @ alike.T).min() > 0.99
    (pair,) = mine_pairs(
        [Labelled(question=Question(id="q", question="?", answers=("38 bar",)), gold=(0,))],
        passages,
        question_vectors=QUESTION_VECTORS,
        passage_vectors=alike,
        config=EmbeddingFinetuneConfig(num_negatives=3),
    )
    assert len(set(pair.negatives)) == 3


def test_what_a_retriever_finds_is_drawn_from_too(passages):
    for seed in range(20):
        found = mined(passages, num_negatives=1, mined_ranks=1, also_found=[[0, 2, 5]], seed=seed)
        assert found in (["hard"], ["far"])
    assert sorted(mined(passages, num_negatives=2, mined_ranks=1, also_found=[[0, 2, 5]])) == [
        "far",
        "hard",
    ]


def test_every_row_has_the_same_width_and_the_seed_decides_it(passages):
    assert len(mined(passages, num_negatives=5)) == 5  # only three can be negatives
    assert mined(passages, num_negatives=1, seed=3) == mined(passages, num_negatives=1, seed=3)
    assert len({tuple(mined(passages, num_negatives=1, seed=seed)) for seed in range(20)}) > 1


def test_a_retriever_is_asked_and_strangers_are_left_out(retriever, nodes, questions):
    passages = passages_of(nodes[:4])
    found = found_by(retriever, label(questions[:2], passages), passages)
    assert found[0][0] == 0
    assert found[1][0] == 1
    assert sorted(found[0]) == [0, 1, 2, 3]


def test_ndcg_by_hand():
    labelled = [
        Labelled(question=Question(id="a", question="?", answers=()), gold=(0,)),
        Labelled(question=Question(id="b", question="?", answers=()), gold=(1, 2)),
    ]
    found = ndcg_of_each(
        labelled,
        question_vectors=units([[1, 0], [1, 0]]),
        passage_vectors=units([[1, 1], [1, 0], [0, 1]]),
    )
    second, third = 1 / np.log2(3), 1 / np.log2(4)
    assert found == pytest.approx([second, (1 + third) / (1 + second)])


def test_worse_than_before_is_an_answer():
    assert compare_ranks([1.0, 0.5], [0.5, 0.5])["verdict"] == "worse"
    better = compare_ranks([0.25, 0.5, 0.5], [0.5, 1.0, 0.25])
    assert better["verdict"] == "better"
    assert (better["questions_better"], better["questions_worse"]) == (2, 1)
    assert (better["ndcg_at_10_before"], better["ndcg_at_10_after"]) == (0.4167, 0.5833)
    assert compare_ranks([0.5], [0.5])["verdict"] == "same"
    assert compare_ranks([], [])["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lora_rank": 0}, "lora_rank is 0; it must be at least 1"),
        ({"batch_size": 1}, "batch_size is 1; it must be at least 2"),
        ({"num_negatives": -1}, "num_negatives is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"validation_share": 1.0}, "validation_share is 1.0; it must be at least 0 and below 1"),
        ({"near_positive": 1.5}, "near_positive is 1.5; it must be at most 1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must not be negative"),
    ],
)
def test_a_setting_outside_its_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingFinetuneConfig(**setting)
