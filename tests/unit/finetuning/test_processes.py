"""Who trains what, of several processes."""

from __future__ import annotations

import pytest

from phi3_industry.errors import ConfigurationError
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.processes import ThisProcess, share_rows


def test_launcher_says_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    assert ThisProcess.from_environment() == ThisProcess()
    assert ThisProcess().leads
    for name, value in {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    }.items():
        monkeypatch.setenv(name, value)
    process = ThisProcess.from_environment()
    assert process == ThisProcess(rank=5, local_rank=1, count=8, sharded=True)
    assert not process.leads
    assert process.shares
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigurationError, match=r"FSDP_VERSION is 1, .* --fsdp_version 2"):
        ThisProcess.from_environment()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not ThisProcess.from_environment().shares


@pytest.mark.parametrize(
    ("batch", "accumulation", "count", "shared"),
    [(4, 1, 2, (2, 1)), (2, 8, 4, (2, 2)), (4, 3, 2, (2, 3)), (6, 6, 3, (6, 2))],
)
def test_a_step_keeps_its_rows_however_many_share_them(
    batch: int, accumulation: int, count: int, shared: tuple[int, int]
) -> None:
    config = FinetuneConfig(batch_size=batch, gradient_accumulation_steps=accumulation)
    recipe = share_rows(config.recipe(10**6), ThisProcess(count=count))
    assert (recipe.batch_size, recipe.gradient_accumulation_steps) == shared
    assert recipe.batch_size * recipe.gradient_accumulation_steps * count == batch * accumulation


def test_rows_that_cannot_be_shared_evenly_are_refused() -> None:
    config = FinetuneConfig(batch_size=4, gradient_accumulation_steps=1)
    with pytest.raises(ConfigurationError, match=r"4 x 1 rows .* 3 processes cannot share"):
        share_rows(config.recipe(10**6), ThisProcess(count=3))


def test_alone_a_process_computes_where_it_was_asked_to() -> None:
    assert ThisProcess().device("auto") == "auto"
    assert ThisProcess(sharded=True).device("cpu") == "cpu"
