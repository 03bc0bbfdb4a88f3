from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from phi3_industry.engines.base import GenerationRequest, SamplingParams, TokenEvent
from phi3_industry.engines.local import LocalEngine
from phi3_industry.errors import (
    AdapterError,
    AdapterNotFoundError,
    EngineError,
    RequestTimeoutError,
)
from phi3_industry.models.loading import load_base_model
from tiny_models import save_random_adapter, save_tiny_phi3

PROMPTS = [
    [{"role": "user", "content": text}]
    for text in ("What is P-4471?", "圧力は？", "List the steps to drain the tank of boiler K-2.")
]


@pytest.fixture
def engine(tiny_phi3: Path) -> LocalEngine:
    return LocalEngine(load_base_model(str(tiny_phi3)))


def request(engine: LocalEngine, prompt: int = 0, **options: object) -> GenerationRequest:
    adapter = options.pop("adapter", None)
    timeout_s = options.pop("timeout_s", None)
    return GenerationRequest(
        prompt_ids=tuple(engine.loaded.chat_format.encode_messages(PROMPTS[prompt])),
        sampling=SamplingParams(**{"max_new_tokens": 24, **options}),  # type: ignore[arg-type]
        adapter=adapter,  # type: ignore[arg-type]
        timeout_s=timeout_s,  # type: ignore[arg-type]
    )


def text_of(events: list[TokenEvent]) -> str:
    return "".join(event.text for event in events)


def tokens(engine: LocalEngine, **options: object) -> list[int | None]:
    return [event.token_id for event in engine.generate(request(engine, **options))]


@pytest.mark.parametrize("prompt", range(len(PROMPTS)))
def test_greedy_tokens_equal_those_of_transformers(engine: LocalEngine, prompt: int) -> None:
    asked = request(engine, prompt)
    ids = torch.tensor([asked.prompt_ids])
    expected = engine.loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=sorted(engine.loaded.chat_format.stop_token_ids),
        pad_token_id=2,
    )[0, ids.shape[1] :]
    assert [event.token_id for event in engine.generate(asked)] == expected.tolist()


def test_generation_across_the_rotary_switch_equals_computing_everything_anew(
    tmp_path: Path,
) -> None:
    """Phi-3's long checkpoints change their rotary factors at a length; cached keys do not fit."""
    factors = [1.0 + 0.1 * i for i in range(4)]
    folder = save_tiny_phi3(
        tmp_path,
        max_position_embeddings=256,
        original_max_position_embeddings=32,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4 * factor for factor in factors],
            "original_max_position_embeddings": 32,
        },
    )
    engine = LocalEngine(load_base_model(str(folder)))
    assert engine.loaded.checkpoint.rope_switch == 32
    ids = list(range(10, 36))
    sampling = SamplingParams(max_new_tokens=20)
    events = list(engine.generate(GenerationRequest(prompt_ids=tuple(ids), sampling=sampling)))
    for event in events:
        with torch.inference_mode():
            fresh = engine.loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        assert event.token_id == int(fresh.argmax())
        ids.append(event.token_id)
    assert len(ids) > 40


def test_the_last_event_alone_has_reason_and_usage(engine: LocalEngine) -> None:
    events = list(engine.generate(request(engine, max_new_tokens=5)))
    assert [event.finish_reason for event in events] == [None] * 4 + ["length"]
    assert [event.usage is not None for event in events] == [False] * 4 + [True]
    usage = events[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == len(request(engine).prompt_ids)
    assert usage.completion_tokens == 5
    assert usage.total_tokens == usage.prompt_tokens + 5


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(engine: LocalEngine) -> None:
    whole = text_of(list(engine.generate(request(engine))))
    stop = whole[4:7]
    events = list(engine.generate(request(engine, stop=(stop,))))
    assert text_of(events) == whole[: whole.index(stop)]
    assert events[-1].finish_reason == "stop"


def test_sampling_with_a_seed_repeats_itself(engine: LocalEngine) -> None:
    options = {"temperature": 1.5, "top_p": 0.95, "top_k": 50}
    first = tokens(engine, seed=1, **options)
    assert tokens(engine, seed=1, **options) == first
    assert tokens(engine, seed=2, **options) != first


def test_top_k_of_one_is_greedy(engine: LocalEngine) -> None:
    assert tokens(engine, temperature=5.0, top_k=1) == tokens(engine)


def test_log_probabilities_equal_the_scores_of_the_same_tokens(engine: LocalEngine) -> None:
    asked = request(engine, logprobs=True)
    events = list(engine.generate(asked))
    continuation = [event.token_id for event in events if event.token_id is not None]
    scores = engine.score(asked.prompt_ids, [continuation])[0]
    assert [event.logprob for event in events] == pytest.approx(scores, abs=1e-4)


def test_scores_do_not_depend_on_the_other_continuations(engine: LocalEngine) -> None:
    prompt = request(engine).prompt_ids
    continuations = [[11], [12, 13, 14, 15], [16, 17], *([20 + n] for n in range(9))]
    together = engine.score(prompt, continuations)
    for continuation, scores in zip(continuations, together, strict=True):
        assert engine.score(prompt, [continuation])[0] == pytest.approx(scores, abs=1e-4)
        assert len(scores) == len(continuation)


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(engine: LocalEngine) -> None:
    texts = [[11], [12, 13, 14, 15], [16, 17]]
    for pooling in ("last", "mean"):
        vectors = engine.embed(texts, pooling=pooling)
        assert vectors.shape == (3, 32)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        for text, vector in zip(texts, vectors, strict=True):
            assert engine.embed([text], pooling=pooling)[0] == pytest.approx(vector, abs=1e-5)
    assert engine.embed([]).shape == (0, 32)


def test_empty_input_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        engine.generate(GenerationRequest(prompt_ids=()))
    with pytest.raises(ValueError, match="need at least one token"):
        engine.score([1], [[]])
    with pytest.raises(ValueError, match="needs at least one token"):
        engine.embed([[]])


def test_each_request_gets_its_own_adapter(
    engine: LocalEngine, tiny_phi3: Path, tmp_path: Path
) -> None:
    base = tokens(engine)
    names = ["pumps", "väntil 阀", "a.b/c"]
    alone = {}
    for seed, name in enumerate(names, start=1):
        folder = save_random_adapter(tmp_path / str(seed), tiny_phi3, seed=seed)
        engine.load_adapter(folder, name=name)
        alone[name] = tokens(engine, adapter=name)
    assert engine.adapters == tuple(sorted(names))
    assert len({tuple(base), *(tuple(answer) for answer in alone.values())}) == 4
    # interleaved step by step, in every order
    streams = {name: engine.generate(request(engine, adapter=name)) for name in [None, *names]}
    answers: dict[str | None, list[int | None]] = {name: [] for name in streams}
    running = dict(streams)
    while running:
        for name in list(running):
            event = next(running[name], None)
            if event is None:
                del running[name]
            else:
                answers[name].append(event.token_id)
    assert answers == {None: base, **alone}


def test_concurrent_threads_get_their_own_adapters(
    engine: LocalEngine, tiny_phi3: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        folder = save_random_adapter(tmp_path / str(seed), tiny_phi3, seed=seed)
        engine.load_adapter(folder, name=str(seed))
    expected = {name: tokens(engine, adapter=name) for name in (None, "1", "2")}
    wrong: list[object] = []

    def ask(name: str | None) -> None:
        for _ in range(5):
            found = tokens(engine, adapter=name)
            if found != expected[name]:
                wrong.append((name, found))

    threads = [threading.Thread(target=ask, args=(name,)) for name in (None, "1", "2") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_adapter_of_zeros_is_the_base_model(
    engine: LocalEngine, tiny_phi3: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from phi3_industry.models.adapter import resolve_target_modules, write_manifest

    loaded = load_base_model(str(tiny_phi3))
    targets = resolve_target_modules(loaded.model, None)
    get_peft_model(loaded.model, LoraConfig(r=4, target_modules=targets)).save_pretrained(tmp_path)
    write_manifest(
        tmp_path, loaded, prompt_fingerprint="", method="lora", data_fingerprint="", metrics={}
    )
    before = tokens(engine)
    engine.load_adapter(tmp_path, name="zero")
    assert tokens(engine, adapter="zero") == before == tokens(engine)


def test_unloading_the_last_adapter_gives_the_base_model_back(
    engine: LocalEngine, tiny_phi3: Path, tmp_path: Path
) -> None:
    base = tokens(engine)
    folder = save_random_adapter(tmp_path / "a", tiny_phi3)
    for _ in range(2):
        engine.load_adapter(folder, name="a")
        adapted = tokens(engine, adapter="a")
        assert adapted != base
        engine.load_adapter(folder, name="b")
        engine.unload_adapter("a")
        assert tokens(engine, adapter="b") == adapted
        engine.unload_adapter("b")
        assert engine.adapters == ()
        assert tokens(engine) == base


def test_an_unknown_adapter_is_never_the_base_model(engine: LocalEngine) -> None:
    for call in (
        lambda: engine.generate(request(engine, adapter="pumps")),
        lambda: engine.score([1], [[2]], adapter="pumps"),
        lambda: engine.embed([[1]], adapter="pumps"),
        lambda: engine.unload_adapter("pumps"),
    ):
        with pytest.raises(AdapterNotFoundError, match="no adapter 'pumps'; loaded adapters: none"):
            call()


def test_a_taken_or_empty_name_is_refused(
    engine: LocalEngine, tiny_phi3: Path, tmp_path: Path
) -> None:
    folder = save_random_adapter(tmp_path / "a", tiny_phi3)
    engine.load_adapter(folder, name="a")
    with pytest.raises(ValueError, match="'a' is loaded already"):
        engine.load_adapter(folder, name="a")
    with pytest.raises(ValueError, match="name is empty"):
        engine.load_adapter(folder, name="")


def test_a_refused_adapter_leaves_the_engine_as_it_was(engine: LocalEngine, tmp_path: Path) -> None:
    before = tokens(engine)
    foreign = save_random_adapter(tmp_path / "foreign", "embedded")
    with pytest.raises(AdapterError):
        engine.load_adapter(foreign, name="foreign")
    assert engine.adapters == ()
    assert tokens(engine) == before


def test_a_request_is_stopped_when_its_time_is_over(engine: LocalEngine) -> None:
    events = engine.generate(request(engine, timeout_s=1e-9))
    with pytest.raises(RequestTimeoutError, match=r"stopped after 1e-09 s with \d+ tokens"):
        list(events)
    assert tokens(engine)


def test_a_failure_in_computing_reaches_the_caller_and_the_next_request_works(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tokens(engine)
    forward = engine.loaded.model.forward

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.loaded.model, "forward", fail)
    with pytest.raises(EngineError, match=r"Computing \d+ tokens .* failed: out of memory"):
        tokens(engine)
    monkeypatch.setattr(engine.loaded.model, "forward", forward)
    assert tokens(engine) == before


def test_closing_a_stream_stops_the_work(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    forward = engine.loaded.model.forward
    monkeypatch.setattr(
        engine.loaded.model, "forward", lambda *a, **k: (steps.append(1), forward(*a, **k))[1]
    )
    events = engine.generate(request(engine))
    next(events)
    next(events)
    events.close()
    time.sleep(0.1)
    assert 2 <= len(steps) <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"stop": ("",)}, "stop holds an empty text"),
    ],
)
def test_senseless_sampling_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingParams(**options)  # type: ignore[arg-type]
