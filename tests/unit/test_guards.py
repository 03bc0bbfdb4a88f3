"""Guards of the whole: public names, imports, a light bare import, no network."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_socket import SocketConnectBlockedError

import phi3_industry

PACKAGE = Path(phi3_industry.__file__).parent

# DESIGN: imports point one way. For each room, the rooms that it may import.
EVERYWHERE = {"errors", "_optional", "_addresses"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "_optional": set(),
    "_addresses": set(),
    "models": set(),
    "engines": {"models"},
    "llms": {"engines", "models"},
    # llms: Phi3Embedding computes with the weights of a Phi3LLM
    "embeddings": {"llms", "engines", "models"},
    "grounding": set(),
    "vector_stores": set(),
    "ingestion": set(),
    # grounding: training and the reranker ask for relevance in the same words
    "retrievers": {"vector_stores", "grounding"},
    "query_engine": {"retrievers", "grounding"},
    # embeddings: what identifies an embedding goes into the store's identity row
    "knowledge_base": {"query_engine", "retrievers", "vector_stores", "ingestion", "embeddings"},
    # what a worker is built from by plain values
    "ray_ingestion": {"ingestion", "embeddings"},
    "finetuning": {"llms", "models", "grounding"},
    "evaluation": {"query_engine", "grounding"},
    "__main__": {"cli"},
    "cli": {
        "evaluation",
        "finetuning",
        "knowledge_base",
        "embeddings",
        "llms",
        "models",
        "grounding",
        "query_engine",
        "ingestion",
        "vector_stores",
    },
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: relative imports hide where they point; write them in full")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "phi3_industry":
                names = [f"phi3_industry.{a.name}" for a in node.names if a.name != "__version__"]
        rooms |= {name.split(".")[1] for name in names if name.startswith("phi3_industry.")}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 30
    for path in files:
        room = room_of(path)
        assert room in ALLOWED, f"{path} is in no room of the design"
        beyond = imported_rooms(path) - ALLOWED[room] - EVERYWHERE - {room}
        assert not beyond, f"{path} imports {sorted(beyond)} against the arrows of the design"


def test_public_names_are_complete_sorted_and_resolve() -> None:
    names = phi3_industry.__all__
    assert names == sorted(names)
    assert set(names) == set(phi3_industry._MODULES) | {"__version__"}
    for name, module in phi3_industry._MODULES.items():
        assert getattr(phi3_industry, name).__module__ == module
    assert set(names) <= set(dir(phi3_industry))
    with pytest.raises(AttributeError, match="has no attribute 'Phi4'"):
        _ = phi3_industry.Phi4


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in finished.stdout.split()}


def test_a_bare_import_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "faiss", "peft", "numpy", "llama_index", "sqlite3"}
    assert not heavy & modules_after("import phi3_industry")
    assert not heavy & modules_after("import phi3_industry.cli")


@pytest.mark.parametrize(
    "module",
    [
        "query_engine.hybrid",
        "retrievers",
        "knowledge_base",
        "evaluation.compare",
        "vector_stores.faiss_sqlite",
        "llms",
        "embeddings",
        "finetuning.trainer",
        "finetuning.dataset",
        "finetuning.embedding",
    ],
)
def test_rooms_are_imported_without_torch(module: str) -> None:
    heavy = {"torch", "transformers", "faiss", "peft", "trl", "sentence_transformers", "matplotlib"}
    assert not heavy & modules_after(f"import phi3_industry.{module}")


def test_every_module_has_a_docstring_and_no_stub() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), path
        assert "raise NotImplementedError" not in text, path


def test_tests_reach_no_network_but_loopback() -> None:
    with (
        pytest.raises((SocketConnectBlockedError, UserWarning), match=r"192\.0\.2\.1"),
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as outside,
    ):
        outside.connect(("192.0.2.1", 80))  # an address that documentation is given
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
