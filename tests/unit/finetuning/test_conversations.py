"""Files of conversations, as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.conversations import load_conversations

ASKED = {"role": "user", "content": "How hot is the oil?"}
SAID = {"role": "assistant", "content": "65 °C"}
EXPECTED = [ASKED, SAID]


def write(path: Path, *records: Any) -> Path:
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "record",
    [
        {"messages": EXPECTED},
        {
            "messages": [
                ASKED,
                {"role": "assistant", "content": [{"type": "text", "text": "65 °C"}]},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "How hot is the oil?"},
                {"from": "gpt", "value": "65 °C"},
            ]
        },
        {"conversations": EXPECTED, "id": "x"},
        {"instruction": "How hot is the oil?", "input": "", "output": "65 °C"},
    ],
    ids=["chat", "chat in parts", "cookbook and ShareGPT", "conversations with roles", "Alpaca"],
)
def test_every_form_gives_the_same_messages(tmp_path: Path, record: Any) -> None:
    (found,) = load_conversations(write(tmp_path / "chat.jsonl", record))
    assert list(found.messages) == EXPECTED
    assert found.id == "chat.jsonl:1"


def test_system_message_and_input_are_kept(tmp_path: Path) -> None:
    record = {"system": "Be brief.", "instruction": "Translate", "input": "油温", "output": "oil"}
    (found,) = load_conversations(write(tmp_path / "alpaca.jsonl", record))
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant"]
    assert found.messages[1]["content"] == "Translate\n\n油温"


def test_a_list_of_records_is_read_as_well_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    path.write_text(json.dumps([{"messages": EXPECTED}] * 2), encoding="utf-8")
    assert [found.id for found in load_conversations(path)] == ["share.json:1", "share.json:2"]


def test_each_answer_is_an_exchange_with_all_that_came_before(tmp_path: Path) -> None:
    turns = [ASKED, SAID, {"role": "user", "content": "And now?"}, {**SAID, "content": "66 °C"}]
    (found,) = load_conversations(write(tmp_path / "chat.jsonl", {"messages": turns}))
    exchanges = list(found.exchanges())
    assert [answer["content"] for _, answer in exchanges] == ["65 °C", "66 °C"]
    assert exchanges[1][0] == turns[:3]


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        ({"text": "hello"}, None, r"has the keys \['text'\]. A conversation has messages"),
        ({"messages": "hello"}, "messages", "must be a list of messages"),
        ({"messages": [ASKED]}, "messages", "holds no answer of the assistant"),
        ({"messages": []}, "messages", "holds no answer of the assistant"),
        ({"messages": [SAID, ASKED]}, "messages[0]", "the user begins"),
        ({"messages": [ASKED, ASKED, SAID]}, "messages[1]", "take turns"),
        ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].role", "It is 'tool'"),
        ({"messages": [ASKED, {**SAID, "content": " "}]}, "messages[1].content", "not empty"),
        ({"messages": [ASKED, {**SAID, "content": 5}]}, "messages[1].content", "It is 5"),
        ({"messages": [ASKED, 7]}, "messages[1]", "It is 7; it must be an object"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAID]},
            "messages[0].content",
            "only text can be trained on",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt"}]},
            "conversations[1].value",
            "It is None",
        ),
        ({"instruction": "a", "output": ""}, "output", "not empty"),
        ({"messages": [ASKED, {**SAID, "content": "x" * 1_000_001}]}, None, "has 1000001 charact"),
    ],
)
def test_broken_record_is_named_by_file_number_and_field(
    tmp_path: Path, record: Any, field: str | None, message: str
) -> None:
    path = write(tmp_path / "chat.jsonl", {"messages": EXPECTED}, record)
    with pytest.raises(TrainingDataError, match=message) as caught:
        load_conversations(path)
    assert (caught.value.source, caught.value.record) == (str(path), 2)
    if field:
        assert caught.value.field == field


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text('{"instruction": "a", "output": "b\\ud83d"}\n', encoding="utf-8")
    with pytest.raises(TrainingDataError, match="character 2 is half of a surrogate pair"):
        load_conversations(path)


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(b'{"messages": []}\n\xff\xfe')
    with pytest.raises(TrainingDataError, match="not UTF-8 text \\(byte 17\\)"):
        load_conversations(path)


@pytest.mark.parametrize(("text", "message"), [("", "no conversation"), ("{a", "It is not JSON")])
def test_file_without_records_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "chat.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(TrainingDataError, match=message):
        load_conversations(tmp_path / "chat.jsonl")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*chat\.jsonl'"):
        load_conversations(tmp_path / "chat.jsonl")
