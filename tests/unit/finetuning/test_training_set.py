"""A training set on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.training_set import TrainingSet


def test_saved_set_is_loaded_the_same(train_set: TrainingSet, tmp_path: Path) -> None:
    train_set.save(tmp_path / "set")
    loaded = TrainingSet.load(tmp_path / "set")
    assert loaded.rows == train_set.rows
    assert loaded.fingerprint == train_set.fingerprint
    assert loaded.prompt_fingerprint == train_set.prompt_fingerprint
    assert str(loaded.report) == str(train_set.report)


def test_changed_row_is_refused(train_set: TrainingSet, tmp_path: Path) -> None:
    folder = train_set.save(tmp_path / "set")
    rows = folder / "train.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8").replace("PDIS", "PSUC", 1), encoding="utf-8")
    with pytest.raises(TrainingDataError, match="a file was changed") as caught:
        TrainingSet.load(folder)
    assert caught.value.source == str(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", "hello", "must be a list of messages"),
        ("prompt", [{"role": "user", "content": 1}], "must be a list of messages"),
        ("completion", [], "must be a list of messages"),
        ("slice", "other", "It is 'other'; it must be one of grounded, missing"),
        ("split", None, "It is None; it must be one of train, validation"),
    ],
)
def test_damaged_record_is_named(
    train_set: TrainingSet, tmp_path: Path, field: str, value: Any, message: str
) -> None:
    folder = train_set.save(tmp_path / "set")
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), field: value})
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TrainingDataError, match=message) as caught:
        TrainingSet.load(folder)
    assert (caught.value.record, caught.value.field) == (2, field)


def test_line_that_is_no_json_is_named(train_set: TrainingSet, tmp_path: Path) -> None:
    folder = train_set.save(tmp_path / "set")
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{oops\n")
    with pytest.raises(TrainingDataError, match="It is not JSON") as caught:
        TrainingSet.load(folder)
    assert caught.value.record == len(train_set.split("train")) + 1


def test_another_format_version_is_refused(train_set: TrainingSet, tmp_path: Path) -> None:
    report = train_set.save(tmp_path / "set") / "report.json"
    report.write_text(report.read_text(encoding="utf-8").replace(": 2,", ": 9,", 1))
    with pytest.raises(TrainingDataError, match="It is 9; this version of the library reads 2"):
        TrainingSet.load(tmp_path / "set")


def test_folder_without_a_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no training set"):
        TrainingSet.load(tmp_path)


def test_text_with_unusual_line_ends_survives(train_set: TrainingSet, tmp_path: Path) -> None:
    from dataclasses import replace

    odd = replace(
        train_set.rows[0],
        completion=[{"role": "assistant", "content": "a\u2028b\x85c\r\nд字"}],
    )
    changed = replace(train_set, rows=(odd, *train_set.rows[1:]))
    changed.save(tmp_path / "set")
    assert TrainingSet.load(tmp_path / "set").rows[0] == odd


def test_dataset_has_prompt_and_completion_as_messages(train_set: TrainingSet) -> None:
    dataset = train_set.to_dataset("train")
    assert len(dataset) == len(train_set.split("train"))
    assert dataset[0]["prompt"] == train_set.split("train")[0].prompt
    assert dataset[0]["completion"] == train_set.split("train")[0].completion


def test_foreign_folder_is_left_alone(train_set: TrainingSet, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="was not made by this library and is left alone"):
        train_set.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


# transformers 5.23 deprecates a setting that TRL 1.16 still passes on
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning")
def test_saved_rows_are_read_by_datasets_and_taken_by_trl(
    train_set: TrainingSet, tiny_phi3: Path, tmp_path: Path
) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder = train_set.save(tmp_path / "set")
    splits = ("train", "validation")
    files = {name: str(folder / f"{name}.jsonl") for name in splits}
    data = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert [data[name].num_rows for name in splits] == [len(train_set.split(n)) for n in splits]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_phi3),
        processing_class=AutoTokenizer.from_pretrained(tiny_phi3),
        args=SFTConfig(
            output_dir=str(tmp_path / "out"), report_to="none", max_length=None, use_cpu=True
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trained = (batch["labels"] != -100).sum(dim=1)
    assert (trained > 0).all()
    assert (trained < batch["attention_mask"].sum(dim=1)).all()


def test_export_for_other_trainers_holds_the_same_messages(
    train_set: TrainingSet, tmp_path: Path
) -> None:
    rows = train_set.split("train")
    path = train_set.export(tmp_path / "chat.jsonl", split="train", layout="messages")
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert read == [{"messages": [*row.prompt, *row.completion]} for row in rows]

    shared = train_set.export(tmp_path / "share.jsonl", split="train", layout="conversations")
    from phi3_industry.finetuning.conversations import load_conversations

    back = [list(found.messages) for found in load_conversations(shared)]
    assert back == [[*row.prompt, *row.completion] for row in rows]
    with pytest.raises(FileExistsError):
        train_set.export(path, split="train", layout="messages")


def test_report_is_saved_for_people_and_for_programs(
    train_set: TrainingSet, tmp_path: Path
) -> None:
    folder = train_set.save(tmp_path / "set")
    assert (folder / "report.md").read_text(encoding="utf-8") == train_set.report.markdown()
    header = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert header["fingerprint"] == train_set.fingerprint
    assert header["report"]["verdict"]["teaches"] is False
    assert TrainingSet.load(folder).report == train_set.report


def test_file_that_is_not_utf8_is_refused(train_set: TrainingSet, tmp_path: Path) -> None:
    folder = train_set.save(tmp_path / "set")
    with (folder / "train.jsonl").open("ab") as file:
        file.write(b"\xff")
    with pytest.raises(TrainingDataError, match="not UTF-8 text"):
        TrainingSet.load(folder)
