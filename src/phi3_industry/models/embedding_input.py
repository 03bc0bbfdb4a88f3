"""How a text becomes the tokens that are embedded, in training and in serving alike."""

from __future__ import annotations

from phi3_industry.models.chat_format import ChatFormat

__all__ = ["embedding_input"]


def embedding_input(
    chat_format: ChatFormat, text: str, *, instruction: str = "", max_length: int
) -> tuple[list[int], int]:
    """Turn a text into the token ids to embed: an instruction, the text, and an end token.

    The end token has seen all of the text, so that its state can stand for it. Text never
    becomes a control token.

    Args:
        chat_format: Of the model.
        text: The text; may be empty.
        instruction: Text before it.
        max_length: Tokens of instruction and text that are read; what is beyond is cut off at
            the end of the text, and the end token is kept.

    Returns:
        The token ids, at most ``max_length + 1``, and the number of tokens that were cut off.
    """
    ids = chat_format.encode_text(instruction + text)
    end = chat_format.tokenizer.eos_token_id
    if end is None:
        end = min(chat_format.stop_token_ids)
    return [*ids[:max_length], int(end)], max(0, len(ids) - max_length)
