"""Texts that say the same are told from texts that say something else in like words."""

from __future__ import annotations

import pytest

from phi3_industry.retrievers.near_duplicates import fingerprint, resemblance

LONG = " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(100))


def alike(first: str, second: str) -> float:
    return resemblance(fingerprint(first), fingerprint(second))


def test_resemblance_is_the_share_of_common_shingles():
    # abc bcd cde against abc bcd cdf: two of four
    assert alike("aa bb cc dd ee", "aa bb cc dd ff") == pytest.approx(2 / 4)
    assert alike("aa bb", "aa bb") == 1.0
    assert alike("aa bb", "cc dd") == 0.0
    assert alike("", "") == 1.0


def test_case_width_and_spacing_make_no_difference():
    assert alike("Fast  pump: 38.2 bar", "fast pump: 38.2 ｂａｒ") == 1.0


def test_one_word_of_many_makes_little_difference_in_any_script():
    assert alike(LONG, LONG.replace("wordkc", "other")) > 0.9
    chinese = "".join(chr(0x4E00 + 7 * n) for n in range(200))
    assert alike(chinese, chinese[:100] + "一" + chinese[100:]) > 0.9


@pytest.mark.parametrize("change", ["P-4472", "4471", "P-4471 twice P-4471"])
def test_another_number_or_code_makes_another_text(change):
    assert alike(f"{LONG} P-4471", f"{LONG} {change}") == 0.0
