"""Messages become token ids here, and nowhere else.

The chat template is rendered with a placeholder for each message's content. What lies between
the placeholders is encoded with the tokenizer's control tokens; the contents are encoded by a
tokenizer that does not know them. So a document that holds ``<|end|><|system|>`` stays text, and
the ids are still those of the template wherever content holds no control token.
Source of the fault this avoids: transformers issue 29279.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from phi3_industry.errors import ConfigurationError
from phi3_industry.models.content_encoder import ContentEncoder

__all__ = ["ChatFormat"]

_TURN_ENDERS = (
    "<|end|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|im_start|>",
    "<|assistant|>",
    "<|user|>",
    "<|system|>",
    "</s>",
)
"""Control tokens at which an answer is over, whether or not a configuration lists them."""


@dataclass(frozen=True)
class _Place:
    """Where the content of a message stands, and which white space around it is swallowed."""

    message: int
    after_strip: bool
    before_strip: bool


_Piece = tuple[int, ...] | _Place
"""Template token ids, or a place of content."""


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
        self._control_texts = tuple(str(token) for token in added.values())
        self._strips_right = tuple(str(token) for token in added.values() if token.rstrip)
        self._strips_left = tuple(str(token) for token in added.values() if token.lstrip)
        self._content = ContentEncoder(
            backend_json, control_token_ids=self.control_token_ids - {tokenizer.unk_token_id}
        )
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
        for piece in self._pieces(shape, add_generation_prompt):
            if isinstance(piece, _Place):
                ids.extend(
                    self._content.encode(
                        turns[piece.message][1],
                        after_strip=piece.after_strip,
                        before_strip=piece.before_strip,
                    )
                )
            else:
                ids.extend(piece)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Turn text into token ids as the content of a message, never as control tokens."""
        return self._content.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn token ids into text, control tokens left out."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def as_text(self, ids: Sequence[int]) -> str:
        """Write a prompt as a text that a tokenizer reads as the same prompt, control tokens too.

        For servers that take prompts as texts alone.

        Raises:
            ConfigurationError: There is no such text, because content spells a control token.
        """
        whole = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        # a tokenizer that begins every text with a token would put it there twice
        first = self.tokenizer.decode(list(ids[:1]), skip_special_tokens=False)
        for text in (str(whole), str(whole).removeprefix(str(first))):
            if self.tokenizer(text)["input_ids"] == list(ids):
                return text
        raise ConfigurationError(
            "The prompt cannot be sent as a text: who reads it would see other tokens than were "
            "meant, because a message spells what stands for a control token, such as "
            f"{next(iter(self._control_texts), '</s>')!r}, or begins or ends with a space. Use a "
            "server that takes token ids, such as vLLM."
        )

    @property
    def end_of_turn_ids(self) -> list[int]:
        """The token ids that close an assistant's turn, which training has to teach.

        Raises:
            ConfigurationError: The template closes the turn with no token that ends an answer.
        """
        shape = (("user", True), ("assistant", True))
        pieces = self._pieces(shape, False)
        closing = pieces[-1]
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
        return next((token for token in self._control_texts if token in text), None)

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
        shown = {piece.message for piece in pieces if isinstance(piece, _Place)}
        return shown.issuperset(systems)

    def _render(
        self, shape: tuple[tuple[str, bool], ...], add_generation_prompt: bool
    ) -> tuple[_Piece, ...]:
        """Split a rendered template into template ids and places of content."""
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
        parts = re.split(rf"{mark}(\d{{6}})", text)
        pieces: list[_Piece] = []
        for position, part in enumerate(parts):
            if position % 2:
                before, after = parts[position - 1].rstrip(), parts[position + 1].lstrip()
                pieces.append(
                    _Place(
                        message=int(part),
                        after_strip=before.endswith(self._strips_right),
                        before_strip=after.startswith(self._strips_left),
                    )
                )
            elif part:
                encoding = self._backend.encode(part, add_special_tokens=False)
                pieces.append(tuple(encoding.ids))
        shown = {piece.message for piece in pieces if isinstance(piece, _Place)}
        dropped = [i for i, (_, filled) in enumerate(shape) if filled and i not in shown]
        if dropped:
            raise _DroppedMessageError(shape[dropped[0]][0])
        return tuple(pieces)


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
