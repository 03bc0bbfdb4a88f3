from __future__ import annotations

import random

import pytest

from phi3_industry.ingestion.chunking import split_text


def words(text: str) -> int:
    return len(text.split())


def characters(text: str) -> int:
    return len(text)


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_short_text_stays_whole() -> None:
    assert split_text(" One. Two. ", max_tokens=10, count_tokens=words) == ["One. Two."]


def test_pieces_end_at_paragraphs_once_they_are_long_enough() -> None:
    text = "\n\n".join(" ".join([f"p{i}"] * 6) + "." for i in range(4))
    pieces = split_text(text, max_tokens=10, count_tokens=words, min_tokens=5)
    assert pieces == text.split("\n\n")


def test_short_paragraphs_share_a_piece() -> None:
    text = "\n\n".join(["a b."] * 6)
    pieces = split_text(text, max_tokens=8, count_tokens=words, min_tokens=8)
    assert [words(piece) for piece in pieces] == [8, 4]


def test_long_paragraph_is_split_at_sentences() -> None:
    text = "One two three. Four five six! Seven eight nine? Ten."
    pieces = split_text(text, max_tokens=6, count_tokens=words)
    assert pieces == ["One two three. Four five six!", "Seven eight nine? Ten."]


def test_decimal_points_end_no_sentence() -> None:
    text = "It is 38.2 bar now. It was 37.1 bar before."
    pieces = split_text(text, max_tokens=5, count_tokens=words)
    assert pieces == ["It is 38.2 bar now.", "It was 37.1 bar before."]


@pytest.mark.parametrize(
    "text",
    [
        "泵的压力是三十八巴。油温为六十五度！请检查阀门？",
        "ポンプの圧力は三十八バールです。油温は六十五度です。弁を確認してください。",
    ],
)
def test_text_without_spaces_is_split_at_its_sentences(text: str) -> None:
    pieces = split_text(text, max_tokens=20, count_tokens=characters)
    assert "".join(pieces) == text
    assert all(piece[-1] in "。！？" for piece in pieces)


def test_text_without_any_boundary_is_cut_within_the_limit() -> None:
    text = "x" * 1000
    pieces = split_text(text, max_tokens=64, count_tokens=characters)
    assert "".join(pieces) == text
    assert all(len(piece) <= 64 for piece in pieces)


def test_accents_stay_with_their_letters() -> None:
    text = "e\u0301" * 500
    pieces = split_text(text, max_tokens=33, count_tokens=characters)
    assert "".join(pieces) == text
    assert all(piece[0] == "e" for piece in pieces)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_and_nothing_exceeds_the_limit(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = [
        "word ",
        "38.2 ",
        "end. ",
        "\n",
        "\n\n",
        "泵。",
        "é",
        "\u0301",
        "…",
        ") ",
        " ",
        "\t",
    ]
    text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 400)))
    limit = rng.randint(1, 30)
    count = rng.choice([words, characters])
    pieces = split_text(text, max_tokens=limit, count_tokens=count)
    assert squeezed("".join(pieces)) == squeezed(text)
    assert all(count(piece) <= limit for piece in pieces)
    assert all(piece in text and piece == piece.strip() and piece for piece in pieces)


def test_tokenizer_never_sees_an_unbounded_text() -> None:
    seen: list[int] = []

    def count(text: str) -> int:
        seen.append(len(text))
        return max(1, len(text) // 4)

    split_text("y" * 200_000, max_tokens=100, count_tokens=count)
    assert max(seen) <= 1600


@pytest.mark.parametrize("text", ["." * 200_000, "a." * 100_000, "\n \n" * 60_000, "(" * 200_000])
def test_the_work_on_hostile_text_grows_with_its_length_alone(text: str) -> None:
    counted = 0

    def count(part: str) -> int:
        nonlocal counted
        counted += len(part)
        return len(part) // 4 + 1

    split_text(text, max_tokens=300, count_tokens=count)
    assert counted < 50 * len(text)


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens is 0; it must be at least 1"):
        split_text("a", max_tokens=0, count_tokens=words)


def test_code_is_cut_only_where_it_alone_is_too_long() -> None:
    prose = " ".join(f"w{n}" for n in range(12))
    code = "a = 1\n\nb = 2\n\nc = 3"
    text = f"{prose}\n\n{code}\n\n{prose}"
    span = (len(prose) + 2, len(prose) + 2 + len(code))
    count = lambda text: len(text.split())  # noqa: E731 - as short as can be
    kept = split_text(text, max_tokens=16, min_tokens=13, count_tokens=count, whole=[span])
    assert kept == [prose, code, prose]
    cut = split_text(text, max_tokens=16, min_tokens=13, count_tokens=count)
    assert code not in cut
    small = split_text(text, max_tokens=6, count_tokens=count, whole=[span])
    assert all(count(piece) <= 6 for piece in small)
    assert " ".join(small).split() == text.split()
