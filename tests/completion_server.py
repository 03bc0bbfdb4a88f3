"""A server that speaks vLLM's completions, computed by our own engine, and fails as it is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from phi3_industry.engines.base import GenerationRequest, Grammar, SamplingParams
from phi3_industry.engines.local import LocalEngine

MODEL = "base-model"


@dataclass
class CompletionServer:
    """The double of a server.

    Attributes:
        engine: Computes the answers.
        owner: Who it says made its models; ``"vllm"`` promises the extensions.
        context_window: What it says of its window.
        runtime_adapters: Whether adapters may be loaded while it runs.
        failures: Status codes of the next replies; ``200`` lets one through.
        break_after: Chunks after which a stream is cut off; ``None`` for never.
        stall_after: Chunks after which a stream falls silent until its reader leaves.
        hide_usage: Whether to keep the token counts.
        hide_scores: Whether to keep the log probabilities.
        texts_only: Whether to refuse prompts as token ids, as ``transformers serve`` does.
        leaves_stop: Whether a stop text stays at the end of an answer, as that server leaves it.
        unlisted: Whether to keep what it serves to itself.
        retry_after: Seconds that a reply which fails asks its reader to wait.
        spoiled: What is sent in place of a reply, or of the chunks of a stream.
        key: Key that requests must bring.
        requests: Paths and bodies of what was asked.
        gone: Set when a reader left before the end.
    """

    engine: LocalEngine
    owner: str = "vllm"
    context_window: int = 2048
    runtime_adapters: bool = False
    failures: list[int] = field(default_factory=list)
    break_after: int | None = None
    stall_after: int | None = None
    hide_usage: bool = False
    hide_scores: bool = False
    texts_only: bool = False
    leaves_stop: bool = False
    unlisted: bool = False
    retry_after: float | None = None
    spoiled: bytes | None = None
    key: str | None = None
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def completions(self) -> list[dict[str, Any]]:
        """The bodies of the completions that were asked for."""
        return [body for path, body in self.requests if path == "/v1/completions"]

    def models(self) -> list[dict[str, Any]]:
        if self.unlisted:
            return []
        base = {"id": MODEL, "object": "model", "created": 0, "owned_by": self.owner}
        if self.owner == "vllm":
            base["max_model_len"] = self.context_window
        modules = [{**base, "id": name, "parent": MODEL} for name in self.engine.adapters]
        return [{**base, "parent": None}, *modules]

    def chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self.texts_only:
            tokenizer = self.engine.loaded.chat_format.tokenizer
            body = {**body, "prompt": tokenizer(body["prompt"])["input_ids"]}
        request = _request(body)
        stops = request.sampling.stop if self.leaves_stop else ()
        for number, event in enumerate(self.engine.generate(request)):
            choice: dict[str, Any] = {"index": 0, "text": event.text, "finish_reason": None}
            if number == 0:  # as vLLM does, for a tokenizer that writes one
                choice["text"] = f" {event.text}"
            choice["logprobs"] = None
            if event.token_id is not None and body.get("return_token_ids"):
                choice["token_ids"] = [event.token_id]
            scored = request.sampling.logprobs and not self.hide_scores
            if scored and event.logprob is not None:
                choice["logprobs"] = {
                    "tokens": [event.text],
                    "token_logprobs": [event.logprob],
                    "text_offset": [0],
                    "top_logprobs": [{}],
                }
            choice["finish_reason"] = event.finish_reason
            if event.finish_reason == "stop" and stops:
                choice["text"] += stops[0]
            yield _completion([choice])
            if event.usage is not None and not self.hide_usage:
                usage = {
                    "prompt_tokens": event.usage.prompt_tokens,
                    "completion_tokens": event.usage.completion_tokens,
                    "total_tokens": event.usage.total_tokens,
                }
                yield {**_completion([]), "usage": usage}

    def scored(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = body["prompt"]
        adapter = None if body["model"] == MODEL else body["model"]
        [scores] = self.engine.score(ids[:1], [ids[1:]], adapter=adapter)
        given = [None, *({str(i): {"logprob": s}} for i, s in zip(ids[1:], scores, strict=True))]
        choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
        return _completion([{**choice, "prompt_logprobs": given}])


def _completion(choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 0,
        "model": MODEL,
        "choices": choices,
    }


def _request(body: dict[str, Any]) -> GenerationRequest:
    grammar = None
    if "structured_outputs" in body:
        schema = json.dumps(body["structured_outputs"]["json"])
        grammar = Grammar("json_schema", schema)
    return GenerationRequest(
        prompt_ids=tuple(body["prompt"]),
        sampling=SamplingParams(
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
            top_p=body["top_p"],
            top_k=body.get("top_k", 0),
            stop=tuple(body.get("stop", ())),
            seed=body.get("seed"),
            logprobs="logprobs" in body,
        ),
        adapter=None if body["model"] == MODEL else body["model"],
        grammar=grammar,
    )


@contextmanager
def served(server: CompletionServer) -> Iterator[CompletionServer]:
    """Serve on a free port of the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self._answer(json.loads(self.rfile.read(size)))

        def _answer(self, body: dict[str, Any]) -> None:
            server.requests.append((self.path, body))
            status = server.failures.pop(0) if server.failures else 200
            if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
                status = 401
            if status != 200:
                self._send(status, {"error": {"message": f"told to fail with {status}"}})
            elif self.path == "/v1/models":
                self._send(200, {"object": "list", "data": server.models()})
            elif self.path == "/v1/load_lora_adapter" and server.runtime_adapters:
                server.engine.load_adapter(body["lora_path"], name=body["lora_name"])
                self._send(200, {"status": "loaded"})
            elif self.path == "/v1/unload_lora_adapter" and server.runtime_adapters:
                server.engine.unload_adapter(body["lora_name"])
                self._send(200, {"status": "unloaded"})
            elif self.path != "/v1/completions":
                self._send(404, {"error": {"message": "Not Found"}})
            elif server.texts_only and not isinstance(body["prompt"], str):
                self._send(400, {"error": {"message": "prompt must be a string."}})
            elif body.get("stream"):
                self._stream(body)
            else:
                self._send(200, server.scored(body))

        def _send(self, status: int, reply: dict[str, Any]) -> None:
            data = json.dumps(reply).encode()
            if server.spoiled is not None and "choices" in reply:
                data = server.spoiled
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if server.retry_after is not None:
                self.send_header("Retry-After", str(server.retry_after))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                if server.spoiled is not None:
                    self.wfile.write(server.spoiled)
                    return
                for number, chunk in enumerate(server.chunks(body)):
                    if number == server.break_after:
                        return
                    if number == server.stall_after:
                        self._wait_until_left()
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                    self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                server.gone.set()

        def _wait_until_left(self) -> None:
            self.connection.settimeout(0.05)
            limit = time.monotonic() + 30
            while time.monotonic() < limit:
                try:
                    if not self.connection.recv(1):
                        raise ConnectionResetError
                except TimeoutError:
                    continue

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def unused_url() -> str:
    """Address at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"
