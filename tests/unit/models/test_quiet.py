from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from family_models import save_family_member
from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.loading import load_base_model


@pytest.fixture
def transformers_logs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """Logs, those of transformers among them, each once.

    transformers hands its records to the root logger only where the variable CI is set.
    """
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger("transformers"), "propagate", True)
        yield caplog


def test_int8_computes_without_a_warning_at_each_product(caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_base_model("embedded", quantization="int8", dtype="bfloat16")
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        loaded.model(torch.tensor([[5, 6, 7]]))
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
    logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert caplog.records[-1].message == "something else"


def test_a_published_configuration_loads_without_advice_to_its_authors(
    tmp_path: Path, transformers_logs: pytest.LogCaptureFixture
) -> None:
    known = KNOWN_CHECKPOINTS["microsoft/Phi-3.5-MoE-instruct"]
    folder = save_family_member(tmp_path, known)
    from transformers import modeling_rope_utils

    modeling_rope_utils.logger.warning_once.cache_clear()
    transformers_logs.clear()
    load_base_model(str(folder))
    assert not transformers_logs.records
    modeling_rope_utils.logger.warning("Unrecognized keys in `rope_parameters`: {'lnog_factor'}")
    assert len(transformers_logs.records) == 1
