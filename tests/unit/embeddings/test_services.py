"""Embedding services over their real wire format, on a server of our own that misbehaves."""

from __future__ import annotations

import base64
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.jinaai import JinaEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding

from phi3_industry.embeddings import embedding_identity, load_embedding
from phi3_industry.errors import EngineError

KEY = "secret-key-1234"
Change = Callable[[dict[str, Any]], object]


@dataclass
class Service:
    """Embeds a text as the number of its characters, and fails as it is told.

    Attributes:
        url: Its address.
        requests: What it was asked, with the headers.
        failures: Status and body of the next replies.
        change: Changes the next good replies.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    change: Change | None = None

    def reply(self, asked: dict[str, Any]) -> tuple[int, str]:
        if self.failures:
            return self.failures.pop(0)
        size = asked.get("dimensions") or 4
        data = []
        for index, text in enumerate(asked["input"]):
            numbers: Any = [float(len(text))] + [1.0] * (size - 1)
            if asked.get("encoding_format") == "base64":
                numbers = base64.b64encode(np.array(numbers, dtype="float32")).decode()
            data.append({"object": "embedding", "index": index, "embedding": numbers})
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = {"object": "list", "model": asked["model"], "data": data, "usage": usage}
        changed = self.change(body) if self.change else None
        return 200, json.dumps(body if changed is None else changed)


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.requests.append({**asked, "path": self.path, "key": self.headers["Authorization"]})
            status, body = told.reply(asked)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body.encode())))
            self.send_header("Retry-After", "0")
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield told
        server.shutdown()


@pytest.fixture(params=["text-embedding-3-small", "jina-embeddings-v3"])
def model(request: pytest.FixtureRequest, service: Service) -> BaseEmbedding:
    return load_embedding(request.param, api_key=KEY, api_base=service.url, max_retries=2)


def test_vectors_come_from_the_service_with_key_and_model(model, service):
    assert isinstance(model, OpenAIEmbedding | JinaEmbedding)
    assert model.get_text_embedding_batch(["a", "bb"]) == [[1.0, 1, 1, 1], [2.0, 1, 1, 1]]
    assert model.get_query_embedding("ccc") == [3.0, 1, 1, 1]
    assert model.get_text_embedding("line\nbreak") == [10.0, 1, 1, 1]
    assert [asked["input"] for asked in service.requests] == [
        ["a", "bb"],
        ["ccc"],
        ["line\nbreak"],
    ]
    for asked in service.requests:
        assert (asked["path"], asked["key"]) == ("/v1/embeddings", f"Bearer {KEY}")
        assert asked["model"] == model.model_name
    assert model.get_text_embedding_batch([]) == []


async def test_async_gives_the_same_and_waits_for_a_busy_service_too(model, service):
    service.failures = [(429, '{"error": {"message": "slow down"}, "detail": "slow down"}')]
    assert await model.aget_text_embedding_batch(["a", "bb"]) == [[1.0, 1, 1, 1], [2.0, 1, 1, 1]]
    assert await model.aget_query_embedding("ccc") == [3.0, 1, 1, 1]
    assert await model.aget_text_embedding("dd") == [2.0, 1, 1, 1]
    assert len(service.requests) == 4
    if isinstance(model, OpenAIEmbedding):
        await model._get_aclient().close()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(model, service, status):
    service.failures = [(status, '{"detail": "busy"}')] * 2
    assert model.get_text_embedding("a") == [1.0, 1, 1, 1]
    assert len(service.requests) == 3


def test_a_service_that_stays_busy_is_an_error_after_the_last_retry(model, service):
    service.failures = [(429, '{"detail": "busy"}')] * 50
    with pytest.raises(EngineError, match=rf"service of '{model.model_name}' failed: .*429"):
        model.get_text_embedding("a")
    assert len(service.requests) == 3


def test_a_refused_key_is_an_error_at_once_that_does_not_tell_it(model, service):
    reply = {"error": {"message": f"bad key {KEY}"}, "detail": f"bad key {KEY}"}
    service.failures = [(401, json.dumps(reply))]
    with pytest.raises(EngineError, match=r"bad key \*\*\*.* Check the key") as caught:
        model.get_text_embedding("a")
    assert KEY not in str(caught.value)
    assert len(service.requests) == 1


def drop_one(body: dict[str, Any]) -> None:
    body["data"].pop()


def set_first(value: object) -> Change:
    def change(body: dict[str, Any]) -> None:
        body["data"][0]["embedding"] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_one, "1 vectors for 2 texts"),
        (lambda body: body["data"].append(body["data"][0]), "3 vectors for 2 texts"),
        (set_first([1.0]), "vector of 4 numbers where 1 were expected"),
        (set_first([]), "vector of 0 numbers"),
        (set_first([1.0, float("nan"), 1, 1]), "something else than finite numbers"),
        (set_first([1.0, None, 1, 1]), "something else than finite numbers"),
        (set_first(None), "failed|broken reply: a vector of no list"),
        (lambda body: body["data"][0].pop("embedding"), "failed|broken reply"),
        (lambda body: [], "failed"),
        (lambda body: {"data": "no"}, "failed"),
        (lambda body: {}, "failed"),
    ],
)
async def test_a_broken_reply_is_an_error_and_never_a_wrong_vector(model, service, change, message):
    service.change = change
    with pytest.raises(EngineError, match=message):
        model.get_text_embedding_batch(["a", "bb"])
    with pytest.raises(EngineError, match=message):
        await model.aget_text_embedding_batch(["a", "bb"])


@pytest.mark.parametrize("body", ["<html>a proxy</html>", '{"data": [{"ind', ""])
def test_a_reply_that_is_no_json_is_an_error(model, service, body):
    service.failures = [(200, body)] * 20
    with pytest.raises(EngineError, match="failed"):
        model.get_text_embedding("a")


def test_a_reply_in_another_order_is_put_in_order(model, service):
    service.change = lambda body: body["data"].reverse()
    assert model.get_text_embedding_batch(["a", "bb"]) == [[1.0, 1, 1, 1], [2.0, 1, 1, 1]]


@pytest.mark.parametrize("name", ["text-embedding-3-large", "jina-embeddings-v4"])
def test_fewer_dimensions_are_asked_for_and_expected(service, name):
    model = load_embedding(name, api_key=KEY, api_base=service.url, dimensions=8)
    assert len(model.get_text_embedding("a")) == 8
    assert service.requests[0]["dimensions"] == 8
    service.change = set_first([1.0])
    with pytest.raises(EngineError, match="vector of 1 numbers where 8 were expected"):
        model.get_text_embedding("a")
    assert embedding_identity(model)["dimensions"] == 8


def test_a_service_that_is_not_there_is_an_error(service):
    for name in ("text-embedding-3-small", "jina-embeddings-v3"):
        # nobody listens on port 1
        model = load_embedding(name, api_key=KEY, api_base="http://127.0.0.1:1/v1", max_retries=0)
        with pytest.raises(EngineError, match=f"service of '{name}' failed: .*[Cc]onnection"):
            model.get_text_embedding("a")


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("jina-embeddings-v2-base-en", (None, None)),
        ("jina-embeddings-v3", ("retrieval.query", "retrieval.passage")),
        ("jina-embeddings-v4", ("retrieval.query", "retrieval.passage")),
    ],
)
def test_jina_is_told_what_is_a_query(service, name, tasks):
    model = load_embedding(name, api_key=KEY, api_base=service.url)
    model.get_query_embedding("a")
    model.get_text_embedding("a")
    assert tuple(asked.get("task") for asked in service.requests) == tasks
    identity = embedding_identity(model)
    assert (identity.get("query_task"), identity.get("text_task")) == tasks
    same = load_embedding(name, api_key=KEY, api_base=service.url, task="text-matching")
    assert embedding_identity(same)["query_task"] == "text-matching"


def test_a_task_for_all_is_passed_on(service):
    model = load_embedding(
        "jina-embeddings-v3", api_key=KEY, api_base=service.url, task="text-matching"
    )
    model.get_query_embedding("a")
    assert service.requests[0]["task"] == "text-matching"


def test_the_cache_keeps_queries_and_texts_apart(service):
    model = load_embedding(
        "jina-embeddings-v3", api_key=KEY, api_base=service.url, embeddings_cache=SimpleKVStore()
    )
    for _ in range(2):
        model.get_query_embedding("a")
        model.get_text_embedding("a")
    assert [asked["task"] for asked in service.requests] == ["retrieval.query", "retrieval.passage"]


def test_the_key_is_in_no_dictionary_and_a_pickle_works(model, service, monkeypatch):
    settings = model.to_dict()
    assert KEY not in json.dumps(settings)
    assert KEY not in repr(model)
    assert KEY not in json.dumps(model.to_payload())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("JINAAI_API_KEY", KEY)
    for again in (type(model).from_dict(settings), pickle.loads(pickle.dumps(model))):
        assert again.get_text_embedding("a") == [1.0, 1, 1, 1]
        assert service.requests[-1]["key"] == f"Bearer {KEY}"
        assert embedding_identity(again) == embedding_identity(model)


def test_identity_of_services():
    known = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
    for name, dimensions in known.items():
        assert embedding_identity(load_embedding(name, api_key=KEY)) == {
            "embedding_model": name,
            "dimensions": dimensions,
        }
    assert embedding_identity(load_embedding("jina-embeddings-v3", api_key=KEY)) == {
        "embedding_model": "jina-embeddings-v3",
        "query_task": "retrieval.query",
        "text_task": "retrieval.passage",
    }
