from __future__ import annotations

import pytest

from phi3_industry.engines.detokenizer import StreamDecoder
from phi3_industry.models.loading import load_base_model

CHAT_FORMAT = load_base_model("embedded").chat_format


def stream(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], StreamDecoder]:
    decoder = StreamDecoder(CHAT_FORMAT.decode, stop=stop)
    parts = []
    for token in CHAT_FORMAT.encode_text(text):
        parts.append(decoder.push(token))
        if decoder.stopped:
            break
    return [*parts, decoder.flush()], decoder


@pytest.mark.parametrize(
    "text",
    ["[2] 38.2 bar", "水泵の圧力", "🙂🏽‍🔧 ok", "  two  spaces ", "a\n\nb", "é̂", "ไทย", "\ufffd!"],
)
def test_streamed_text_joins_to_the_whole(text: str) -> None:
    parts, _ = stream(text)
    assert "".join(parts) == CHAT_FORMAT.decode(CHAT_FORMAT.encode_text(text))


def test_half_a_character_is_held_back() -> None:
    parts, _ = stream("水")
    assert len(CHAT_FORMAT.encode_text("水")) > 1
    assert [part for part in parts if part] == ["水"]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("38.2 bar | PDIS", ("|",), "38.2 bar "),
        ("38.2 bar | PDIS", (" | P",), "38.2 bar"),
        ("one two three", ("three", "two"), "one "),
        ("aab", ("ab",), "a"),
        ("one two", ("two!",), "one two"),
        ("圧力は38です", ("38で",), "圧力は"),
    ],
)
def test_nothing_of_a_stop_text_comes_out(text: str, stop: tuple[str, ...], expected: str) -> None:
    parts, decoder = stream(text, stop)
    assert "".join(parts) == expected
    assert decoder.stopped == (expected != text)


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_certain() -> None:
    parts, _ = stream("a | b", (" | c",))
    assert "".join(parts[:-1]) == "a | b"
    decoder = StreamDecoder(CHAT_FORMAT.decode, stop=(" | c",))
    released = "".join(decoder.push(token) for token in CHAT_FORMAT.encode_text("a |"))
    assert released == "a"
    assert decoder.flush() == " |"
