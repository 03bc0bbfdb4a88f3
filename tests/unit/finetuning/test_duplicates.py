"""Near-duplicates, in any script."""

from __future__ import annotations

import random

import pytest

from phi3_industry.finetuning.duplicates import find_copies, near_duplicates

LONG = "The service interval of the return pump is given in the maintenance manual of the hall"
CHINESE = "回流泵的维修间隔在大厅的维护手册中给出，每次启动前请检查油位并记录日期和负责人姓名"


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        (LONG, LONG.upper() + "!"),
        (LONG, "  " + LONG.replace(" of the hall", " of the  halls")),
        (CHINESE, CHINESE + "。"),
        ("泵", "泵"),
    ],
)
def test_nearly_equal_texts_are_found(text: str, copy: str) -> None:
    assert find_copies([copy], ["something else entirely", text]) == [0]
    assert near_duplicates([text, "something else entirely", copy]) == [2]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (f"{LONG} 12", f"{LONG} 13"),  # another number is another fact
        (f"{CHINESE}12", f"{CHINESE}13"),
        (LONG, LONG.replace("return pump", "boiler").replace("hall", "steam house")),
        (LONG, ""),
    ],
)
def test_other_facts_are_kept(text: str, other: str) -> None:
    assert find_copies([other], [text]) == []


def test_random_texts_of_the_same_letters_are_no_copies() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh ", k=80)) for _ in range(200)]
    assert near_duplicates(texts) == []
