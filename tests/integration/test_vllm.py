"""Phi3LLM on a real vLLM server: the answers of this process, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM
from pydantic import BaseModel

from phi3_industry import HybridQueryEngine, KnowledgeBase, Phi3LLM, load_embedding
from phi3_industry.errors import (
    AdapterError,
    AdapterNotFoundError,
    ConfigurationError,
    EngineError,
    PromptTooLongError,
    RequestTimeoutError,
)
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.grounding.questions import load_questions
from tiny_models import save_random_adapter
from vllm_server import VllmServer

PLANT = Path(__file__).parents[2] / "examples" / "plant"
KEY = "a key of the tests"
PROMPTS = 200
AT_ONCE = 32

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: save_random_adapter(tmp_path_factory.mktemp(name), "embedded", seed=seed)
        for seed, name in enumerate(("pumps", "valves"))
    }


@pytest.fixture(scope="module")
def server_of_the_module(adapters: dict[str, Path]) -> Iterator[VllmServer]:
    server = VllmServer(
        adapters={"pumps": adapters["pumps"]}, key=KEY, arguments=("--enforce-eager",)
    )
    yield server
    server.kill()


@pytest.fixture
def server(server_of_the_module: VllmServer) -> VllmServer:
    """A server that is running; a test may kill it."""
    if not server_of_the_module.is_running:
        server_of_the_module.start()
    return server_of_the_module


@pytest.fixture
def remote(server: VllmServer, monkeypatch: pytest.MonkeyPatch) -> Phi3LLM:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    return Phi3LLM("embedded", base_url=server.url, max_new_tokens=32)


@pytest.fixture(scope="module")
def local(adapters: dict[str, Path]) -> Phi3LLM:
    llm = Phi3LLM("embedded", dtype="float32", max_new_tokens=32)
    llm.load_adapter(adapters["pumps"], "pumps")
    return llm


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    embedding = load_embedding("embedded")
    with KnowledgeBase.open(tmp_path_factory.mktemp("plant"), embed_model=embedding) as base:
        base.add(PLANT / "documents")
        yield base


@pytest.fixture(scope="module")
def questions() -> list[str]:
    files = (PLANT / "questions.dev.jsonl", PLANT / "questions.train.jsonl")
    return [question.question for file in files for question in load_questions(file)][:PROMPTS]


@pytest.fixture(scope="module")
def prompts(plant: KnowledgeBase, questions: list[str]) -> list[list[ChatMessage]]:
    retriever = plant.as_retriever(similarity_top_k=3)
    found = [[node.get_content() for node in retriever.retrieve(text)] for text in questions]
    return [
        [ChatMessage(role=message["role"], content=message["content"]) for message in messages]
        for messages in map(DEFAULT_PROMPT.grounded, questions, found)
    ]


def text(llm: LLM, prompt: list[ChatMessage]) -> str:
    return llm.chat(prompt).message.content or ""


def test_greedy_answers_are_those_of_this_process(
    remote: Phi3LLM, local: Phi3LLM, prompts: list[list[ChatMessage]]
) -> None:
    assert len(prompts) == PROMPTS
    assert [text(remote, prompt) for prompt in prompts] == [text(local, p) for p in prompts]


def test_an_adapter_is_a_module_of_the_server(
    remote: Phi3LLM, local: Phi3LLM, prompts: list[list[ChatMessage]]
) -> None:
    assert remote.adapters == ("pumps",)
    experts = [llm.with_adapter("pumps") for llm in (remote, local)]
    there, here = ([text(expert, prompt) for prompt in prompts[:20]] for expert in experts)
    assert there == here
    assert there != [text(remote, prompt) for prompt in prompts[:20]]


def test_probabilities_and_scores_are_those_of_this_process(
    remote: Phi3LLM, local: Phi3LLM, prompts: list[list[ChatMessage]]
) -> None:
    there, here = (llm.chat(prompts[0], logprobs=True).logprobs or [] for llm in (remote, local))
    assert len(here) > 1
    for [one], [other] in zip(here, there, strict=True):
        assert (other.token, other.logprob) == (one.token, pytest.approx(one.logprob, abs=1e-3))
    given = ["38.2 bar", "no such thing"]
    for one, other in zip(local.score("P-4471?", given), remote.score("P-4471?", given),
                          strict=True):  # fmt: skip
        assert other == pytest.approx(one, abs=1e-3)


async def test_every_kind_of_call_gives_the_same_text(
    remote: Phi3LLM, prompts: list[list[ChatMessage]]
) -> None:
    expected = text(remote, prompts[1])
    assert (await remote.achat(prompts[1])).message.content == expected
    assert "".join(piece.delta or "" for piece in remote.stream_chat(prompts[1])) == expected
    pieces = [piece.delta or "" async for piece in await remote.astream_chat(prompts[1])]
    assert "".join(pieces) == expected


def test_a_seed_gives_the_same_sample(remote: Phi3LLM, prompts: list[list[ChatMessage]]) -> None:
    def sample(seed: int) -> str:
        answer = remote.chat(prompts[0], temperature=2.0, seed=seed)
        return answer.message.content or ""

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_objects_obey_the_servers_grammar(remote: Phi3LLM) -> None:
    class Reading(BaseModel):
        tag: Literal["P-4471", "P-4472"]
        known: bool

    answer = remote.as_structured_llm(Reading).chat(
        [ChatMessage(role="user", content="P-4471 has 38.2 bar.")], max_new_tokens=60
    )
    assert isinstance(answer.raw, Reading)


def test_a_prompt_beyond_the_servers_window_is_refused_before_it_is_sent(remote: Phi3LLM) -> None:
    window = remote.metadata.context_window
    with pytest.raises(PromptTooLongError, match=f"the context window holds {window}"):
        remote.complete("pump " * window)


async def test_many_at_once_get_their_own_answers(
    remote: Phi3LLM, prompts: list[list[ChatMessage]]
) -> None:
    replies = await asyncio.gather(*(remote.achat(prompt) for prompt in prompts[:AT_ONCE]))
    assert [reply.message.content for reply in replies] == [
        text(remote, prompt) for prompt in prompts[:AT_ONCE]
    ]


def test_the_query_engine_answers_and_cites_as_in_this_process(
    remote: Phi3LLM, local: Phi3LLM, plant: KnowledgeBase, questions: list[str]
) -> None:
    engines = [
        HybridQueryEngine(retriever=plant.as_retriever(similarity_top_k=3), llm=llm, strategy="rag")
        for llm in (remote, local)
    ]
    for question in questions[:10]:
        there, here = (engine.query(question) for engine in engines)
        assert str(there) == str(here)
        assert there.metadata["citations"] == here.metadata["citations"]


def test_adapters_come_and_go_while_it_runs(
    remote: Phi3LLM, adapters: dict[str, Path], prompts: list[list[ChatMessage]]
) -> None:
    remote.load_adapter(adapters["valves"], "valves")
    assert remote.adapters == ("pumps", "valves")
    own = text(remote.with_adapter("valves"), prompts[0])
    assert own != text(remote.with_adapter("pumps"), prompts[0])
    remote.unload_adapter("valves")
    assert remote.adapters == ("pumps",)


def test_names_that_it_does_not_serve_are_errors(
    remote: Phi3LLM, server: VllmServer, tmp_path: Path
) -> None:
    with pytest.raises(AdapterNotFoundError, match=r"'turbines'.*pumps"):
        remote.with_adapter("turbines").complete("pump")
    with pytest.raises(ConfigurationError, match=server.name):
        Phi3LLM("embedded", base_url=server.url, served_model="another").complete("pump")
    with pytest.raises(AdapterError):
        remote.load_adapter(tmp_path / "nothing", "nothing")


def test_a_wrong_key_is_an_error(server: VllmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "another key")
    with pytest.raises(ConfigurationError, match="api_key_env"):
        Phi3LLM("embedded", base_url=server.url).complete("pump")


def test_an_answer_that_is_left_ends_on_the_server(
    remote: Phi3LLM, server: VllmServer, prompts: list[list[ChatMessage]]
) -> None:
    stream = remote.with_adapter("pumps").stream_chat(prompts[0], max_new_tokens=1500)
    next(stream)
    assert server.requests_under_way() == 1
    stream.close()  # type: ignore[attr-defined]
    limit = time.monotonic() + 30
    while server.requests_under_way() and time.monotonic() < limit:
        time.sleep(0.1)
    assert server.requests_under_way() == 0


def test_a_server_that_hangs_is_left_in_time(remote: Phi3LLM, server: VllmServer) -> None:
    remote.complete("pump")
    server.pause()
    try:
        with pytest.raises(RequestTimeoutError, match="1 s"):
            remote.complete("pump", timeout_s=1.0)
    finally:
        server.resume()
    assert remote.complete("pump").text


def test_a_server_that_is_killed_gives_an_error_and_goes_on_when_it_is_back(
    remote: Phi3LLM, server: VllmServer, prompts: list[list[ChatMessage]]
) -> None:
    expected = text(remote, prompts[2])
    stream = remote.with_adapter("pumps").stream_chat(prompts[0], max_new_tokens=1500)
    next(stream)
    server.kill()
    with pytest.raises(EngineError, match=r"broke off after|connection to the server"):
        list(stream)
    with pytest.raises(EngineError, match="Start the server"):
        text(remote, prompts[2])
    server.start()
    assert text(remote, prompts[2]) == expected
