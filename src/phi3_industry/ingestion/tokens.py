"""Count tokens as the embedding model does, so that nothing it is given is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["input_limit_of", "token_counter_of"]


def token_counter_of(embed_model: Any) -> Callable[[str], int]:
    """Find the function that counts a text's tokens, those at its ends not included.

    Args:
        embed_model: A LlamaIndex embedding. One with a ``count_tokens(text)`` of its own, or with
            a Hugging Face tokenizer as those of ``llama-index-embeddings-huggingface`` have, is
            asked itself. For others, such as a remote one, LlamaIndex's global tokenizer counts.
    """
    own = getattr(embed_model, "count_tokens", None)
    if callable(own):
        return lambda text: int(own(text))
    for tokenizer in _tokenizers(embed_model):
        return _counter(tokenizer)
    from llama_index.core.utils import get_tokenizer

    tokenize = get_tokenizer()
    return lambda text: len(tokenize(text))


def input_limit_of(embed_model: Any) -> int | None:
    """Find the most tokens that an embedding model reads, those at the text's ends not included.

    Returns:
        The limit, or ``None`` if the model does not tell.
    """
    ends = 0
    for tokenizer in _tokenizers(embed_model):
        count = getattr(tokenizer, "num_special_tokens_to_add", None)
        ends = int(count(pair=False)) if callable(count) else 0
        break
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


def _counter(tokenizer: Any) -> Callable[[str], int]:
    fast = getattr(tokenizer, "backend_tokenizer", None) or getattr(tokenizer, "_tokenizer", None)
    if fast is not None and callable(getattr(fast, "encode_batch", None)):
        # the inner tokenizer neither cuts nor warns about long texts
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
