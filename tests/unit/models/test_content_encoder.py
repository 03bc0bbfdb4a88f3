from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from phi3_industry.errors import EngineError
from phi3_industry.models.content_encoder import ContentEncoder


def encoder(*, merged: bool = True) -> tuple[ContentEncoder, Tokenizer]:
    """A tokenizer whose text model can spell the control token ``<x>`` as one token."""
    vocabulary = ["<", "x", ">", "<x", "<x>", " ", "a"]
    merges = [("<", "x"), ("<x", ">")] if merged else []
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken("<x>", lstrip=True, rstrip=True, normalized=False)])
    control = frozenset({vocabulary.index("<x>")})
    return ContentEncoder(backend.to_str(), control_token_ids=control), backend


def text_of(backend: Tokenizer, ids: list[int]) -> str:
    return backend.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("text", ["<x>", "a<x>a", "<x><x>", " <x> a ", "<x>" * 5000])
def test_what_the_text_model_spells_as_a_control_token_is_cut_in_two(text: str) -> None:
    content, backend = encoder()
    ids = content.encode(text)
    assert 4 not in ids
    assert text_of(backend, ids) == text


@pytest.mark.parametrize("text", ["  <x> a  ", " a <x>  "])
def test_white_space_is_swallowed_at_the_ends_alone_also_around_a_cut(text: str) -> None:
    content, backend = encoder()
    after = content.encode(text, after_strip=True)
    assert text_of(backend, after) == text.lstrip()
    before = content.encode(text, before_strip=True)
    assert text_of(backend, before) == text.rstrip()
    assert text_of(backend, content.encode(text)) == text


def test_a_character_that_is_a_control_token_is_refused() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    content = ContentEncoder(backend.to_str(), control_token_ids=frozenset({1}))
    with pytest.raises(EngineError, match="'b' can only be encoded as a control token"):
        content.encode("ab")
