from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

from llama_index.core.embeddings import MockEmbedding
from llama_index.core.utils import get_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from phi3_industry.ingestion.tokens import input_limit_of, token_counter_of


def word_tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if settings.get("padded"):
        inner.enable_padding(length=16, pad_id=1, pad_token="[PAD]")
    if settings.get("cut"):
        inner.enable_truncation(5)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")


def test_padding_is_not_counted_and_what_would_be_cut_is() -> None:
    for settings in ({}, {"padded": True}, {"cut": True}, {"padded": True, "cut": True}):
        model = SimpleNamespace(_model=SimpleNamespace(tokenizer=word_tokenizer(**settings)))
        count = token_counter_of(model)
        assert [count("a " * n) for n in (0, 1, 4, 5, 6, 23)] == [0, 1, 4, 5, 6, 23]


def test_counter_can_be_pickled() -> None:
    count = token_counter_of(SimpleNamespace(tokenizer=word_tokenizer(padded=True)))
    assert pickle.loads(pickle.dumps(count))("a b c") == 3


def test_model_that_counts_by_itself_is_asked() -> None:
    assert token_counter_of(SimpleNamespace(count_tokens=len))("abc") == 3


def test_other_models_are_counted_with_the_global_tokenizer() -> None:
    text = "The oil temperature is 65 °C."
    assert token_counter_of(MockEmbedding(embed_dim=4))(text) == len(get_tokenizer()(text))
    assert token_counter_of(None)(text) == len(get_tokenizer()(text))


def test_limit_leaves_room_for_what_the_model_adds() -> None:
    tokenizer = word_tokenizer()
    model = SimpleNamespace(max_length=256, tokenizer=tokenizer)
    assert input_limit_of(model) == 256
    model.text_instruction = "passage for search:"
    assert input_limit_of(model) == 253


def test_model_that_tells_no_limit_has_none() -> None:
    assert input_limit_of(MockEmbedding(embed_dim=4)) is None
    assert input_limit_of(SimpleNamespace(max_length=10**30)) is None
