"""What all tests share: one thread, and real tiny models."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import llama_index.core
import pytest

from phi3_industry import Phi3LLM
from tiny_models import save_tiny_phi3


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run asynchronous tests, each in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny models run many times faster on one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _the_global_tokenizer_stays() -> Iterator[None]:
    """Setting ``Settings.tokenizer`` changes it for every test that comes after."""
    before = llama_index.core.global_tokenizer
    yield
    llama_index.core.global_tokenizer = before


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Phi-3."""
    return save_tiny_phi3(tmp_path_factory.mktemp("tiny-phi3"))


@pytest.fixture(scope="session")
def embedded_llm() -> Phi3LLM:
    """The embedded model, loaded once. Do not load adapters into it: use ``tiny_llm``."""
    return Phi3LLM(model="embedded").load()


@pytest.fixture
def tiny_llm(tiny_phi3: Path) -> Phi3LLM:
    """A tiny random Phi-3 of a test's own."""
    return Phi3LLM(model=str(tiny_phi3), max_new_tokens=16)
