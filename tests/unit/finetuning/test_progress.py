"""When a run has lost its way."""

from __future__ import annotations

import math

import pytest

from phi3_industry.finetuning.progress import diverges

BEGINNING = [4.0, 3.9, 4.1, 4.0, 4.0]  # 4.0 on average: above 6.0 is lost


@pytest.mark.parametrize(
    ("losses", "lost"),
    [
        ([], False),
        ([math.nan], True),
        ([*BEGINNING, 0.1, math.inf], True),
        ([*BEGINNING, 0.1, 0.1, 9.0, 0.1, 0.1, 0.1], False),
        ([*BEGINNING, 6.1, 7.0, 6.2, 9.0, 6.3], True),
        ([*BEGINNING, 6.1, 7.0, 5.9, 9.0, 6.3], False),
        ([0.01] * 5 + [0.9] * 5, False),  # ninety times as much, and still small
        ([0.01] * 5 + [1.1] * 5, True),
        ([9.0] * 9, False),
    ],
)
def test_run_is_lost_with_its_number_or_five_steps_above_its_beginning(
    losses: list[float], lost: bool
) -> None:
    assert diverges(losses) is lost
