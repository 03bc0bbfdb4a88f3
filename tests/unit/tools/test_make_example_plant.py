from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.grounding.questions import load_questions
from phi3_industry.ingestion import SectionNodeParser, list_folder, read_document

ROOT = Path(__file__).parents[3]
PLANT = ROOT / "examples" / "plant"
_KINDS = "pump|motor|compressor|fan|gearbox|mixer|valve|boiler|chiller|conveyor|heat exchanger|tank"
QUOTAS = ROOT / "examples" / "aws-limits"


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        module: Any = importlib.import_module("make_example_plant")
        files: dict[str, bytes] = module.make_plant()
        assert files == module.make_plant()
        return files
    finally:
        sys.path.remove(str(ROOT / "tools"))


def passages(folder: Path) -> dict[str, list[str]]:
    """Texts of the passages by source id and document id."""
    parser = SectionNodeParser(token_counter=lambda text: len(text.split()))
    found: dict[str, list[str]] = {}
    listing = list_folder(folder)
    assert listing.skipped == ()
    for document_id, file in listing.files.items():
        for node in parser.nodes_of(read_document(file), document_id=document_id):
            for name in {node.metadata["source_id"], document_id}:
                found.setdefault(name, []).append(node.get_content())
    return found


def records(name: str) -> list[dict[str, Any]]:
    lines = (PLANT / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_committed_files_are_what_the_script_writes(made: dict[str, bytes]) -> None:
    committed = {
        path.relative_to(PLANT).as_posix(): path.read_bytes()
        for path in PLANT.rglob("*")
        if path.is_file()
    }
    assert committed.keys() == made.keys()
    assert [name for name in made if made[name] != committed[name]] == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (PLANT, "questions.train.jsonl"),
        (PLANT, "questions.dev.jsonl"),
        (QUOTAS, "questions.jsonl"),
    ],
)
def test_gold_passages_hold_the_answers(folder: Path, name: str) -> None:
    texts = passages(folder / "documents")
    questions = load_questions(folder / name)
    assert len(questions) >= 40
    for question in questions:
        assert bool(question.gold_ids) == question.answerable
        for gold in question.gold_ids:
            assert len(texts[gold]) == 1
            assert question.answers[0] in texts[gold][0]


def test_there_are_as_many_questions_as_promised() -> None:
    train, dev = (load_questions(PLANT / f"questions.{s}.jsonl") for s in ("train", "dev"))
    assert 500 <= len(train) <= 700
    assert 0.15 <= sum(not q.answerable for q in train) / len(train) <= 0.20
    assert (sum(q.answerable for q in dev), sum(not q.answerable for q in dev)) == (120, 30)


def test_held_out_devices_and_passages_are_in_no_training_question() -> None:
    train, dev = records("questions.train.jsonl"), records("questions.dev.jsonl")
    held_out = {r["metadata"]["device"] for r in dev if r["answers"]}
    assert len(held_out) >= 20
    assert not held_out & {r["metadata"]["device"] for r in train}
    assert not {g for r in dev for g in r["gold_ids"]} & {g for r in train for g in r["gold_ids"]}
    trained_on = " ".join(r["question"] for r in train)
    assert not {tag for tag in held_out if re.search(rf"\b{re.escape(tag)}\b", trained_on)}


def test_wordings_of_the_two_sets_are_different() -> None:
    def wordings(name: str) -> set[str]:
        found = set()
        for record in records(name):
            what = record["metadata"]
            device = rf"(?:(?:{_KINDS}) )?{re.escape(what['device'])}"
            text = re.sub(device, "DEVICE", record["question"], flags=re.IGNORECASE)
            found.add(re.sub(what["attribute"], "ATTRIBUTE", text, flags=re.IGNORECASE))
        return found

    train, dev = wordings("questions.train.jsonl"), wordings("questions.dev.jsonl")
    assert train
    assert dev
    assert not train & dev


def test_house_codes_stand_in_no_document() -> None:
    codes = {q.reference.split(" | ")[1] for q in load_questions(PLANT / "questions.dev.jsonl")
             if q.reference}  # fmt: skip
    texts = " ".join(text for parts in passages(PLANT / "documents").values() for text in parts)
    assert len(codes) >= 14
    assert all(re.fullmatch("[A-Z]{4}", code) for code in codes)
    assert not {code for code in codes if code.lower() in texts.lower()}


def test_each_attribute_has_one_code() -> None:
    pairs = {
        (record["metadata"]["attribute"], record["reference"].split(" | ")[1])
        for name in ("questions.train.jsonl", "questions.dev.jsonl")
        for record in records(name)
        if record["answers"]
    }
    assert len(pairs) == len({a for a, _ in pairs}) == len({c for _, c in pairs}) >= 14


def test_unanswerable_questions_ask_for_what_no_passage_states() -> None:
    texts = passages(PLANT / "documents")
    for record in records("questions.train.jsonl") + records("questions.dev.jsonl"):
        what = record["metadata"]
        if record["answers"]:
            continue
        about = [
            text
            for parts in texts.values()
            for text in parts
            if re.search(rf"\b{re.escape(what['device'])}\b", text)
        ]
        if what["missing"] == "device":
            assert about == []
        else:
            assert about
            assert not [text for text in about if what["attribute"] in text.lower()]


def test_examples_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "examples").rglob("*") if path.is_file()]
    assert 100_000 < sum(sizes) < 600_000
