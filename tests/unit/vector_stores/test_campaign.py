"""A small round of each case of benchmarks/crash_campaign.py; nothing may go wrong in any."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[3] / "benchmarks" / "crash_campaign.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the campaign forks")


def run(*arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, str(CAMPAIGN), *arguments], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def totals(table: str) -> list[int]:
    (line,) = re.findall(r"^all  .*$", table, flags=re.MULTILINE)
    return [int(number.replace(",", "")) for number in line.split()[1:]]


def test_nothing_goes_wrong():
    cases = ["disk", "malice", "swap", "writers"]
    if shutil.which("cc"):
        cases.append("write")
    chosen = [argument for case in cases for argument in ("--case", case)]
    old, new, refused, wrong = totals(run(*chosen, "--trials", "5"))
    assert wrong == 0
    assert min(old, new, refused) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("case", ["damage", "readers", "kill"])
def test_nothing_goes_wrong_in_the_longer_cases(case):
    assert totals(run("--case", case, "--trials", "100"))[3] == 0


def test_what_goes_wrong_is_counted_and_fails_the_run(tmp_path):
    """The campaign itself: a wrong outcome is shown, counted and is the exit status."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.argv = ['campaign', '--case', 'swap']\n"
        "import crash_campaign, damaged_stores\n"
        "damaged_stores.NODES = 24; damaged_stores.answers = lambda folder: object()\n"
        "sys.exit(crash_campaign.main())\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(CAMPAIGN.parent)], capture_output=True, text=True
    )
    assert finished.returncode == 1, finished.stderr
    assert totals(finished.stdout)[3] == 8
    assert "WRONG: another answer" in finished.stdout
