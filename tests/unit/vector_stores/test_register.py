from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi3_industry.errors import StoreCorruptError, StoreError, StoreLockedError
from phi3_industry.vector_stores.others.register import (
    REGISTER_NAME,
    Register,
    registered_properties,
)


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    made = Register(tmp_path / "kb", read_only=False)
    yield made
    made.close()


def test_nothing_is_made_before_something_is_written(register: Register) -> None:
    assert (register.count, register.has_nodes, register.hashes()) == (0, False, {})
    assert register.node_ids("d") == register.all_node_ids() == register.sample(4) == []
    assert not register.folder.exists()


def test_a_document_is_whole_only_from_announcement_to_next_change(register: Register) -> None:
    register.announce_document("d", "hash", ["a", "b"])
    assert register.hashes() == {"d": "hash"}
    assert register.unfinished() == {"d"}
    assert register.documents() == {"d": None}
    assert (register.count, register.node_ids("d")) == (0, ["a", "b"])
    register.finish_document("d", gone=["a"])
    assert (register.count, register.documents(), register.unfinished()) == (
        1,
        {"d": "hash"},
        set(),
    )
    register.announce([("b", "d")])
    assert register.documents() == {"d": None}
    assert register.hashes() == {}


def test_a_node_that_moves_takes_the_hash_of_both_documents(register: Register) -> None:
    for name, node_ids in (("d", ["a", "b"]), ("e", ["c"]), ("f", ["g"])):
        register.announce_document(name, f"hash of {name}", node_ids)
        register.finish_document(name, gone=[])
    register.announce([("a", "e")])
    register.confirm(["a"])
    assert register.hashes() == {"f": "hash of f"}
    assert (register.node_ids("d"), register.node_ids("e")) == (["b"], ["c", "a"])


def test_deleting_is_remembered_until_it_is_done(register: Register) -> None:
    register.announce_document("d", "hash", ["a"])
    register.finish_document("d", gone=[])
    register.announce_removal("d")
    assert (register.unfinished(), register.node_ids("d")) == ({"d"}, ["a"])
    register.forget_document("d")
    assert (register.hashes(), register.has_nodes, register.documents()) == ({}, False, {})


def test_documents_without_nodes_and_nodes_without_document_are_listed(register: Register) -> None:
    register.announce([("loose", None)])
    register.announce_document("empty", "hash", [])
    register.finish_document("empty", gone=[])
    assert register.documents() == {None: None, "empty": "hash"}
    assert register.node_ids(None) == ["loose"]
    register.forget(["loose"])
    assert register.documents() == {"empty": "hash"}


def test_it_is_the_same_when_it_is_opened_again(register: Register, tmp_path: Path) -> None:
    register.set_properties(dimensions=4, identity={"name": "ä"})
    register.announce([(f"n{n}", "d") for n in range(20)])
    register.confirm(f"n{n}" for n in range(20))
    register.close()
    reader = Register(tmp_path / "kb", read_only=True)
    assert reader.properties == {"dimensions": 4, "identity": {"name": "ä"}}
    assert sorted(reader.sample(4)) == ["n0", "n1", "n18", "n19"]
    assert reader.rows(["n3", "none"]) == {"n3": 4}
    with pytest.raises(StoreError, match="was opened read-only"):
        reader.clear()
    reader.close()
    assert registered_properties(tmp_path / "kb")["dimensions"] == 4
    assert registered_properties(tmp_path) == {}
    register.clear()
    assert (register.properties, register.all_node_ids()) == ({}, [])


def test_a_second_writer_is_refused(register: Register, tmp_path: Path) -> None:
    register.announce([("a", "d")])
    program = (
        "from pathlib import Path\n"
        "from phi3_industry.vector_stores.others.register import Register\n"
        f"Register(Path({str(tmp_path / 'kb')!r}), read_only=False).announce([('b', 'd')])\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert StoreLockedError.__name__ in finished.stderr
    assert register.all_node_ids() == ["a"]


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / REGISTER_NAME
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreCorruptError, match="Restore the folder"):
        Register(tmp_path, read_only=False)
    path.unlink()
    sqlite3.connect(path).close()
    with pytest.raises(StoreCorruptError, match="it is no register"):
        Register(tmp_path, read_only=False)
    path.unlink()
    made = Register(tmp_path, read_only=False)
    made.announce([("a", "d")])
    made.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="has the format 9"):
        Register(tmp_path, read_only=False)


def test_what_was_killed_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f"{REGISTER_NAME}.new").write_bytes(b"half")
    register = Register(tmp_path, read_only=False)
    register.announce([("a", "d")])
    assert register.all_node_ids() == ["a"]
    register.close()
