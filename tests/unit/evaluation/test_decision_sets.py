"""What the benchmark of the deciding report changes, leaves out and holds out."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from phi3_industry.grounding.questions import Question

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "decision_sets.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("decision_sets", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["decision_sets"] = module
    spec.loader.exec_module(module)
    return module


class Base:
    """A knowledge base that only notes what it is told."""

    documents = ["old", "a-1"]

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.added: list[str] = []

    def refresh(self, folder, show_progress=False):
        return folder

    def delete(self, name):
        self.deleted.append(name)

    def add(self, documents, show_progress=False):
        self.added += [document.id_ for document in documents]


def write_questions(folder: Path, **parts: list[dict]) -> None:
    for part, records in parts.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"questions.{part}.jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    folder = tmp_path / "plant"
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "pumps.csv").write_text(
        "Tag;Pressure;Weight;Height\nP-1;38.2 bar;12 kg;\nP-2;7 bar;7 bar;3 m\n", encoding="utf-8"
    )
    ask = {"question": "?", "reference": None}
    write_questions(
        folder,
        train=[
            {**ask, "id": "a", "answers": ["38.2 bar"], "gold_ids": ["pumps.csv#P-1"]}
            | {"reference": "38.2 bar | PDIS"},
            {**ask, "id": "b", "answers": ["7 bar"], "gold_ids": ["pumps.csv#P-2"]},
            {**ask, "id": "c", "answers": ["40 m"], "gold_ids": ["notes.md#x"]},
            {**ask, "id": "d", "answers": []},
        ],
        dev=[{**ask, "id": "e", "answers": ["3 m"], "gold_ids": ["pumps.csv#P-2"]}],
    )
    return folder


def test_facts_change_in_a_copy_and_in_one_cell(script, plant: Path, tmp_path: Path) -> None:
    given = script.open_set(plant, tmp_path / "work", facts=9, missing=0.5, seed=0)
    before = (plant / "documents" / "pumps.csv").read_text(encoding="utf-8")
    given.fill(Base())
    changed, seconds = given.change(Base(), given.train)
    assert (plant / "documents" / "pumps.csv").read_text(encoding="utf-8") == before
    copy = (tmp_path / "work" / "documents" / "pumps.csv").read_text(encoding="utf-8")
    # the first number times 1.2 and 1 more; "7 bar" stands twice in its row and stays
    assert copy == before.replace("38.2 bar", "46.8 bar")
    assert seconds >= 0
    (one,) = changed
    assert (one.id, one.answers, one.reference) == ("changed a", ("46.8 bar",), "46.8 bar | PDIS")
    assert one.stratum == "changed"


def test_groups_are_left_out_with_their_documents(script, tmp_path: Path) -> None:
    records = [
        {"id": f"{doc}-{n}", "text": f"text {n}", "title": "", "metadata": {"doc_id": doc}}
        for doc in "abcd"
        for n in (1, 2)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "corpus.jsonl").write_text(lines, encoding="utf-8")

    def asked(doc: str) -> dict:
        return {
            "id": doc,
            "question": "?",
            "answers": ["x"],
            "gold_ids": [f"{doc}-1"],
            "metadata": {"group": doc},
        }

    write_questions(tmp_path, train=[asked("a"), asked("b")], dev=[asked("c"), asked("d")])
    given = script.open_set(tmp_path, tmp_path, facts=0, missing=0.5, seed=1)
    left_out = [one.id for one in [*given.train, *given.dev] if not one.answerable]
    assert len(left_out) == 2  # one of each part
    base = Base()
    given.fill(base)
    assert base.added == [one["id"] for one in records if one["id"][0] not in left_out]
    assert "old" in base.deleted
    assert given.change(base, given.train) == ([], None)


def test_whole_groups_are_held_out(script) -> None:
    questions = [
        Question(id=str(n), question="?", answers=("x",), gold_ids=(f"d{n // 4}",))
        for n in range(40)
    ]
    left, held = script.part_by_group(questions, 0.25, seed=3)
    assert (len(left), len(held)) == (28, 12)
    assert {one.gold_ids for one in left}.isdisjoint(one.gold_ids for one in held)
    assert script.part_by_group(questions, 0.25, seed=3) == (left, held)


def test_a_folder_of_another_form_is_refused(script, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="neither documents/ nor"):
        script.open_set(tmp_path, tmp_path, facts=0, missing=0, seed=0)
