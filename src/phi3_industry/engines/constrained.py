"""Decoding that obeys a grammar: each step may only choose tokens that a valid answer can hold.

llguidance does the work. It was chosen over xgrammar, which installs here as well, because it
needs no other package (xgrammar brings triton and a build of its own for each torch), reads any
``tokenizer.json``, refuses the keywords of a JSON schema that it cannot enforce where others
pass over them, and copies the state of a parse in a microsecond. The copies are what makes it
possible to look ahead for the end of an answer; see :mod:`phi3_industry.engines.endings`.

Source: https://github.com/guidance-ai/llguidance, docs/json_schema.md and docs/syntax.md.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from phi3_industry._optional import import_optional
from phi3_industry.engines.base import Grammar
from phi3_industry.engines.endings import EndingFinder
from phi3_industry.engines.json_schema import enforceable, read_schema, subschemas
from phi3_industry.errors import ConfigurationError, EngineError
from phi3_industry.models.loading import LoadedModel

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["GrammarCompiler", "GrammarState"]

_KEPT_GRAMMARS = 256
_CANDIDATES = 4
"""How many of the model's favourite tokens are looked at when the end has to be in reach."""

_MARGIN = 16
"""Tokens more than half of a grammar's own length at which to begin to look."""


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the last 256 of them.

    Safe to use from several threads.

    Args:
        loaded: The model whose tokens are to be constrained.

    Raises:
        MissingDependencyError: llguidance is not installed.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        control = loaded.chat_format.control_token_ids
        self._stops = loaded.chat_format.stop_token_ids
        # an added token that is not marked as special would count as text, and its id as control
        self._never = np.array(sorted(control - self._stops), dtype=np.int64)
        self._matcher: Any = _library("llguidance").LLMatcher
        self._to_lark: Any = _library("llguidance.gbnf_to_lark").any_to_lark
        self._tokens: Any = _library("llguidance.hf").from_tokenizer(
            loaded.tokenizer,
            n_vocab=max(len(loaded.tokenizer), int(loaded.model.config.vocab_size)),
            eos_token=sorted(self._stops),
        )
        self._finder = EndingFinder(self._tokens, never=control)
        self._strips_space = _strips_leading_space(loaded, self._finder)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Grammar, tuple[Any, int]] = OrderedDict()

    def start(self, grammar: Grammar, *, max_new_tokens: int | None = None) -> GrammarState:
        """Begin an answer.

        Args:
            grammar: What the answer obeys.
            max_new_tokens: The answer's budget. When it runs short the answer is led to an end
                that fits; ``None`` never leads it.

        Returns:
            The state of one answer, for one request.

        Raises:
            ConfigurationError: The grammar cannot be compiled, or its shortest answer does not
                fit into the budget.
        """
        with self._lock:
            if grammar not in self._compiled:
                matcher = self._compile(grammar)
                length = len(self._tokens.tokenize_str(grammar.text))
                self._compiled[grammar] = (matcher, length)
                if len(self._compiled) > _KEPT_GRAMMARS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            matcher, length = self._compiled[grammar]
            matcher = matcher.deep_copy()
        state = GrammarState(matcher, self._finder, stops=self._stops, never=self._never)
        if max_new_tokens is not None:
            state.limit(max_new_tokens, grammar_length=length)
        return state

    def _compile(self, grammar: Grammar) -> Any:
        if grammar.kind == "json_schema":
            schema = read_schema(grammar.text)
            matcher = self._parse({"json_schema": enforceable(schema)})
            if matcher.is_error():
                place, problem = self._locate(schema, matcher.get_error())
                raise ConfigurationError(
                    f"The JSON schema cannot be enforced at '{place}': {problem}. Leave that "
                    "out of the schema, and check it on the answer."
                )
            return matcher
        try:
            lark = self._to_lark(grammar.text)
        except Exception as error:  # the converter raises plain exceptions
            raise ConfigurationError(f"The grammar cannot be read: {error}.") from error
        matcher = self._parse({"lark_grammar": lark})
        if matcher.is_error():
            raise ConfigurationError(f"The grammar cannot be compiled: {matcher.get_error()}")
        return matcher

    def _parse(self, answer: dict[str, Any]) -> Any:
        """Begin to parse an answer behind the space that decoding takes off, if it does.

        A text of its own could begin with that space; JSON does not, so there it may be missing.
        """
        space = '" "? ' if "json_schema" in answer else '" " '
        lead = space if self._strips_space else ""
        top = {"lark_grammar": f"start: {lead}@answer"}
        grammars = {"grammars": [top, {"name": "answer", **answer}]}
        return self._matcher(self._tokens, json.dumps(grammars), log_level=0)

    def _locate(self, schema: dict[str, Any], error: str) -> tuple[str, str]:
        """Find the smallest part of a schema that cannot be compiled, as a JSON pointer."""
        definitions: dict[str, Any] = {
            key: schema[key] for key in ("$defs", "definitions") if key in schema
        }
        for step, child in subschemas(schema):
            probe = self._parse({"json_schema": enforceable({**definitions, **child})})
            if probe.is_error():
                place, problem = self._locate({**definitions, **child}, probe.get_error())
                return place.replace("#", f"#/{step}", 1), problem
        return "#", _problem(error)


class GrammarState:
    """How far one answer has come in its grammar.

    Made by :meth:`GrammarCompiler.start`, for one request and one thread.

    Attributes:
        shortened: Whether the budget, and not the model, led the answer to its end. Such an
            answer is valid and was cut: its finish reason is ``"length"``.
    """

    def __init__(
        self,
        matcher: Any,
        finder: EndingFinder,
        *,
        stops: frozenset[int],
        never: NDArray[np.int64],
    ) -> None:
        self.shortened = False
        self._matcher = matcher
        self._finder = finder
        self._stops = stops
        self._never = never
        self._text = bytearray()
        self._stopped = False
        self._left: int | None = None
        self._leap = 0
        self._ending: list[int] | None = None  # from here, if it has been looked for
        self._hint: list[int] = []  # the last ending that was found
        self._endings: dict[int, list[int]] = {}  # after each token that may be next

    @property
    def finished(self) -> bool:
        """Whether nothing but a stop token may follow."""
        return self._stopped or bool(self._matcher.is_stopped())

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._stopped or bool(self._matcher.is_accepting())

    def limit(self, max_new_tokens: int, *, grammar_length: int) -> None:
        """Give the answer a budget.

        Args:
            max_new_tokens: Tokens that the answer may take from here.
            grammar_length: Length of the grammar's text, in tokens. One token more can hardly
                move the end away by more than half of that: all that it may oblige to say stands
                there, with at least as much about its form.

        Raises:
            ConfigurationError: Not even the shortest answer fits.
        """
        self._left = max_new_tokens
        self._leap = grammar_length // 2 + _MARGIN
        self._ending = self._find_ending(self._matcher, self._text)
        if self._ending is not None and len(self._ending) > max_new_tokens:
            raise ConfigurationError(
                f"The shortest answer that the grammar allows takes {len(self._ending)} tokens "
                f"and max_new_tokens is {max_new_tokens}. Raise max_new_tokens, or ask for less."
            )

    def mask(self, logits: torch.Tensor) -> None:
        """Set the logits of forbidden tokens to minus infinity, in place.

        Stop tokens are allowed exactly when the answer may end.

        Args:
            logits: The next token's logits, ``(vocab_size,)``.

        Raises:
            EngineError: The grammar has run into a limit of the library.
        """
        import torch

        allowed = self._allowed(logits.shape[-1])
        if self._left is not None and self._is_short_of(self._left):
            allowed = self._with_end_in_reach(logits, allowed, left=self._left)
        forbidden = torch.from_numpy(~allowed).to(logits.device)
        logits.masked_fill_(forbidden, float("-inf"))

    def accept(self, token_id: int) -> None:
        """Take the token that was chosen.

        Raises:
            EngineError: The grammar does not allow it here.
        """
        if token_id in self._stops and self.complete:
            self._stopped = True
            return
        if self._stopped or not self._matcher.consume_token(token_id):
            raise EngineError(
                f"The token {token_id} was chosen and the grammar does not allow it here: "
                f"{self._matcher.get_error() or 'the answer is over'}"
            )
        self._text += self._finder.bytes_of(token_id)
        if self._left is not None:
            self._left -= 1
        if self._ending and self._ending[0] == token_id:
            self._endings.setdefault(token_id, self._ending[1:])
        self._hint = self._ending or self._hint
        self._ending = self._endings.get(token_id)
        self._endings = {}

    def _is_short_of(self, left: int) -> bool:
        """Say whether the next token could put the end out of reach."""
        if self._stopped or left > 2 * self._leap:
            return False
        if self._ending is None:
            self._ending = self._find_ending(self._matcher, self._text)
        return self._ending is None or len(self._ending) + self._leap > left

    def _allowed(self, size: int) -> NDArray[np.bool_]:
        if self._stopped:
            allowed = np.zeros(size, dtype=np.bool_)
            allowed[list(self._stops)] = True
            return allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise EngineError(f"The grammar cannot be followed: {self._matcher.get_error()}")
        allowed = np.zeros(size, dtype=np.bool_)
        known = np.unpackbits(bits, bitorder="little")[:size]
        allowed[: len(known)] = known
        allowed[self._never] = False
        return allowed

    def _with_end_in_reach(
        self, logits: torch.Tensor, allowed: NDArray[np.bool_], *, left: int
    ) -> NDArray[np.bool_]:
        """Keep, of the model's favourites, those after which an ending fits into the budget."""
        import torch

        favourites = logits.masked_fill(
            torch.from_numpy(~allowed).to(logits.device), float("-inf")
        ).topk(min(_CANDIDATES, int(allowed.sum())))
        tokens = [int(token) for token in favourites.indices]
        self._endings = {
            token: ending
            for token in tokens
            if (ending := self._ending_after(token)) is not None and len(ending) < left
        }
        kept = set(self._endings)
        if self._ending and len(self._ending) <= left:
            kept.add(self._ending[0])
        if not kept:
            return allowed  # no ending is known: the caller sees whether the answer is complete
        if tokens[0] not in kept:
            self.shortened = True
        narrowed = np.zeros_like(allowed)
        narrowed[list(kept)] = True
        return narrowed

    def _ending_after(self, token: int) -> list[int] | None:
        if token in self._stops:
            return []
        ahead = self._matcher.deep_copy()
        if not ahead.consume_token(token):
            return None
        return self._find_ending(ahead, self._text + self._finder.bytes_of(token))

    def _find_ending(self, matcher: Any, text: bytes | bytearray) -> list[int] | None:
        if matcher.is_accepting():
            return []
        known = self._ending or self._hint
        for taken in range(min(_CANDIDATES, len(known))):
            if _ends(matcher, known[taken:]):
                return known[taken:]  # such as after one more letter in a string
        return self._finder.find(matcher.deep_copy(), text=bytes(text))


def _library(module: str) -> Any:
    return import_optional(module, purpose="constrain answers by a grammar", extra="constrained")


def _ends(matcher: Any, ending: list[int]) -> bool:
    """Say whether an answer is complete after these tokens."""
    ahead = matcher.deep_copy()
    return bool(ahead.consume_tokens(ending) and ahead.is_accepting())


def _problem(message: str) -> str:
    """Give the sentence of an error message of llguidance that says what is wrong."""
    lines = [line for line in message.splitlines() if line.strip()]
    named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (named or [lines[0].split("JSON schema: ")[-1]])[0].rstrip(".: ")


def _strips_leading_space(loaded: LoadedModel, finder: EndingFinder) -> bool:
    """Say whether decoding takes the space off the first token, as in Llama's tokenizers."""
    spaced = finder.tokens_like(b" [a-z]+")
    return bool(spaced) and not loaded.chat_format.decode(spaced[:1]).startswith(" ")
