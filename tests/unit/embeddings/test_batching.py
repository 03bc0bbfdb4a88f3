"""Texts of like length share a batch, and a batch is halved where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phi3_industry.embeddings.batching import halved_without_memory, like_length_batches
from phi3_industry.errors import EngineError


def test_texts_of_like_length_share_a_batch():
    assert like_length_batches([5, 100, 6, 99, 1], tokens=200) == [[1, 3], [2, 0, 4]]
    assert like_length_batches([7, 7, 7], tokens=14) == [[0, 1], [2]]
    assert like_length_batches([], tokens=10) == []


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 600))
def test_each_text_is_in_one_batch_within_the_budget(lengths, tokens):
    batches = like_length_batches(lengths, tokens=tokens)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        width = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * width <= tokens


class Device:
    """Computes lengths, and has room for so many texts."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error = room, error
        self.sizes: list[int] = []

    def compute(self, texts: Sequence[str]) -> list[int]:
        self.sizes.append(len(texts))
        if len(texts) > self.room:
            raise self.error
        return [len(text) for text in texts]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_without_memory_a_batch_is_halved_and_keeps_its_order(error):
    device = Device(2, error)
    assert halved_without_memory(device.compute, ["a", "bb", "ccc", "dddd", "eeeee"]) == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    assert device.sizes == [5, 2, 3, 1, 2]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_single_text_without_memory_is_an_error_that_says_what_to_do(error):
    with pytest.raises(EngineError, match=r"single text of 3 characters.* Lower max_length"):
        halved_without_memory(Device(0, error).compute, ["abc", "de"])


def test_another_error_is_raised_as_it_is():
    device = Device(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        halved_without_memory(device.compute, ["a", "b"])
    assert device.sizes == [2]
