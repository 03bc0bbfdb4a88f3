"""Phi3LLM with base_url: the same class, and a server computes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.base.llms.types import ChatMessage
from pydantic import BaseModel

from completion_server import CompletionServer, served
from phi3_industry import Phi3Embedding, Phi3LLM
from phi3_industry.engines.local import LocalEngine
from phi3_industry.errors import (
    AdapterError,
    AdapterNotFoundError,
    ConfigurationError,
    EngineError,
    PromptTooLongError,
)
from phi3_industry.models.loading import load_base_model
from tiny_models import save_random_adapter

MESSAGES = [
    ChatMessage(role="system", content="Answer."),
    ChatMessage(role="user", content="What is <|end|> P-4471?"),
]


@pytest.fixture(scope="module")
def pumps(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_adapter(tmp_path_factory.mktemp("pumps"), tiny_phi3, seed=3)


@pytest.fixture(scope="module")
def local(tiny_phi3: Path, pumps: Path) -> Phi3LLM:
    llm = Phi3LLM(str(tiny_phi3), dtype="float32", max_new_tokens=12)
    llm.load_adapter(pumps, "pumps")
    return llm


@pytest.fixture
def server(tiny_phi3: Path, pumps: Path) -> Iterator[CompletionServer]:
    engine = LocalEngine(load_base_model(str(tiny_phi3), dtype="float32"))
    engine.load_adapter(pumps, name="pumps")
    with served(CompletionServer(engine, context_window=200)) as server:
        yield server


@pytest.fixture
def remote(server: CompletionServer, tiny_phi3: Path) -> Phi3LLM:
    return Phi3LLM(str(tiny_phi3), base_url=server.url, max_new_tokens=12)


@pytest.mark.parametrize("adapter", [None, "pumps"])
def test_a_server_and_this_process_answer_alike(
    remote: Phi3LLM, local: Phi3LLM, adapter: str | None
) -> None:
    here = local.with_adapter(adapter).chat(MESSAGES, logprobs=True)
    there = remote.with_adapter(adapter).chat(MESSAGES, logprobs=True)
    assert there.message.content == here.message.content != ""
    assert there.raw["usage"] == here.raw["usage"]
    assert there.raw["adapter"] == adapter
    for [one], [other] in zip(here.logprobs or [], there.logprobs or [], strict=True):
        assert (one.token, one.logprob) == (other.token, pytest.approx(other.logprob, abs=1e-4))


async def test_every_kind_of_call_gives_the_same_text(remote: Phi3LLM) -> None:
    text = remote.chat(MESSAGES).message.content
    assert (await remote.achat(MESSAGES)).message.content == text
    assert "".join(piece.delta or "" for piece in remote.stream_chat(MESSAGES)) == text
    pieces = [piece.delta or "" async for piece in await remote.astream_chat(MESSAGES)]
    assert "".join(pieces) == text


def test_scores_come_from_the_server(remote: Phi3LLM, local: Phi3LLM) -> None:
    for one, other in zip(
        local.score("Which?", ["yes", "no way"]), remote.score("Which?", ["yes", "no way"]),
        strict=True,
    ):  # fmt: skip
        assert other == pytest.approx(one, abs=1e-4)


def test_no_weights_are_loaded(remote: Phi3LLM, server: CompletionServer) -> None:
    remote.chat(MESSAGES)
    assert not remote._shared.loaded
    with pytest.raises(ConfigurationError, match="without base_url"):
        remote.base_model  # noqa: B018 - asking for it is the test
    with pytest.raises((ConfigurationError, EngineError)):
        Phi3Embedding(llm=remote).get_text_embedding("pump")


def test_the_budget_is_the_servers(remote: Phi3LLM, server: CompletionServer) -> None:
    assert remote.metadata.context_window == 200
    with pytest.raises(PromptTooLongError, match="the context window holds 200"):
        remote.complete("pump " * 400)
    assert not server.completions


def test_objects_come_from_the_servers_grammar(remote: Phi3LLM, server: CompletionServer) -> None:
    class Found(BaseModel):
        known: bool

    answer = remote.as_structured_llm(Found).chat(MESSAGES, max_new_tokens=40)
    assert isinstance(answer.raw, Found)
    assert server.completions[0]["structured_outputs"]["json"]["required"] == ["known"]


def test_modules_of_the_server_are_its_adapters(remote: Phi3LLM, pumps: Path) -> None:
    assert remote.adapters == ("pumps",)
    with pytest.raises(AdapterNotFoundError, match="'valves'"):
        remote.with_adapter("valves")
    with pytest.raises(AdapterError, match="adapter_paths"):
        remote.with_adapter("pumps").adapter_manifest()


def test_the_folder_of_a_module_says_what_it_was_made_for(
    server: CompletionServer, tiny_phi3: Path, pumps: Path, local: Phi3LLM
) -> None:
    remote = Phi3LLM(str(tiny_phi3), base_url=server.url, adapter_paths={"pumps": str(pumps)})
    expert = remote.with_adapter("pumps")
    assert expert.adapter_manifest() == local.with_adapter("pumps").adapter_manifest()


def test_what_the_server_decides_cannot_be_set_here(server: CompletionServer) -> None:
    with pytest.raises(ConfigurationError, match=r"quantization='nf4'.*start the server"):
        Phi3LLM("embedded", base_url=server.url, quantization="nf4")


def test_the_key_stays_in_the_environment(
    server: CompletionServer, tiny_phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    monkeypatch.setenv("MY_KEY", "secret")
    remote = Phi3LLM(str(tiny_phi3), base_url=server.url, api_key_env="MY_KEY", max_new_tokens=4)
    copy = pickle.loads(pickle.dumps(remote))
    assert copy.chat(MESSAGES).message.content == remote.chat(MESSAGES).message.content
    assert "secret" not in str(remote.to_dict())
