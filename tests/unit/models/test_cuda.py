"""Loading onto a CUDA device; run with ``make test-gpu``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from family_models import save_family_member
from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.loading import load_base_model
from phi3_industry.models.memory import available_memory

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("quantization", "least"), [(None, 0.999), ("int8", 0.95), ("nf4", 0.85)])
def test_the_gpu_computes_what_the_cpu_does(
    tmp_path: Path, quantization: Any, least: float
) -> None:
    folder = save_family_member(tmp_path, KNOWN_CHECKPOINTS["microsoft/phi-4"])
    expected = load_base_model(str(folder), device="cpu", dtype="float32")
    loaded = load_base_model(str(folder), quantization=quantization)
    assert loaded.device == "cuda:0"
    assert loaded.dtype in ("bfloat16", "float16")
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"cuda"}
    ids = torch.tensor([loaded.chat_format.encode_messages([{"role": "user", "content": "P-7?"}])])
    with torch.inference_mode():
        found = loaded.model(ids.to("cuda")).logits.float().cpu().flatten()
        exact = expected.model(ids).logits.flatten()
    assert torch.nn.functional.cosine_similarity(found, exact, dim=0) > least


def test_free_memory_is_that_of_the_device() -> None:
    assert available_memory("cuda:0") == pytest.approx(torch.cuda.mem_get_info(0)[0], rel=0.05)
