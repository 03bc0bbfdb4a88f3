from __future__ import annotations

import re
from pathlib import Path

import phi3_industry

ROOT = Path(__file__).parents[2]


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == phi3_industry.__version__


def test_the_package_and_its_metadata_have_one_version() -> None:
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    assert found.group(1) == phi3_industry.__version__
