"""Messages become token ids here, and nowhere else.

The chat template is rendered with a placeholder for each message's content. What lies between
the placeholders is encoded with the tokenizer's control tokens; the contents are encoded by a
tokenizer that does not know them. So a document that holds ``<|end|><|system|>`` stays text, and
the ids are still those of the template wherever content holds no control token.
Source of the fault this avoids: transformers issue 29279.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from phi3_industry.errors import ConfigurationError, EngineError

__all__ = ["ChatFormat"]

_TURN_ENDERS = (
    "<|end|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|assistant|>",
    "<|user|>",
    "<|system|>",
    "</s>",
)
"""Control tokens at which an answer is over, whether or not a configuration lists them."""

_Piece = tuple[int, ...] | int
"""Template token ids, or the index of the message whose content stands there."""


class ChatFormat:
    """The chat format of one tokenizer.

    Safe to use from several threads.

    Args:
        tokenizer: A fast transformers tokenizer with a chat template.
        stop_token_ids: Further token ids that end an answer, such as those of a generation
            configuration.

    Raises:
        ConfigurationError: The tokenizer has no fast backend or no chat template.
    """

    def __init__(self, tokenizer: Any, *, stop_token_ids: Iterable[int] = ()) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ConfigurationError(
                f"The tokenizer is a {type(tokenizer).__name__} without a fast backend. Use a "
                "checkpoint that has a tokenizer.json."
            )
        if not tokenizer.chat_template:
            raise ConfigurationError(
                "The tokenizer has no chat template, so the checkpoint is a base model or an "
                "incomplete copy. Use an instruct checkpoint, or set tokenizer.chat_template."
            )
        self.tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        backend_json = self._backend.to_str()
        added = tokenizer.added_tokens_decoder
        self.control_token_ids = frozenset(added) | frozenset(tokenizer.all_special_ids)
        self.stop_token_ids = self._find_stop_ids(stop_token_ids)
        self._strips_right = {str(token): bool(token.rstrip) for token in added.values()}
        self._plain, self._anchors = _tokenizer_without_control(backend_json)
        self._forbidden = self.control_token_ids - {tokenizer.unk_token_id}
        self._pieces = lru_cache(maxsize=256)(self._render)
        digest = hashlib.sha256(str(tokenizer.chat_template).encode())
        digest.update(backend_json.encode())
        self.fingerprint = digest.hexdigest()

    def encode_messages(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Turn messages into token ids.

        A system text that the template would drop is put before the first user message.

        Args:
            messages: ``{"role", "content"}`` each; roles as the template knows them.
            add_generation_prompt: Whether to open the assistant's turn at the end.

        Returns:
            Token ids. Control tokens come from the template alone.

        Raises:
            ConfigurationError: The template refuses the order of roles, or drops a message.
            ValueError: There is no message.
        """
        if not messages:
            raise ValueError("There is no message to encode; give at least one.")
        turns = [(message["role"], message["content"]) for message in messages]
        if not self._keeps_system(turns):
            turns = _fold_system(turns)
        shape = tuple((role, bool(content)) for role, content in turns)
        ids: list[int] = []
        for piece, strips in self._pieces(shape, add_generation_prompt):
            if isinstance(piece, int):
                ids.extend(self._encode_content(turns[piece][1], after_strip=strips))
            else:
                ids.extend(piece)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Turn text into token ids as the content of a message, never as control tokens."""
        return self._encode_content(text, after_strip=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn token ids into text, control tokens left out."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    @property
    def end_of_turn_ids(self) -> list[int]:
        """The token ids that close an assistant's turn, which training has to teach.

        Raises:
            ConfigurationError: The template closes the turn with no token that ends an answer.
        """
        shape = (("user", True), ("assistant", True))
        pieces = self._pieces(shape, False)
        closing = pieces[-1][0]
        if isinstance(closing, tuple):
            for position, token in enumerate(closing, start=1):
                if token in self.stop_token_ids:
                    return list(closing[:position])
        raise ConfigurationError(
            "The chat template closes the assistant's turn with none of the stop tokens "
            f"{sorted(self.stop_token_ids)}, so a model could not learn to stop. Use the "
            "checkpoint's own chat template."
        )

    def control_text_in(self, text: str) -> str | None:
        """Give a control token that a text spells out, or ``None``."""
        return next((token for token in self._strips_right if token in text), None)

    def _find_stop_ids(self, further: Iterable[int]) -> frozenset[int]:
        vocabulary = {
            str(token): token_id for token_id, token in self.tokenizer.added_tokens_decoder.items()
        }
        stops = {vocabulary[token] for token in _TURN_ENDERS if token in vocabulary}
        if self.tokenizer.eos_token_id is not None:
            stops.add(int(self.tokenizer.eos_token_id))
        return frozenset(stops | {int(token) for token in further})

    def _keeps_system(self, turns: Sequence[tuple[str, str]]) -> bool:
        systems = [i for i, (role, text) in enumerate(turns) if role == "system" and text]
        if not systems:
            return True
        shape = tuple((role, bool(content)) for role, content in turns)
        try:
            pieces = self._pieces(shape, True)
        except _DroppedMessageError:
            return False
        return all(any(piece == index for piece, _ in pieces) for index in systems)

    def _render(
        self, shape: tuple[tuple[str, bool], ...], add_generation_prompt: bool
    ) -> tuple[tuple[_Piece, bool], ...]:
        """Split a rendered template into template ids and places of content.

        Each place of content says whether the control token before it swallows white space.
        """
        mark = f"content{secrets.token_hex(16)}"
        messages = [
            {"role": role, "content": f"{mark}{index:06d}" if filled else ""}
            for index, (role, filled) in enumerate(shape)
        ]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # jinja raises whatever the template's author chose
            roles = [role for role, _ in shape]
            raise ConfigurationError(
                f"The chat template refuses messages with the roles {roles}: {error}"
            ) from error
        pieces: list[tuple[_Piece, bool]] = []
        shown = set()
        strips = False
        for position, part in enumerate(re.split(rf"{mark}(\d{{6}})", text)):
            if position % 2:
                shown.add(int(part))
                pieces.append((int(part), strips))
            elif part:
                encoding = self._backend.encode(part, add_special_tokens=False)
                pieces.append((tuple(encoding.ids), False))
                strips = self._ends_with_stripping_token(part)
        dropped = [i for i, (_, filled) in enumerate(shape) if filled and i not in shown]
        if dropped:
            raise _DroppedMessageError(shape[dropped[0]][0])
        return tuple(pieces)

    def _ends_with_stripping_token(self, text: str) -> bool:
        bare = text.rstrip()
        return any(bare.endswith(token) for token, strips in self._strips_right.items() if strips)

    def _encode_content(self, text: str, *, after_strip: bool) -> list[int]:
        anchor = self._anchors[after_strip]
        encoding = self._plain.encode(anchor + text, add_special_tokens=False)
        ids, offsets = encoding.ids[1:], encoding.offsets[1:]
        for token, (start, end) in zip(ids, offsets, strict=True):
            if token in self._forbidden:
                return self._encode_apart(text, start - len(anchor), end - len(anchor))
        return list(ids)

    def _encode_apart(self, text: str, start: int, end: int) -> list[int]:
        """Encode a text in two parts, cut inside a stretch that reads as a control token."""
        if end - start < 2:
            raise EngineError(
                f"The text {text[start:end]!r} can only be encoded as a control token of this "
                "tokenizer. Remove it from the content."
            )
        cut = start + 1
        head = self._encode_content(text[:cut], after_strip=False)
        return head + self._encode_content(text[cut:], after_strip=False)


class _DroppedMessageError(ConfigurationError):
    """The template renders a message without its content."""

    def __init__(self, role: str) -> None:
        super().__init__(
            f"The chat template drops the content of messages with the role '{role}'. Use a role "
            "that it knows: system, user or assistant."
        )


def _fold_system(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Put system texts before the first user message, for templates that know no system role."""
    system = "\n\n".join(content for role, content in turns if role == "system" and content)
    rest = [(role, content) for role, content in turns if role != "system"]
    for position, (role, content) in enumerate(rest):
        if role == "user":
            rest[position] = (role, f"{system}\n\n{content}")
            return rest
    raise ConfigurationError(
        "The chat template knows no system role and there is no user message that could carry "
        "the system text. Add a user message."
    )


def _tokenizer_without_control(backend_json: str) -> tuple[Any, dict[bool, str]]:
    """Build a tokenizer for content: the same text model, none of the control tokens.

    Tokenizers treat the beginning of a text in a way of its own. Content never stands there:
    it follows a control token. An anchor token that nobody can guess takes that token's place,
    one that leaves white space after it alone and one that swallows it, and is taken off again.
    """
    from tokenizers import AddedToken, Tokenizer

    layout = json.loads(backend_json)
    layout.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    plain = Tokenizer.from_str(json.dumps(layout))
    anchors = {strips: f"anchor{secrets.token_hex(16)}" for strips in (False, True)}
    plain.add_special_tokens(
        [
            AddedToken(text, rstrip=strips, normalized=False, special=True)
            for strips, text in anchors.items()
        ]
    )
    return plain, anchors
