from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_requests import async_tokens, plain_tokens, random_request, tokens_of

from phi3_industry.engines.base import GenerationRequest, Grammar, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.errors import (
    AdapterError,
    ConfigurationError,
    EngineError,
    EngineOverloadedError,
    RequestTimeoutError,
)
from phi3_industry.models.loading import LoadedModel, load_base_model
from tiny_models import save_random_adapter, save_tiny_phi3

ADAPTERS = ("a1", "a2", "a3")


@pytest.fixture(scope="module")
def adapter_folders(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: save_random_adapter(root / name, tiny_phi3, seed=seed)
        for seed, name in enumerate(ADAPTERS, start=1)
    }


@pytest.fixture
def loaded(tiny_phi3: Path) -> LoadedModel:
    return load_base_model(str(tiny_phi3))


@pytest.fixture
def engine(loaded: LoadedModel) -> LocalEngine:
    return LocalEngine(loaded)


def ask(prompt: int = 10, *, new: int = 8, **options: Any) -> GenerationRequest:
    """A request with a prompt of its own and no end but its length."""
    sampling = SamplingParams(max_new_tokens=new, **options.pop("sampling", {}))
    ids = tuple(range(prompt, prompt + 12))
    return GenerationRequest(prompt_ids=ids, sampling=sampling, **options)


class Passes:
    """Watches the passes of a model, and holds them up or breaks them."""

    def __init__(self, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[int] = []
        self.sequences: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.errors: list[Exception] = []
        self.most_sequences: int | None = None
        forward = loaded.model.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            if "packed_spans" not in kwargs:
                return forward(*args, **kwargs)
            self.tokens.append(kwargs["input_ids"].shape[1])
            self.sequences.append(len(kwargs["packed_spans"]))
            self.gate.wait()
            if self.errors:
                raise self.errors.pop(0)
            if self.most_sequences and self.sequences[-1] > self.most_sequences:
                raise torch.OutOfMemoryError("injected")
            return forward(*args, **kwargs)

        monkeypatch.setattr(loaded.model, "forward", watched)


@pytest.fixture
def passes(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(loaded, monkeypatch)


def wait_for(condition: Any) -> None:
    """Wait until something is so; what never comes fails the test."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.001)


# --- one batch ----------------------------------------------------------------------------------


def mixed_answers(engine: LocalEngine, requests: list[GenerationRequest], seed: int) -> Any:
    """Send requests at random times from threads, event loops and streams."""
    rng = random.Random(seed)
    answers: list[Any] = [None] * len(requests)

    def by_thread(number: int) -> None:
        time.sleep(rng.random() * 0.02)
        answers[number] = tokens_of(engine.generate(requests[number]))

    async def by_loop(numbers: list[int]) -> None:
        async def one(number: int) -> None:
            await asyncio.sleep(rng.random() * 0.02)
            answers[number] = await async_tokens(engine, requests[number])

        await asyncio.gather(*(one(number) for number in numbers))

    def by_stream(numbers: list[int]) -> None:
        """Takes a few events of each in turn, as a slow reader of many streams."""
        streams = {number: engine.generate(requests[number]) for number in numbers}
        for number in numbers:
            answers[number] = []
        while streams:
            for number in rng.sample(list(streams), len(streams)):
                event = next(streams[number], None)
                if event is None:
                    del streams[number]
                else:
                    answers[number].append(event.token_id)

    shares = [list(range(start, len(requests), 3)) for start in range(3)]
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(by_thread, number) for number in shares[0]]
        jobs.append(pool.submit(lambda: asyncio.run(by_loop(shares[1]))))
        jobs.append(pool.submit(by_stream, shares[2]))
        for job in jobs:
            job.result()
    return answers


def test_answers_do_not_depend_on_who_else_is_in_the_batch(
    engine: LocalEngine, adapter_folders: dict[str, Path]
) -> None:
    for name, folder in adapter_folders.items():
        engine.load_adapter(folder, name=name)
    rng = random.Random(0)
    requests = [random_request(rng, [None, *ADAPTERS]) for _ in range(120)]
    alone = [tokens_of(engine.generate(request)) for request in requests]
    assert len({tuple(answer) for answer in alone}) > 100
    before = engine.statistics.passes
    assert mixed_answers(engine, requests, seed=1) == alone
    assert engine.statistics.passes - before < sum(map(len, alone)) / 2, "they were not batched"


@pytest.mark.slow
def test_ten_thousand_mixed_requests_over_eight_adapters_get_their_own_adapter(
    tiny_phi3: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    names = [f"a{number}" for number in range(8)]
    for seed, name in enumerate(names, start=1):
        folder = save_random_adapter(tmp_path / name, tiny_phi3, seed=seed)
        engine.load_adapter(folder, name=name)
    rng = random.Random(0)
    kinds = [random_request(rng, [None, *names]) for _ in range(500)]
    alone = [tokens_of(engine.generate(request)) for request in kinds]
    chosen = [rng.randrange(len(kinds)) for _ in range(10_000)]
    answers: list[Any] = []
    for first in range(0, len(chosen), 1000):
        part = [kinds[number] for number in chosen[first : first + 1000]]
        answers += mixed_answers(engine, part, seed=first)
    wrong = sum(answer != alone[number] for answer, number in zip(answers, chosen, strict=True))
    assert wrong == 0


def test_requests_for_base_and_adapters_share_each_pass(
    engine: LocalEngine, adapter_folders: dict[str, Path], passes: Passes
) -> None:
    for name, folder in adapter_folders.items():
        engine.load_adapter(folder, name=name)
    passes.gate.clear()
    streams = [engine.generate(ask(new=6, adapter=name)) for name in (None, *ADAPTERS)]
    wait_for(lambda: passes.tokens)  # the first is on its way alone, the others wait for it
    passes.gate.set()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(tokens_of, streams))
    assert len({tuple(answer) for answer in answers}) == 4
    assert max(passes.sequences) == 4
    assert len(passes.tokens) < 4 * 6


def test_sampling_with_a_seed_is_the_same_alone_and_in_a_batch(engine: LocalEngine) -> None:
    requests = [
        ask(10 * number, new=10, sampling={"temperature": 1.2, "top_p": 0.9, "seed": number})
        for number in range(1, 9)
    ]
    alone = [tokens_of(engine.generate(request)) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda request: tokens_of(engine.generate(request)), requests))
    assert together == alone


def test_log_probabilities_are_the_same_in_a_batch(engine: LocalEngine) -> None:
    requests = [ask(10 * number, sampling={"logprobs": True}) for number in range(1, 5)]
    alone = [[event.logprob for event in engine.generate(request)] for request in requests]
    streams = [engine.generate(request) for request in requests]
    for stream, expected in zip(streams, alone, strict=True):
        assert [event.logprob for event in stream] == pytest.approx(expected, abs=1e-4)


class OnlyEven:
    """A grammar of three even tokens."""

    shortened = False

    def __init__(self) -> None:
        self.taken: list[int] = []

    @property
    def finished(self) -> bool:
        return len(self.taken) == 3

    def mask(self, logits: torch.Tensor) -> None:
        logits[1::2] = float("-inf")

    def accept(self, token_id: int) -> None:
        self.taken.append(token_id)


class Grammars:
    def start(self, grammar: Grammar, *, max_new_tokens: int | None = None) -> OnlyEven:
        if grammar.text != "even":
            raise ConfigurationError("no such grammar")
        return OnlyEven()


def test_constrained_and_free_requests_share_a_batch(loaded: LoadedModel, passes: Passes) -> None:
    engine = LocalEngine(loaded, grammars=Grammars())
    free = [ask(10 * number) for number in range(1, 4)]
    expected = [tokens_of(engine.generate(request)) for request in free]
    even = [ask(10 * number, grammar=Grammar("ebnf", "even")) for number in range(1, 4)]
    streams = [engine.generate(request) for request in (*free, *even)]
    answers = [list(stream) for stream in streams]
    assert [tokens_of(answer) for answer in answers[:3]] == expected
    assert any(token % 2 for tokens in expected for token in tokens if token)
    for answer in answers[3:]:
        assert len(answer) == 3
        assert answer[-1].finish_reason == "stop"
        assert all(event.token_id is not None and event.token_id % 2 == 0 for event in answer)
    assert max(passes.sequences) > 3


def test_log_probabilities_of_constrained_answers_are_those_of_the_plain_model(
    loaded: LoadedModel,
) -> None:
    engine = LocalEngine(loaded, grammars=Grammars())
    request = ask(sampling={"logprobs": True}, grammar=Grammar("ebnf", "even"))
    events = list(engine.generate(request))
    tokens = [event.token_id for event in events if event.token_id is not None]
    scores = engine.score(request.prompt_ids, [tokens])[0]
    assert [event.logprob for event in events] == pytest.approx(scores, abs=1e-4)


def test_a_grammar_that_does_not_compile_fails_its_request_alone(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded, grammars=Grammars())
    good, bad = engine.generate(ask()), engine.generate(ask(grammar=Grammar("ebnf", "odd")))
    with pytest.raises(ConfigurationError, match="no such grammar"):
        next(bad)
    assert len(list(good)) == 8


# --- adapters that cannot share -----------------------------------------------------------------


def test_dora_adapters_are_computed_apart_and_reported(
    engine: LocalEngine, tiny_phi3: Path, adapter_folders: dict[str, Path], passes: Passes
) -> None:
    from peft import LoraConfig

    engine.load_adapter(adapter_folders["a1"], name="plain")
    model = engine._model.adapters._model
    for number in (1, 2):
        torch.manual_seed(number)
        config = LoraConfig(
            r=4, target_modules=["qkv_proj"], use_dora=True, init_lora_weights=False
        )
        model.add_adapter(f"dora{number}", config)
        engine._model.adapters._internal_names[f"d{number}"] = f"dora{number}"
    model.eval()
    engine._model.adapters._install()
    assert engine.adapters_alone == ("d1", "d2")
    names = [None, "plain", "d1", "d2"] * 3
    requests = [ask(10 * number, adapter=name) for number, name in enumerate(names, start=1)]
    alone = [tokens_of(engine.generate(request)) for request in requests]
    model.set_adapter("dora1")
    with torch.inference_mode():
        logits = engine.loaded.model(torch.tensor([requests[2].prompt_ids])).logits[0, -1]
    assert alone[2][0] == int(logits.argmax())
    del passes.sequences[:]
    streams = [engine.generate(request) for request in requests]
    assert [tokens_of(stream) for stream in streams] == alone
    assert max(passes.sequences) == 6, "base and plain LoRA in one pass, each DoRA in its own"


def test_an_adapter_in_use_is_not_unloaded(
    engine: LocalEngine, adapter_folders: dict[str, Path]
) -> None:
    engine.load_adapter(adapter_folders["a1"], name="pumps")
    stream = engine.generate(ask(adapter="pumps"))
    next(stream)
    with pytest.raises(AdapterError, match="'pumps' cannot be unloaded: 1 requests"):
        engine.unload_adapter("pumps")
    assert len(list(stream)) == 7
    engine.unload_adapter("pumps")
    assert engine.adapters == ()


def test_others_may_use_the_model_in_their_own_threads(
    engine: LocalEngine, adapter_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load_adapter(adapter_folders["a1"], name="a1")
    forward = engine.loaded.model.forward
    ids = torch.tensor([[11, 12, 13]])
    seen: list[torch.Tensor] = []

    def use() -> None:
        with torch.inference_mode():
            seen.append(forward(input_ids=ids).logits)

    def beside_others(*args: Any, **kwargs: Any) -> Any:
        other = threading.Thread(target=use)
        other.start()
        other.join()
        return forward(*args, **kwargs)

    use()
    monkeypatch.setattr(engine.loaded.model, "forward", beside_others)
    assert len(list(engine.generate(ask(adapter="a1", new=2)))) == 2
    assert len(seen) == 3
    assert all(torch.equal(logits, seen[0]) for logits in seen)


# --- queue and time -----------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_with_numbers(loaded: LoadedModel, passes: Passes) -> None:
    engine = LocalEngine(loaded, max_batch_size=2, max_queue=3)
    passes.gate.clear()
    streams = [engine.generate(ask(10 * number)) for number in range(1, 6)]
    with pytest.raises(EngineOverloadedError, match=r"requests are waiting and at most 3 may"):
        engine.generate(ask())

    async def refused() -> None:
        with pytest.raises(EngineOverloadedError):
            await async_tokens(engine, ask())

    asyncio.run(refused())
    passes.gate.set()
    assert [len(list(stream)) for stream in streams] == [8] * 5
    assert len(list(engine.generate(ask()))) == 8


def test_time_is_counted_from_submission(loaded: LoadedModel, passes: Passes) -> None:
    engine = LocalEngine(loaded, max_batch_size=1)
    passes.gate.clear()
    running = engine.generate(ask())
    wait_for(lambda: passes.tokens)
    waiting = engine.generate(ask(timeout_s=0.05))
    with pytest.raises(RequestTimeoutError, match=r"after 0\.05 s with 0 tokens"):
        next(waiting)  # though the model is in the middle of a pass

    async def overdue() -> None:
        with pytest.raises(RequestTimeoutError, match=r"after 0\.05 s with 0 tokens"):
            await async_tokens(engine, ask(timeout_s=0.05))

    asyncio.run(overdue())
    passes.gate.set()
    assert len(list(running)) == 8


def test_a_long_request_starves_nobody(loaded: LoadedModel) -> None:
    engine = LocalEngine(loaded, max_batch_size=2)
    long = engine.generate(ask(new=400))
    ended = threading.Event()
    reader = threading.Thread(target=lambda: (list(long), ended.set()))
    reader.start()
    for number in range(1, 9):
        assert len(list(engine.generate(ask(10 * number, new=3)))) == 3
    assert not ended.is_set()
    reader.join()


def test_a_long_prompt_holds_up_nobody_for_long(loaded: LoadedModel, passes: Passes) -> None:
    engine = LocalEngine(loaded, prefill_chunk=16)
    running = engine.generate(ask(new=100))
    next(running)
    long = GenerationRequest(
        prompt_ids=tuple(range(10, 330)), sampling=SamplingParams(max_new_tokens=2)
    )
    del passes.tokens[:]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(tokens_of, (running, engine.generate(long))))
    assert max(passes.tokens) <= 16 + 1
    assert answers[1] == tokens_of(LocalEngine(loaded).generate(long))


def test_streams_that_nobody_reads_block_nobody(loaded: LoadedModel, passes: Passes) -> None:
    engine = LocalEngine(loaded, max_batch_size=2)
    idle = [engine.generate(ask(10 * number)) for number in range(1, 9)]
    expected = [tokens_of(LocalEngine(loaded).generate(ask(10 * n))) for n in range(1, 9)]
    assert len(list(engine.generate(ask()))) == 8
    assert max(passes.sequences) <= 2
    wait_for(lambda: engine._scheduler._worker is None)
    held = [stream._generation.cache is not None for stream in idle]
    assert sum(held) <= 2, "nobody reads the others: what they hold is freed"
    assert [tokens_of(stream) for stream in idle] == expected


def test_little_is_computed_for_who_does_not_ask(engine: LocalEngine, passes: Passes) -> None:
    stream = engine.generate(ask(new=100))
    next(stream)
    wait_for(lambda: engine._scheduler._worker is None)
    assert len(passes.tokens) == 1 + 2
    next(stream)
    wait_for(lambda: engine._scheduler._worker is None)
    assert len(passes.tokens) == 2 + 2


def test_a_stream_that_has_ended_holds_no_keys(engine: LocalEngine) -> None:
    stream = engine.generate(ask())
    list(stream)
    wait_for(lambda: engine._scheduler._worker is None)
    assert stream._generation.cache is None


# --- failures -----------------------------------------------------------------------------------


def test_an_error_in_a_step_reaches_every_caller_and_hangs_none(
    engine: LocalEngine, passes: Passes
) -> None:
    expected = tokens_of(engine.generate(ask()))
    passes.gate.clear()
    streams = [engine.generate(ask(10 * number)) for number in range(1, 5)]

    async def by_loop() -> None:
        await async_tokens(engine, ask())

    wait_for(lambda: len(passes.tokens) > 8)
    passes.errors = [RuntimeError("broken")] * 3
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(list, stream) for stream in streams]
        jobs.append(pool.submit(asyncio.run, by_loop()))
        wait_for(lambda: engine._scheduler.uses(None) == 5)
        passes.gate.set()
        errors = [job.exception() for job in jobs]
    assert [type(error) for error in errors] == [EngineError] * 5
    assert all("broken" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 5
    passes.errors = []
    assert tokens_of(engine.generate(ask())) == expected


def test_running_out_of_memory_halves_the_batch_and_goes_on(
    engine: LocalEngine, passes: Passes
) -> None:
    requests = [ask(10 * number) for number in range(1, 11)]
    expected = [tokens_of(engine.generate(request)) for request in requests]
    passes.most_sequences = 3
    streams = [engine.generate(request) for request in requests]
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(tokens_of, streams)) == expected
    assert engine.statistics.memory_shortages >= 1
    passes.most_sequences = None
    del passes.sequences[:]
    streams = [engine.generate(request) for request in requests]
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(tokens_of, streams)) == expected
    assert max(passes.sequences) > 3, "the batch stayed small"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no room"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: no room"),
    ],
)
def test_one_request_without_memory_fails_alone(
    engine: LocalEngine, passes: Passes, error: Exception
) -> None:
    passes.errors = [error]
    with pytest.raises(EngineError, match=r"Memory ran out with a single sequence .* no room"):
        list(engine.generate(ask()))
    assert len(list(engine.generate(ask()))) == 8


def test_a_broken_scheduler_hangs_nobody(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise AssertionError("a defect of ours")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(engine._scheduler, "_choose", broken)
        with pytest.raises(EngineError, match="a defect of ours"):
            next(engine.generate(ask()))
    assert len(list(engine.generate(ask()))) == 8


def test_scores_and_vectors_without_memory_do_without_the_prefix_cache(
    engine: LocalEngine, passes: Passes
) -> None:
    expected = engine.score(range(10, 60), [[7, 8]])
    assert engine.prefix_statistics.nbytes > 0
    passes.errors = [torch.OutOfMemoryError("no room")]
    again = engine.score(range(10, 60), [[7, 8]])
    assert again[0] == pytest.approx(expected[0], abs=1e-4)
    assert passes.errors == []
    passes.errors = [torch.OutOfMemoryError("no room")] * 2
    with pytest.raises(EngineError, match=r"Memory ran out: no room\. Shorten the texts"):
        engine.score(range(10, 60), [[7, 8]])
    assert len(engine.embed([[1, 2]])) == 1


# --- leaving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "forget", "never start"])
def test_who_leaves_frees_the_place_within_two_tokens(
    loaded: LoadedModel, passes: Passes, leave: str
) -> None:
    engine = LocalEngine(loaded, max_batch_size=1)
    stream: Any = engine.generate(ask(new=100))
    if leave != "never start":
        next(stream)
    if leave == "close":
        stream.close()
        assert next(stream, None) is None
    else:
        del stream
        gc.collect()
    assert len(list(engine.generate(ask(50)))) == 8
    assert len(passes.tokens) <= 4 + 8
    assert engine._scheduler.uses(None) == 0


def test_a_cancelled_task_frees_the_place_within_two_tokens(
    loaded: LoadedModel, passes: Passes
) -> None:
    engine = LocalEngine(loaded, max_batch_size=1)

    async def cancel() -> None:
        task = asyncio.create_task(async_tokens(engine, ask(new=100)))
        while len(passes.tokens) < 5:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        at_cancel = len(passes.tokens)
        assert len(await async_tokens(engine, ask(50))) == 8
        assert len(passes.tokens) <= at_cancel + 2 + 8

    asyncio.run(cancel())


def test_a_closed_event_loop_stops_its_requests(loaded: LoadedModel, passes: Passes) -> None:
    engine = LocalEngine(loaded)
    loop = asyncio.new_event_loop()
    stream = engine.agenerate(ask(new=100))
    loop.run_until_complete(anext(stream))
    loop.close()
    wait_for(lambda: engine._scheduler._worker is None)
    assert len(passes.tokens) <= 4
    assert len(list(engine.generate(ask()))) == 8


def test_a_thousand_waiting_tasks_take_no_thread_each(engine: LocalEngine) -> None:
    async def count() -> int:
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            await async_tokens(engine, ask(10 + number, new=1))
            most = max(most, threading.active_count())

        before = threading.active_count()
        await asyncio.gather(*(one(number) for number in range(1000)))
        return most - before

    assert asyncio.run(count()) <= 2


def test_no_thread_stays_behind(engine: LocalEngine) -> None:
    list(engine.generate(ask()))
    wait_for(lambda: engine._scheduler._worker is None)
    assert not any("phi3-industry" in thread.name for thread in threading.enumerate())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_answers_by_itself(engine: LocalEngine) -> None:
    paused = engine.generate(ask(20))
    expected = tokens_of(engine.generate(ask()))
    wait_for(lambda: engine._scheduler._worker is None)
    engine._scheduler._changed.acquire()  # a fork may come while a thread holds the lock
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if tokens_of(engine.generate(ask())) == expected else 1)
    engine._scheduler._changed.release()
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(paused)) == 8


# --- lengths ------------------------------------------------------------------------------------


def longrope_folder(folder: Path, *, switch: int) -> Path:
    return save_tiny_phi3(
        folder,
        max_position_embeddings=8 * switch,
        original_max_position_embeddings=switch,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [4.0, 4.4, 4.8, 5.2],
            "original_max_position_embeddings": switch,
        },
    )


def test_sequences_on_both_sides_of_the_rotary_switch_equal_plain_generation(
    tmp_path: Path,
) -> None:
    loaded = load_base_model(str(longrope_folder(tmp_path, switch=48)))
    engine = LocalEngine(loaded, prefill_chunk=16)
    lengths = [5, 30, 40, 46, 47, 48, 49, 50, 60, 100]
    prompts = [tuple(range(10 + length, 10 + 2 * length)) for length in lengths]
    expected = [plain_tokens(loaded.model, prompt, 16) for prompt in prompts]
    streams = [
        engine.generate(
            GenerationRequest(prompt_ids=prompt, sampling=SamplingParams(max_new_tokens=16))
        )
        for prompt in prompts
    ]
    with ThreadPoolExecutor(len(streams)) as pool:
        answers = list(pool.map(tokens_of, streams))
    for length, answer, wanted in zip(lengths, answers, expected, strict=True):
        assert answer == wanted[: len(answer)], length
    assert engine.statistics.recomputed >= 3


@pytest.mark.parametrize("reuse", [0, 10**6])
@pytest.mark.parametrize("prompt_chunk", [7, 4096])
def test_a_narrow_window_hides_what_lies_before_it(
    tmp_path: Path, prompt_chunk: int, reuse: int
) -> None:
    folder = save_tiny_phi3(tmp_path, sliding_window=12)
    loaded = load_base_model(str(folder))
    rng = random.Random(0)
    context = [rng.randrange(10, 2000) for _ in range(100)]
    prompts = [(*context[:length], 7) for length in (5, 10, 11, 12, 13, 40, 70, 100)]
    expected = [plain_tokens(loaded.model, prompt, 16) for prompt in prompts]
    engine = LocalEngine(loaded, prefill_chunk=prompt_chunk, prefix_cache_bytes=reuse)
    requests = [
        GenerationRequest(prompt_ids=prompt, sampling=SamplingParams(max_new_tokens=16))
        for prompt in prompts
    ]
    for request, wanted in zip(requests, expected, strict=True):
        alone = tokens_of(engine.generate(request))
        assert alone == wanted[: len(alone)]
    streams = [engine.generate(request) for request in requests]
    with ThreadPoolExecutor(len(streams)) as pool:
        answers = list(pool.map(tokens_of, streams))
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer == wanted[: len(answer)]
    assert (engine.prefix_statistics.hits > 0) == bool(reuse)


@pytest.mark.parametrize("prompt_chunk", [64, 4096])
def test_answers_beyond_the_sliding_window_equal_plain_generation(
    tmp_path: Path, prompt_chunk: int
) -> None:
    """Phi-3-mini-4k sees 2,047 tokens; here alone and in a batch, within and beyond."""
    folder = save_tiny_phi3(
        tmp_path,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        sliding_window=2047,
    )
    loaded = load_base_model(str(folder))
    rng = random.Random(0)
    lengths = [2036, 2046, 2047, 2048, 2100, 30]
    prompts = [tuple(rng.randrange(10, 2000) for _ in range(length)) for length in lengths]
    expected = [plain_tokens(loaded.model, prompt, 24) for prompt in prompts]
    engine = LocalEngine(loaded, prefill_chunk=prompt_chunk)
    requests = [
        GenerationRequest(prompt_ids=prompt, sampling=SamplingParams(max_new_tokens=24))
        for prompt in prompts
    ]
    streams = [engine.generate(request) for request in requests]
    with ThreadPoolExecutor(len(streams)) as pool:
        answers = list(pool.map(tokens_of, streams))
    for length, answer, wanted in zip(lengths, answers, expected, strict=True):
        assert answer == wanted[: len(answer)], length
    assert tokens_of(engine.generate(requests[0])) == answers[0]


def test_scores_and_vectors_beside_running_requests_are_the_same(
    engine: LocalEngine, adapter_folders: dict[str, Path]
) -> None:
    engine.load_adapter(adapter_folders["a1"], name="a1")
    texts = [[11, 12], list(range(20, 70)), [7]]
    scores = engine.score(range(30, 60), texts, adapter="a1")
    vectors = engine.embed(texts, adapter="a1")
    assert scores[1] != pytest.approx(engine.score(range(30, 60), texts)[1], abs=1e-2)
    stream = engine.generate(ask(new=300))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: len(list(stream)))
        for _ in range(5):
            again = engine.score(range(30, 60), texts, adapter="a1")
            for before, now in zip(scores, again, strict=True):
                assert now == pytest.approx(before, abs=1e-4)
            assert engine.embed(texts, adapter="a1") == pytest.approx(vectors, abs=1e-5)
        assert reading.result() > 0


@pytest.mark.parametrize("option", ["max_batch_size", "max_queue", "prefill_chunk"])
def test_senseless_options_are_refused(loaded: LoadedModel, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 0; it must be at least 1"):
        LocalEngine(loaded, **{option: 0})
