from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from engine_requests import plain_tokens, tokens_of

from phi3_industry.engines.base import GenerationRequest, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.engines.packing import SequenceCache
from phi3_industry.engines.prefix_cache import PrefixCache
from phi3_industry.models.loading import LoadedModel, load_base_model
from tiny_models import save_random_adapter, save_tiny_phi3

BLOCK = 32
BLOCK_BYTES = 2 * 2 * 2 * BLOCK * 8 * 4  # layers, keys and values, heads, tokens, head_dim, float32


@pytest.fixture
def loaded(tiny_phi3: Path) -> LoadedModel:
    return load_base_model(str(tiny_phi3))


def words(seed: int, count: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(10, 2000) for _ in range(count))


def ask(prompt: tuple[int, ...], adapter: str | None = None, new: int = 8) -> GenerationRequest:
    sampling = SamplingParams(max_new_tokens=new)
    return GenerationRequest(prompt_ids=prompt, sampling=sampling, adapter=adapter)


# --- in the engine ------------------------------------------------------------------------------


def test_answers_are_the_same_with_and_without_reuse(
    loaded: LoadedModel, tiny_phi3: Path, tmp_path: Path
) -> None:
    reusing = LocalEngine(loaded)
    plain = LocalEngine(load_base_model(str(tiny_phi3)), prefix_cache_bytes=0)
    for seed, name in enumerate(("a1", "a2"), start=1):
        folder = save_random_adapter(tmp_path / name, tiny_phi3, seed=seed)
        reusing.load_adapter(folder, name=name)
        plain.load_adapter(folder, name=name)
    rng = random.Random(0)
    contexts = [words(seed, rng.randrange(20, 200)) for seed in range(4)]
    for number in range(40):
        context = rng.choice(contexts)
        prompt = context[: rng.randrange(1, len(context) + 1)] + words(100 + number, 5)
        request = ask(prompt, adapter=rng.choice([None, "a1", "a2"]))
        assert tokens_of(reusing.generate(request)) == tokens_of(plain.generate(request))
    assert reusing.prefix_statistics.tokens_reused > 500
    assert plain.prefix_statistics.tokens_reused == 0
    assert plain.prefix_statistics.nbytes == 0


def test_a_shared_beginning_is_computed_once(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    context = words(0, 320)
    first = ask(context + words(1, 10))
    tokens_of(engine.generate(first))
    before = engine.statistics.tokens
    tokens_of(engine.generate(ask(context + words(2, 10))))
    assert engine.statistics.tokens - before == 10 + 7
    assert engine.prefix_statistics.hits == 1
    assert engine.prefix_statistics.tokens_reused == 320
    assert engine.prefix_statistics.nbytes == 10 * BLOCK_BYTES


def test_the_same_prompt_again_computes_its_last_token_at_least(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    request = ask(words(0, 320), new=1)
    answer = tokens_of(engine.generate(request))
    before = engine.statistics.tokens
    assert tokens_of(engine.generate(request)) == answer
    assert engine.statistics.tokens - before == 1


def test_the_answer_is_reused_when_the_chat_goes_on(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    prompt = words(0, 40)
    answer = tokens_of(engine.generate(ask(prompt, new=30)))
    history = (*prompt, *(token for token in answer if token is not None), *words(1, 5))
    tokens_of(engine.generate(ask(history)))
    assert engine.prefix_statistics.tokens_reused == 64


def test_concurrent_questions_on_the_same_passages_read_them_once(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    context = words(0, 320)
    streams = [engine.generate(ask(context + words(number, 10), new=1)) for number in range(1, 17)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(tokens_of, streams))
    assert engine.statistics.tokens == 320 + 16 * 10
    for number, answer in enumerate(answers, start=1):
        assert answer == plain_tokens(loaded.model, context + words(number, 10), 1)


def test_a_reader_who_leaves_lets_the_others_read(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    context = words(0, 400)
    streams = [engine.generate(ask(context + words(number, 10))) for number in range(4)]
    streams[0].close()
    streams[1].close()
    assert len(list(streams[2])) == 8
    assert len(list(streams[3])) == 8


def test_scores_reuse_the_prompt(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    prompt = words(0, 330)
    scores = engine.score(prompt, [words(1, 4), words(2, 40)])
    assert engine.prefix_statistics.hits == 0
    again = engine.score(prompt, [words(1, 4), words(2, 40)])
    assert engine.prefix_statistics.tokens_reused == 320
    fresh = LocalEngine(loaded, prefix_cache_bytes=0).score(prompt, [words(1, 4), words(2, 40)])
    for first, second, third in zip(scores, again, fresh, strict=True):
        assert second == pytest.approx(first, abs=1e-4)
        assert third == pytest.approx(first, abs=1e-4)


def test_nothing_of_an_unloaded_adapter_is_reused(
    loaded: LoadedModel, tiny_phi3: Path, tmp_path: Path
) -> None:
    engine = LocalEngine(loaded)
    request = ask(words(0, 100), adapter="pumps")
    answers = []
    for seed in (1, 2):
        folder = save_random_adapter(tmp_path / str(seed), tiny_phi3, seed=seed)
        engine.load_adapter(folder, name="pumps")
        answers.append(tokens_of(engine.generate(request)))
        assert engine.prefix_statistics.nbytes > 0
        engine.unload_adapter("pumps")
        assert engine.prefix_statistics.nbytes == 0
    assert engine.prefix_statistics.hits == 0
    assert answers[0] != answers[1]


def test_keys_of_one_rotary_regime_are_not_reused_in_the_other(tmp_path: Path) -> None:
    folder = save_tiny_phi3(
        tmp_path,
        max_position_embeddings=512,
        original_max_position_embeddings=128,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [4.0, 4.4, 4.8, 5.2],
            "original_max_position_embeddings": 128,
        },
    )
    loaded = load_base_model(str(folder))
    engine = LocalEngine(loaded)
    context = words(0, 120)
    for length in (100, 120, 100, 120):
        prompt = context[:length]
        answer = tokens_of(engine.generate(ask(prompt, new=16)))
        assert answer == plain_tokens(loaded.model, prompt, 16)[: len(answer)]
    long = context + words(1, 60)
    assert tokens_of(engine.generate(ask(long))) == plain_tokens(loaded.model, long, 8)
    # both answers to the prompt of 120 crossed the switch, the second without reading again
    assert engine.statistics.recomputed == 2
    assert engine.prefix_statistics.tokens_reused == 96 + 96 + 96 + 128 + 120


def test_the_cache_can_be_cleared(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded)
    tokens_of(engine.generate(ask(words(0, 100))))
    assert engine.prefix_statistics.nbytes == 3 * BLOCK_BYTES
    engine.clear_prefix_cache()
    assert engine.prefix_statistics.nbytes == 0
    tokens_of(engine.generate(ask(words(0, 100))))
    assert engine.prefix_statistics.hits == 0


def test_memory_that_runs_out_is_taken_from_the_cache_first(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(loaded)
    tokens_of(engine.generate(ask(words(0, 100))))
    forward = loaded.model.forward

    def short_of_memory(*args: object, **kwargs: object) -> object:
        if engine.prefix_statistics.nbytes:
            raise torch.OutOfMemoryError("injected")
        return forward(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", short_of_memory)
    assert len(list(engine.generate(ask(words(0, 20), new=1)))) == 1
    assert engine.statistics.memory_shortages == 0


def test_a_negative_budget_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="prefix_cache_bytes is -1; 0 switches it off"):
        LocalEngine(loaded, prefix_cache_bytes=-1)


# --- by itself ----------------------------------------------------------------------------------


def read(ids: tuple[int, ...]) -> SequenceCache:
    """A sequence whose keys and values are its token ids."""
    cache = SequenceCache(2)
    content = torch.tensor(ids, dtype=torch.float32)[None, None, None, :, None]
    cache.append(content.expand(2, 2, 2, len(ids), 8))
    return cache


def reuse(prefixes: PrefixCache, ids: tuple[int, ...]) -> list[int]:
    cache = SequenceCache(2)
    prefixes.fill(cache, ids, adapter=None)
    if not cache.length:
        return []
    return [int(value) for value in cache.read(0, cache.length)[1, 1, 1, :, 7]]


def test_what_is_filled_in_is_what_was_kept() -> None:
    prefixes = PrefixCache(10**9)
    text = words(0, 200)
    prefixes.keep(read(text), text, adapter=None)
    assert reuse(prefixes, text) == list(text[:192])
    assert reuse(prefixes, text[:64]) == list(text[:63])
    assert reuse(prefixes, text[:65]) == list(text[:64])
    assert reuse(prefixes, text[:70] + words(1, 100)) == list(text[:70])
    assert reuse(prefixes, words(2, 200)) == []
    assert prefixes.reusable(text, adapter="a", long_rope=False) == 0
    assert prefixes.reusable(text, adapter=None, long_rope=True) == 0


def test_of_several_that_go_on_differently_the_longest_match_is_taken() -> None:
    prefixes = PrefixCache(10**9)
    shared = words(0, 32)
    for branch in (words(1, 8), words(1, 20), words(1, 4)):
        text = shared + branch + words(len(branch), 64)
        prefixes.keep(read(text), text, adapter=None)
    asked = shared + words(1, 20) + words(9, 40)
    assert reuse(prefixes, asked) == list(asked[: 32 + 20])


def test_shared_blocks_are_held_once() -> None:
    prefixes = PrefixCache(10**9)
    first, second = words(0, 96) + words(1, 32), words(0, 96) + words(2, 32)
    for text in (first, second):
        prefixes.keep(read(text), text, adapter=None)
    assert prefixes.statistics.nbytes == (3 + 1 + 1) * BLOCK_BYTES


def test_bytes_are_bounded_and_what_was_used_longest_ago_goes_first() -> None:
    prefixes = PrefixCache(6 * BLOCK_BYTES)
    texts = [words(seed, 65) for seed in range(4)]
    for text in texts[:3]:
        prefixes.keep(read(text), text, adapter=None)
    assert reuse(prefixes, texts[0]) == list(texts[0][:64])
    prefixes.keep(read(texts[3]), texts[3], adapter=None)
    assert prefixes.statistics.nbytes == 6 * BLOCK_BYTES
    assert prefixes.statistics.evicted == 2
    assert [bool(reuse(prefixes, text)) for text in texts] == [True, False, True, True]
    endless = words(9, 400)
    prefixes.keep(read(endless), endless, adapter=None)
    assert reuse(prefixes, endless) == list(endless[: 6 * BLOCK])
    assert prefixes.statistics.nbytes == 6 * BLOCK_BYTES


def test_an_end_goes_before_what_it_continues() -> None:
    prefixes = PrefixCache(4 * BLOCK_BYTES)
    long = words(0, 129)
    prefixes.keep(read(long), long, adapter=None)
    other = words(1, 33)
    prefixes.keep(read(other), other, adapter=None)
    assert reuse(prefixes, long) == list(long[:96])
