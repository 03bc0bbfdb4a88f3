"""Content becomes token ids here, as text alone: no text can become a control token."""

from __future__ import annotations

import json
import secrets
from itertools import pairwise
from typing import Any

from phi3_industry.errors import EngineError

__all__ = ["ContentEncoder"]


class ContentEncoder:
    """Encodes the contents of messages as they stand between control tokens.

    Args:
        backend_json: The tokenizer of the whole template, as the package tokenizers writes it.
        control_token_ids: Ids that content must not hold.
    """

    def __init__(self, backend_json: str, *, control_token_ids: frozenset[int]) -> None:
        self._plain, self._anchors, self._closing_anchor = _tokenizer_without_control(backend_json)
        self._control = control_token_ids

    def encode(
        self, text: str, *, after_strip: bool = False, before_strip: bool = False
    ) -> list[int]:
        """Turn text into token ids, none of them a control token.

        Args:
            text: The content.
            after_strip: Whether it follows a control token that swallows white space.
            before_strip: Whether a control token follows it that swallows white space.

        Raises:
            EngineError: A character has no other id than that of a control token.
        """
        # anchors stand in for the control tokens around the text and are taken off again
        before, after = self._anchors[after_strip], self._closing_anchor if before_strip else ""
        encoding = self._plain.encode(before + text + after, add_special_tokens=False)
        end = len(encoding.ids) - bool(after)
        ids, offsets = encoding.ids[1:end], encoding.offsets[1:end]
        # what reads as a control token is cut inside, and its parts are encoded apart
        cuts = [
            _place_to_cut(text, start - len(before), stop - len(before))
            for token, (start, stop) in zip(ids, offsets, strict=True)
            if token in self._control
        ]
        if not cuts:
            return list(ids)
        parts = [text[first:last] for first, last in pairwise([0, *cuts, len(text)])]
        encoded = [
            self.encode(
                part,
                after_strip=after_strip and number == 0,
                before_strip=before_strip and number == len(cuts),
            )
            for number, part in enumerate(parts)
        ]
        return [token for part in encoded for token in part]


def _place_to_cut(text: str, start: int, stop: int) -> int:
    if stop - start < 2:
        raise EngineError(
            f"The text {text[start:stop]!r} can only be encoded as a control token of this "
            "tokenizer. Remove it from the content."
        )
    return start + 1


def _tokenizer_without_control(backend_json: str) -> tuple[Any, dict[bool, str], str]:
    """Build a tokenizer for content: the same text model, none of the control tokens.

    Tokenizers treat the beginning of a text in a way of its own. Content never stands there:
    it follows a control token. An anchor token that nobody can guess takes that token's place,
    one that leaves white space after it alone and one that swallows it. A third, for the end,
    swallows the white space before it.
    """
    from tokenizers import AddedToken, Tokenizer

    layout = json.loads(backend_json)
    layout.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    plain = Tokenizer.from_str(json.dumps(layout))
    anchors = {strips: f"anchor{secrets.token_hex(16)}" for strips in (False, True)}
    closing = f"anchor{secrets.token_hex(16)}"
    plain.add_special_tokens(
        [
            AddedToken(text, rstrip=strips, normalized=False, special=True)
            for strips, text in anchors.items()
        ]
        + [AddedToken(closing, lstrip=True, normalized=False, special=True)]
    )
    return plain, anchors, closing
