from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_requests import tokens_of

from phi3_industry.engines.base import GenerationRequest, Grammar, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.engines.prompt_lookup import PromptLookup
from phi3_industry.models.loading import LoadedModel, load_base_model
from tiny_models import save_random_adapter, save_tiny_phi3


@pytest.fixture
def loaded(tiny_phi3: Path) -> LoadedModel:
    return load_base_model(str(tiny_phi3))


def ask(prompt: Any, *, new: int = 40, **options: Any) -> GenerationRequest:
    sampling = SamplingParams(max_new_tokens=new, **options.pop("sampling", {}))
    return GenerationRequest(prompt_ids=tuple(prompt), sampling=sampling, **options)


def quoting_prompts(loaded: LoadedModel, count: int) -> list[tuple[int, ...]]:
    """Prompts that hold parts of what the model will answer to them, some of it changed.

    A random model quotes nothing by itself; but the answer to a prompt changes little when the
    prompt's far beginning does, so that its own answer put there is often quoted for a while.
    """
    plain = LocalEngine(loaded, prompt_lookup="off", prefix_cache_bytes=0)
    rng = random.Random(0)
    prompts = []
    for _ in range(count):
        end = tuple(rng.randrange(10, 2000) for _ in range(30))
        head: tuple[int, ...] = ()
        for _ in range(3):  # each round brings the quoted text nearer to the answer
            answer = tokens_of(plain.generate(ask((*head, *end))))
            head = tuple(token for token in answer if token is not None)
        prompts.append((*head, *end))
    return prompts


# --- in the engine ------------------------------------------------------------------------------


def test_answers_are_the_same_with_and_without_guessing(
    loaded: LoadedModel, tiny_phi3: Path, tmp_path: Path
) -> None:
    folder = save_random_adapter(tmp_path, tiny_phi3, seed=1)
    plain = LocalEngine(loaded, prompt_lookup="off")
    guessing = LocalEngine(load_base_model(str(tiny_phi3)), prompt_lookup="on")
    for engine in (plain, guessing):
        engine.load_adapter(folder, name="a")
    requests = [
        ask(prompt, adapter=adapter, sampling={"logprobs": True})
        for prompt in quoting_prompts(loaded, 8)
        for adapter in (None, "a")
    ]
    expected = [list(plain.generate(request)) for request in requests]
    alone = [list(guessing.generate(request)) for request in requests]
    streams = [guessing.generate(request) for request in requests]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(list, streams))
    for wanted, *answers in zip(expected, alone, together, strict=True):
        for answer in answers:
            assert tokens_of(answer) == tokens_of(wanted)
            assert [event.text for event in answer] == [event.text for event in wanted]
            assert answer[-1].usage == wanted[-1].usage
            assert [event.logprob for event in answer] == pytest.approx(
                [event.logprob for event in wanted], abs=1e-3
            )
    assert guessing.statistics.guessed_right > 5
    assert guessing.statistics.guessed > guessing.statistics.guessed_right
    assert plain.statistics.guessed == 0


def repeating_model(folder: Path, **options: Any) -> LoadedModel:
    """A model whose answer is the last token for ever: all guesses are right."""
    save_tiny_phi3(folder, hidden_size=128, intermediate_size=128)
    loaded = load_base_model(str(folder))
    with torch.no_grad():
        for layer in loaded.model.model.layers:
            layer.self_attn.o_proj.weight.mul_(1e-4)
            layer.mlp.down_proj.weight.mul_(1e-4)
    loaded.model.save_pretrained(folder)
    return load_base_model(str(folder), **options)


def test_right_guesses_save_passes(tmp_path: Path) -> None:
    engine = LocalEngine(repeating_model(tmp_path))
    prompt = [11, 12, 11, 11, 11, 11]
    answer = tokens_of(engine.generate(ask(prompt)))
    assert answer == [11] * 40
    assert engine.statistics.passes <= 8
    assert engine.statistics.guessed_right == engine.statistics.guessed


@pytest.mark.parametrize("new", range(1, 20))
def test_guesses_end_where_the_answer_ends(tmp_path: Path, new: int) -> None:
    engine = LocalEngine(repeating_model(tmp_path))
    events = list(engine.generate(ask([11] * 10, new=new)))
    assert tokens_of(events) == [11] * new
    assert events[-1].finish_reason == "length"
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == new


def test_a_stop_text_within_right_guesses_ends_the_answer(tmp_path: Path) -> None:
    loaded = repeating_model(tmp_path)
    token = loaded.chat_format.encode_text("a")[0]
    text = loaded.chat_format.decode([token, token])
    plain, guessing = (LocalEngine(loaded, prompt_lookup=mode) for mode in ("off", "on"))
    request = ask([token] * 10, sampling={"stop": (text,)})
    expected = list(plain.generate(request))
    assert list(guessing.generate(request)) == expected
    assert expected[-1].finish_reason == "stop"


def test_quantised_weights_guess_less(tmp_path: Path) -> None:
    loaded = repeating_model(tmp_path, quantization="nf4")
    plain, guessing = (LocalEngine(loaded, prompt_lookup=mode) for mode in ("off", "on"))
    answer = tokens_of(guessing.generate(ask([11] * 10)))
    assert answer == tokens_of(plain.generate(ask([11] * 10)))
    assert guessing.statistics.guessed > 20
    assert 40 / 4 <= guessing.statistics.passes < 40 / 2


def test_guesses_do_not_cross_the_rotary_switch(tmp_path: Path) -> None:
    folder = save_tiny_phi3(
        tmp_path,
        max_position_embeddings=256,
        original_max_position_embeddings=48,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [4.0, 4.4, 4.8, 5.2],
            "original_max_position_embeddings": 48,
        },
    )
    loaded = load_base_model(str(folder))
    plain, guessing = (LocalEngine(loaded, prompt_lookup=mode) for mode in ("off", "on"))
    rng = random.Random(0)
    for length in range(20, 47, 2):
        prompt = [rng.randrange(10, 14) for _ in range(length)]  # few words: much to guess
        answer = tokens_of(guessing.generate(ask(prompt)))
        assert answer == tokens_of(plain.generate(ask(prompt))), length
    assert guessing.statistics.guessed > 20


@pytest.mark.parametrize(
    ("mode", "count", "guesses"), [("auto", 1, True), ("auto", 8, False), ("on", 8, True)]
)
def test_by_default_a_full_batch_does_not_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, count: int, guesses: bool
) -> None:
    engine = LocalEngine(repeating_model(tmp_path), prompt_lookup=mode)
    monkeypatch.setattr(engine._scheduler, "submit", lambda generation: None)
    batch = [engine._submit(ask([11] * 10), deliver=lambda item: None) for _ in range(count)]
    for _ in range(3):  # the steps of a batch in which nobody ever waits for his caller
        engine._steps.run(batch, beside=batch)
    assert (engine.statistics.guessed > 0) == guesses
    assert {len(generation.ids) > 10 + 3 for generation in batch} == {guesses}


class Anything:
    """A grammar that allows all."""

    shortened = finished = False

    def start(self, grammar: Grammar, *, max_new_tokens: int | None = None) -> Anything:
        return self

    def mask(self, logits: torch.Tensor) -> None:
        pass

    def accept(self, token_id: int) -> None:
        pass


@pytest.mark.parametrize(
    "options", [{"sampling": {"temperature": 0.1}}, {"grammar": Grammar("ebnf", "any")}]
)
def test_sampled_and_constrained_answers_are_not_guessed(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    engine = LocalEngine(repeating_model(tmp_path), prompt_lookup="on", grammars=Anything())
    assert len(list(engine.generate(ask([11] * 10, **options)))) == 40
    assert engine.statistics.guessed == 0


def test_an_unknown_mode_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match=r"prompt_lookup is 'yes'; it must be one of \['auto'"):
        LocalEngine(loaded, prompt_lookup="yes")  # type: ignore[arg-type]


# --- by itself ----------------------------------------------------------------------------------


def test_what_followed_the_last_words_is_guessed() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 1, 2, 3]
    assert PromptLookup(most=7).guess(text) == [4, 5, 6]
    assert PromptLookup(most=2).guess(text) == [4, 5]
    assert PromptLookup(most=7).guess([*text, 99]) == []
    assert PromptLookup(most=7).guess([1, 2]) == []
    # what repeats itself goes on
    assert PromptLookup(most=5).guess([1, 2, 1, 2, 1, 2, 1]) == [2, 1, 2]
    # the place that was met last counts
    assert PromptLookup(most=7).guess([1, 2, 3, 4, 1, 2, 3, 5, 6, 7, 1, 2, 3]) == [5, 6, 7]


def test_right_guesses_make_for_more_and_shorter_words() -> None:
    lookup = PromptLookup(most=7)
    text = [*range(1, 40), 1, 2, 3]
    assert lookup.guess(text) == [4, 5, 6]
    text += [4, 5, 6, 7]
    lookup.learn(text, guessed=3, right=3)
    assert lookup.guess(text) == [8, 9, 10, 11, 12, 13, 14]
    text += [8, 9, 30, 31]
    lookup.learn(text, guessed=7, right=2)
    assert lookup.guess(text) == [32, 33, 34]  # two words are enough within a quote


def test_text_that_quotes_nothing_costs_few_guesses() -> None:
    lookup = PromptLookup(most=7)
    rng = random.Random(0)
    text = [rng.randrange(3) for _ in range(200)]  # every word was there before, none helps
    wrong = 0
    for _ in range(500):
        if lookup.guess(text):
            wrong += 1
            lookup.learn([*text, 9], guessed=3, right=0)
        text.append(rng.randrange(3))
    assert 3 <= wrong <= 8
    assert lookup._pause == 256


def test_guessing_resumes_after_a_pause() -> None:
    lookup = PromptLookup(most=7)
    text = [*range(1, 40), 1, 2, 3]
    assert lookup.guess(text)
    text.append(50)
    lookup.learn(text, guessed=3, right=0)
    text += [10, 11, 12]
    assert lookup.guess(text) == []
    text += [60, 61, 62, 20, 21, 22]
    assert lookup.guess(text) == [23, 24, 25]
