"""Files of conversations, in the forms that people have them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.records import check_text, parse_object, read_text
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.grounding.prompt import Message

__all__ = ["Conversation", "exchange_rows", "load_conversations"]

_Fail = Callable[[str, str], TrainingDataError]
"""Makes the error of a problem in a field."""

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One conversation.

    Attributes:
        id: The file's name and the record's number, ``"chat.jsonl:12"``.
        messages: Its messages: perhaps a system message, then user and assistant in turns.
    """

    id: str
    messages: tuple[Message, ...]

    def exchanges(self) -> Iterator[tuple[list[Message], Message]]:
        """Give each message of the assistant with everything before it."""
        for place, message in enumerate(self.messages):
            if message["role"] == "assistant" and place:
                yield list(self.messages[:place]), message


def load_conversations(path: str | PathLike[str]) -> list[Conversation]:
    """Read a file of conversations.

    Each record is of one of these forms, seen by its keys:

    - chat: ``{"messages": [{"role": "user", "content": "…"}, …]}``;
    - ShareGPT and the Phi-3 cookbook: ``{"conversations": [{"from": "human", "value": "…"}, …]}``;
    - Alpaca: ``{"instruction": "…", "input": "…", "output": "…"}``, perhaps with ``system``.

    Args:
        path: A file in UTF-8, with one JSON object a line or with one list of them.

    Returns:
        The conversations in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        TrainingDataError: A record cannot be used; names the file, the record and the field.
    """
    source = Path(path)
    conversations = [
        Conversation(
            id=f"{source.name}:{number}",
            messages=tuple(_messages(raw, source=source, record=number)),
        )
        for number, raw in _records(read_text(source), source)
    ]
    if not conversations:
        raise TrainingDataError("The file holds no conversation.", source=source)
    return conversations


def _records(text: str, source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise TrainingDataError(f"It is not JSON ({error}).", source=source) from error
        for number, value in enumerate(values, start=1):
            if not isinstance(value, dict):
                raise TrainingDataError(
                    f"It holds a {type(value).__name__} where an object is wanted.",
                    source=source,
                    record=number,
                )
            yield number, value
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, parse_object(line, source=source, record=number)


def _messages(raw: dict[str, Any], *, source: Path, record: int) -> list[Message]:
    def fail(problem: str, field: str) -> TrainingDataError:
        return TrainingDataError(problem, source=source, record=record, field=field)

    for key in ("messages", "conversations"):
        if key in raw:
            turns = raw[key]
            if not isinstance(turns, list):
                raise fail(f"It is {turns!r:.80}; it must be a list of messages.", key)
            messages = [_turn(turn, f"{key}[{place}]", fail) for place, turn in enumerate(turns)]
            _check_order(messages, key, fail)
            return messages
    if "instruction" in raw and "output" in raw:
        return _alpaca(raw, fail)
    raise fail(
        f"It has the keys {sorted(raw)}. A conversation has messages, conversations, or "
        "instruction and output.",
        "",
    )


def _turn(turn: Any, place: str, fail: _Fail) -> Message:
    """Read one message, ``role`` and ``content`` or ``from`` and ``value``."""
    if not isinstance(turn, dict):
        raise fail(f"It is {turn!r:.80}; it must be an object.", place)
    role_key = "role" if "role" in turn else "from"
    text_key = "content" if "content" in turn else "value"
    role = turn.get(role_key)
    if role not in _ROLES:
        raise fail(
            f"It is {role!r:.80}; it must be one of {', '.join(_ROLES)}.", f"{place}.{role_key}"
        )
    field = f"{place}.{text_key}"
    text = check_text(_plain(turn.get(text_key), field, fail), lambda problem: fail(problem, field))
    return {"role": _ROLES[role], "content": text}


def _plain(content: Any, field: str, fail: _Fail) -> Any:
    """Join a message's parts where it comes in parts; pictures and the like are refused."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise fail("It holds a part that is no text; only text can be trained on.", field)
    return "".join(str(part.get("text", "")) for part in content)


def _check_order(messages: list[Message], key: str, fail: _Fail) -> None:
    """Check that after a system message user and assistant take turns, and an answer is there."""
    spoken = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for place, message in enumerate(spoken, start=len(messages) - len(spoken)):
        expected = "assistant" if (place - (len(messages) - len(spoken))) % 2 else "user"
        if message["role"] != expected:
            raise fail(
                f"The role here is {message['role']}; after a system message, if any, user and "
                "assistant take turns, and the user begins.",
                f"{key}[{place}]",
            )
    if len(spoken) < 2:
        raise fail("It holds no answer of the assistant to a message of the user.", key)


def _alpaca(raw: dict[str, Any], fail: _Fail) -> list[Message]:
    def text(name: str) -> str:
        return check_text(raw[name], lambda problem: fail(problem, name))

    asked = text("instruction")
    if raw.get("input"):
        asked = f"{asked}\n\n{text('input')}"
    system = [{"role": "system", "content": text("system")}] if raw.get("system") else []
    return [
        *system,
        {"role": "user", "content": asked},
        {"role": "assistant", "content": text("output")},
    ]


def exchange_rows(
    conversations: Sequence[Conversation],
    slice_: Literal["conversation", "replay"],
    *,
    held_out: Collection[str],
) -> list[TrainingRow]:
    """Make a row of each exchange; those of one conversation stay in one split.

    Args:
        conversations: The conversations.
        slice_: What the rows teach.
        held_out: Ids of the conversations that are held out.
    """
    return [
        TrainingRow(
            prompt=prompt,
            completion=[answer],
            slice=slice_,
            split="validation" if conversation.id in held_out else "train",
            question_id=conversation.id,
        )
        for conversation in conversations
        for prompt, answer in conversation.exchanges()
    ]
