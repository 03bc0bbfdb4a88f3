"""An adapter goes to a server on this machine that speaks as the hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.errors import AdapterMismatchError
from phi3_industry.finetuning.card import adapter_card
from phi3_industry.finetuning.publishing import push_adapter
from phi3_industry.models.manifest import read_manifest
from tiny_models import save_random_adapter

# huggingface_hub 2.4 hands a file to httpx by an argument that httpx is about to rename
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


class Hub(ThreadingHTTPServer):
    """Keeps what is committed, as the hub would."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.large: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.summaries: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers["Authorization"])
        path = self.path.split("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories[name] = asked
            self._answer({"url": f"{self.server.address}/{name}", "id": name})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [(f["path"], f["path"].endswith(".safetensors")) for f in files]
            self._answer(
                {
                    "files": [
                        {
                            "path": name,
                            "uploadMode": "lfs" if large else "regular",
                            "shouldIgnore": False,
                        }
                        for name, large in modes
                    ]
                }
            )
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.address}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                self._take(line["key"], line["value"])
            name = "/".join(path.split("/")[3:5])
            url = f"{self.server.address}/{name}/commit/{'1' * 40}"
            self._answer({"commitUrl": url, "commitOid": "1" * 40, "success": True})
        else:
            self.send_error(404, path)

    def do_PUT(self) -> None:
        body = self._body()
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _take(self, key: str, value: dict[str, Any]) -> None:
        if key == "header":
            self.server.summaries.append(value["summary"])
        elif key == "file":
            self.server.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.server.files[value["path"]] = self.server.large[value["oid"]]

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # the binary protocol of newer uploads needs a server of its own; this is the plain one
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def adapter(tiny_phi3: Path, tmp_path: Path) -> Path:
    return save_random_adapter(tmp_path / "pumps", tiny_phi3)


def test_what_arrives_is_the_adapter_with_a_card(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    (adapter / "notes.txt").write_text("not for others")
    url = push_adapter(adapter, "plant/pumps", token="secret", endpoint=hub.address)
    assert url == f"{hub.address}/plant/pumps/commit/{'1' * 40}"
    assert hub.tokens == {"Bearer secret"}
    assert hub.repositories["plant/pumps"]["visibility"] == "private"
    assert hub.summaries == ["Add the lora adapter for tiny-phi30"]
    arrived = tmp_path / "arrived"
    for name, content in hub.files.items():
        (arrived / name).parent.mkdir(parents=True, exist_ok=True)
        (arrived / name).write_bytes(content)
    assert set(hub.files) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "phi3_industry.json",
    }
    assert read_manifest(arrived) == read_manifest(adapter)
    assert "# plant/pumps" in (arrived / "README.md").read_text(encoding="utf-8")


def test_damaged_adapter_is_not_sent(hub: Hub, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AdapterMismatchError, match=r"SHA-256 of adapter_model\.safetensors"):
        push_adapter(adapter, "plant/pumps", token="secret", endpoint=hub.address)
    assert not hub.repositories


def test_own_card_takes_the_place_of_the_generated_one(hub: Hub, adapter: Path) -> None:
    push_adapter(adapter, "plant/pumps", token="x", endpoint=hub.address, card="# Ours\n")
    assert hub.files["README.md"] == b"# Ours\n"


def test_card_says_what_was_measured_and_names_a_known_base_alone(adapter: Path) -> None:
    from dataclasses import replace

    score = {"rows": 20, "tokens": 90, "loss": 1.5, "exact": 4}
    metrics = {
        "verdict": "worse",
        "before": {"replay": score},
        "after": {"replay": {**score, "exact": 1, "loss": 2.0}},
        "learning_rate": 0.002,
    }
    manifest = replace(read_manifest(adapter), metrics=metrics)
    card = adapter_card(manifest, title="plant/pumps")
    assert "| replay | 20 | 4 → 1 | 1.500 → 2.000 |" in card
    assert "WORSE" in card
    assert "- learning rate: 0.002" in card
    assert "base_model" not in card
    known = replace(manifest, base_model="microsoft/Phi-3-mini-4k-instruct", metrics={})
    card = adapter_card(known, title="plant/pumps")
    assert card.startswith("---\nlibrary_name: peft\n")
    assert "base_model: microsoft/Phi-3-mini-4k-instruct\n" in card
    assert "nothing shows whether the adapter helps" in card
