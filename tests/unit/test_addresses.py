"""Addresses of vector stores: what of them may be shown, and which begin at a folder."""

from __future__ import annotations

import pytest

from phi3_industry._addresses import holds_secret, local_folder, masked, moved, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@db:5432/kb?table=t", "postgresql://me:***@db:5432/kb?table=t"),
        ("postgresql://me:se/c@re:t@db/kb?table=t", "postgresql://me:***@db/kb?table=t"),
        ("postgresql://:secret@db/kb?table=t", "postgresql://:***@db/kb?table=t"),
        ("postgresql://me@db/kb?table=t&password=secret", "postgresql://me@db/kb?table=t&password=***"),
        ("qdrant+https://me:secret@db?collection=t", "qdrant+https://me:***@db?collection=t"),
        ("qdrant+http://db?api_key=secret&collection=t", "qdrant+http://db?api_key=***&collection=t"),
    ],
)  # fmt: skip
def test_secrets_are_masked(address: str, shown: str) -> None:
    assert masked(address) == shown
    assert holds_secret(address)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@db:5432/kb?table=t&words=simple",
        "qdrant+http://[::1]:6333?collection=t",
        "qdrant:C:/stores/q@home?collection=t",
        "folder",
    ],
)
def test_what_is_no_secret_is_shown(address: str) -> None:
    assert masked(address) == address
    assert not holds_secret(address)


def test_what_others_say_of_an_address_loses_its_secrets() -> None:
    address = "postgresql://me:p%40ss@db/kb?table=t"
    said = f"no route to {address}: bad user 'me', 'p@ss' or 'p%40ss'"
    shown = without_secrets(said, address)
    assert shown == "no route to postgresql://me:***@db/kb?table=t: bad user 'me', '***' or '***'"


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("qdrant:store?collection=t", "store"),
        ("qdrant:///data/store?collection=t", "/data/store"),
        ("chroma:a/b?collection=t", "a/b"),
        ("qdrant+http://127.0.0.1:6333?collection=t", None),
        ("postgresql://me@db/kb?table=t", None),
        ("folder", None),
    ],
)
def test_folders_are_found_and_moved(address: str, folder: str | None) -> None:
    assert local_folder(address) == folder
    assert (moved(address, lambda path: f"/elsewhere{path}") != address) is (folder is not None)
