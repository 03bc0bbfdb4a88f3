"""Many prompts are scored together: the same numbers in few passes, each beginning read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi3_industry.engines.local import LocalEngine
from phi3_industry.engines.packing import PackedSpan
from phi3_industry.models.loading import load_base_model
from tiny_models import save_random_adapter, save_tiny_phi3

BEGINNING = list(range(10, 74))
PROMPTS = [[*BEGINNING, *range(100 + 7 * n, 105 + 11 * n)] for n in range(8)]
CONTINUATIONS = [[20], [21, 22, 23]]


@pytest.fixture
def engine(tiny_phi3: Path) -> LocalEngine:
    return LocalEngine(load_base_model(str(tiny_phi3)))


@pytest.fixture
def passes(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass of the model."""
    counts: list[int] = []
    original = engine._model.logits

    def counting(spans: list[PackedSpan]) -> object:
        counts.append(sum(len(span.token_ids) for span in spans))
        return original(spans)

    monkeypatch.setattr(engine._model, "logits", counting)
    return counts


def test_scores_do_not_depend_on_the_other_prompts(engine, tiny_phi3, tmp_path):
    engine.load_adapter(save_random_adapter(tmp_path / "a", tiny_phi3), name="a")
    prompts = [*PROMPTS, [9], PROMPTS[0]]
    for adapter in (None, "a"):
        together = engine.score_batch(prompts, CONTINUATIONS, adapter=adapter)
        engine.clear_prefix_cache()
        for prompt, scores in zip(prompts, together, strict=True):
            alone = engine.score(prompt, CONTINUATIONS, adapter=adapter)
            for found, expected in zip(scores, alone, strict=True):
                assert found == pytest.approx(expected, abs=1e-4)
    assert engine.score_batch([], CONTINUATIONS) == []
    assert engine.score_batch(PROMPTS[:2], []) == [[], []]


def test_prompts_share_passes_and_read_their_common_beginning_once(engine, passes):
    engine.score_batch(PROMPTS, CONTINUATIONS)
    # the first prompt and its continuations, then all others and theirs
    assert len(passes) == 4
    own = [len(prompt) - len(BEGINNING) - 1 for prompt in PROMPTS]
    assert passes[0] == len(BEGINNING) + own[0]
    assert passes[2] == sum(own[1:])


def test_more_prompts_than_one_pass_takes_are_divided(engine, passes):
    prompts = [[n, *range(10, 300)] for n in range(1, 17)]
    scores = engine.score_batch(prompts, CONTINUATIONS)
    assert len(scores) == 16
    assert 2048 >= max(passes) > 1500
    assert scores[15][0] == pytest.approx(engine.score(prompts[15], [[20]])[0], abs=1e-4)


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(ValueError, match="need at least one token"):
        engine.score_batch([[1], []], [[2]])


def test_prompts_on_both_sides_of_the_rope_switch_share_no_pass(tmp_path):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 48,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [4.0, 4.4, 4.8, 5.2],
    }
    folder = save_tiny_phi3(tmp_path, rope_parameters=rope, original_max_position_embeddings=48)
    engine = LocalEngine(load_base_model(str(folder)))
    assert engine.loaded.checkpoint.rope_switch == 48
    # 47 tokens and one more are short, and with the longer continuation long
    prompts = [list(range(n, n + length)) for n, length in enumerate((20, 47, 90, 30, 60), 9)]
    together = engine.score_batch(prompts, CONTINUATIONS)
    for prompt, scores in zip(prompts, together, strict=True):
        for continuation, found in zip(CONTINUATIONS, scores, strict=True):
            fresh = LocalEngine(engine.loaded, prefix_cache_bytes=0)
            expected = fresh.score(prompt, [continuation])[0]
            assert found == pytest.approx(expected, abs=1e-4), len(prompt)
