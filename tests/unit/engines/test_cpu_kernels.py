from __future__ import annotations

import platform
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_requests import tokens_of

from phi3_industry.engines.base import GenerationRequest, SamplingParams
from phi3_industry.engines.cpu_kernels import single_token_kernels
from phi3_industry.engines.local import LocalEngine
from phi3_industry.errors import EngineError
from phi3_industry.models.loading import load_base_model
from tiny_models import save_tiny_phi3

X86 = platform.machine().lower() in ("x86_64", "amd64")
REQUEST = GenerationRequest(
    prompt_ids=tuple(range(10, 30)), sampling=SamplingParams(max_new_tokens=4)
)


def kernels_by_tokens(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> dict[int, bool]:
    """Say for each number of tokens in a pass whether oneDNN was on."""
    seen: dict[int, bool] = {}
    forward = engine.loaded.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen[kwargs["input_ids"].shape[1]] = torch.backends.mkldnn.enabled
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.loaded.model, "forward", watched)
    return seen


@pytest.mark.parametrize(
    ("dtype", "quantization", "expected"),
    [("bfloat16", None, not X86), ("float32", None, True), ("bfloat16", "nf4", not X86)],
)
def test_one_dnn_is_off_for_single_tokens_where_weights_are_bfloat16(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    quantization: Any,
    expected: bool,
) -> None:
    # bitsandbytes multiplies on a CPU in blocks of 32 rows and 64 columns
    folder = save_tiny_phi3(tmp_path, hidden_size=128, intermediate_size=128)
    engine = LocalEngine(load_base_model(str(folder), dtype=dtype, quantization=quantization))
    seen = kernels_by_tokens(engine, monkeypatch)
    assert len(tokens_of(engine.generate(REQUEST))) == 4
    assert seen == {20: True, 1: expected}
    assert torch.backends.mkldnn.enabled


def test_the_switch_is_put_back_after_an_error(
    tiny_phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(load_base_model(str(tiny_phi3), dtype="bfloat16"))
    forward = engine.loaded.model.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] == 1:
            raise RuntimeError("broken")
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.loaded.model, "forward", broken)
    with pytest.raises(EngineError, match="broken"):
        tokens_of(engine.generate(REQUEST))
    assert torch.backends.mkldnn.enabled


def test_threads_that_overlap_leave_the_switch_as_it_was() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with single_token_kernels():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other, daemon=True)
    with single_token_kernels():
        thread.start()
        entered.wait()
    assert not torch.backends.mkldnn.enabled
    leave.set()
    thread.join()
    assert torch.backends.mkldnn.enabled
