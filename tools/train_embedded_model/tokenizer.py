"""The embedded model's tokenizer: byte-level BPE, so that any text comes back as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from .conversations import draw_conversation
from .draw import Draw
from .real_text import RealText
from .stages import ALL_SHAPES

__all__ = ["train_tokenizer", "training_texts"]

_CONTROL = ("<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_CHAT_TEMPLATE = (
    "{% for m in messages %}{{'<|'+m['role']+'|>\n'+m['content']+'<|end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|assistant|>\n'}}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer.

    A space is put before every text, so that a word is the same token at the start of an answer
    as inside a passage, where it is copied from. Digits are cut into pairs: single digits were
    too ambiguous to match on. Phi-3's control tokens are the only ones.

    Args:
        texts: What to learn the vocabulary from.
        vocab_size: Number of tokens, the control tokens and all bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" ?[0-9]{1,2}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    control = [
        AddedToken(token, special=True, normalized=False, rstrip=token in _CONTROL[3:])
        for token in _CONTROL
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106 - not a password
        bos_token="<s>",  # noqa: S106
        eos_token="<|end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )


def training_texts(*, seed: int, conversations: int, text: RealText | None) -> Iterator[str]:
    """Draw what a vocabulary is learned from: conversations, real sentences, all digit pairs."""
    draw = Draw(seed, text=text)
    for _ in range(conversations):
        conversation = draw_conversation(draw, ALL_SHAPES)
        yield from conversation.passages
        yield from (turn.question for turn in conversation.turns)
    if text is not None:
        yield from text.passages
    yield conversation.prompt("")[0]["content"]
    for number in range(100):  # often enough that each pair becomes one token
        yield f" {number} {number:02d}-{number:02d}" * 300
