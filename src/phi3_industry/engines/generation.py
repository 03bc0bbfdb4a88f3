"""One request on its way: its tokens, what it has told its caller, and whether it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from phi3_industry.engines.base import FinishReason, GenerationRequest, TokenEvent, Usage
from phi3_industry.engines.detokenizer import StreamDecoder
from phi3_industry.engines.packing import SequenceCache
from phi3_industry.engines.prompt_lookup import PromptLookup
from phi3_industry.engines.sampling import GrammarRules, TokenChooser
from phi3_industry.errors import RequestTimeoutError

if TYPE_CHECKING:
    import torch

__all__ = ["Generation"]

_TOKENS_AHEAD = 2
"""One is not enough: a caller who takes his token while the next step begins would miss it."""


class Generation:
    """The state of one request in a scheduler.

    The scheduler's thread computes; the caller's thread asks and takes. A request computes at
    most two tokens more than its caller has asked for.

    Args:
        request: What was asked for.
        adapter: Internal name of its adapter.
        chooser: Chooses its tokens.
        decoder: Makes text of its tokens.
        stop_token_ids: Tokens that end an answer.
        deliver: Takes each event, or the error that ended the request; must not block.
        lookup: Guesses its tokens; ``None`` guesses none.

    Attributes:
        ids: Tokens of the prompt and of the answer so far.
        cache: What was computed of ``ids``; ``None`` before the first pass.
        rules: The grammar of its answer, from its first pass on.
        asked: Events that the caller has asked for.
        cancelled: Whether the caller has left.
        ended: Whether the last event or an error was delivered.
        last_step: Number of the scheduler's step in which it was computed last.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        adapter: str | None,
        chooser: TokenChooser,
        decoder: StreamDecoder,
        stop_token_ids: Collection[int],
        deliver: Callable[[TokenEvent | BaseException], None],
        lookup: PromptLookup | None = None,
    ) -> None:
        self.request = request
        self.adapter = adapter
        self.ids = list(request.prompt_ids)
        self.cache: SequenceCache | None = None
        self.rules: GrammarRules | None = None
        self.asked = 0
        self.cancelled = False
        self.ended = False
        self.last_step = 0
        self._chooser = chooser
        self._decoder = decoder
        self._stops = stop_token_ids
        self._deliver = deliver
        self._lookup = lookup
        self._delivered = 0
        self._submitted = time.monotonic()

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def gone(self) -> bool:
        """Whether nothing more is to be computed."""
        return self.cancelled or self.ended

    @property
    def wanted(self) -> bool:
        """Whether the caller is close enough behind for another token."""
        return not self.gone and self._delivered < self.asked + _TOKENS_AHEAD

    @property
    def uncomputed(self) -> list[int]:
        """The tokens that the model has not seen: the prompt at first, then one at a time."""
        return self.ids[self.cache.length :] if self.cache else self.ids

    def seconds_left(self) -> float | None:
        """Seconds until the request is overdue; ``None`` if it never is."""
        if self.request.timeout_s is None:
            return None
        return self._submitted + self.request.timeout_s - time.monotonic()

    def check_time(self) -> None:
        """Raise ``RequestTimeoutError`` if the request is overdue."""
        left = self.seconds_left()
        if left is not None and left <= 0:
            raise self.timeout_error()

    def timeout_error(self) -> RequestTimeoutError:
        """Give the error of an overdue request."""
        assert self.request.timeout_s is not None  # noqa: S101 - it is overdue
        return RequestTimeoutError(
            timeout_s=self.request.timeout_s, completion_tokens=self.completion_tokens
        )

    def guess(self) -> list[int]:
        """Guess tokens that may follow; never past the end of the answer."""
        left = self.request.sampling.max_new_tokens - self.completion_tokens
        return self._lookup.guess(self.ids)[: left - 1] if self._lookup else []

    def advance(self, logits: torch.Tensor, *, guesses: Sequence[int] = ()) -> int:
        """Choose and deliver the next token, and more as long as the guesses were right.

        Args:
            logits: After the last token and after each guess, ``(1 + guesses, vocab_size)``.
            guesses: The tokens that were guessed.

        Returns:
            How many guesses were right.
        """
        right = 0
        while True:
            token = self._take(logits[right])
            if self.ended or right == len(guesses) or token != guesses[right]:
                break
            right += 1
        if self._lookup is not None and guesses:
            self._lookup.learn(self.ids, guessed=len(guesses), right=right)
        return right

    def fail(self, error: BaseException) -> None:
        """End the request with an error, unless it has ended."""
        if not self.gone:
            self.ended = True
            self._tell(error)

    def _take(self, logits: torch.Tensor) -> int:
        """Choose the next token, ``(vocab_size,)``, and deliver it."""
        token, logprob = self._chooser.choose(logits, rules=self.rules)
        self.ids.append(token)
        stopped = token in self._stops
        if self.rules is not None and not stopped:
            self.rules.accept(token)
        text = "" if stopped else self._decoder.push(token)
        reason = self._finish_reason(stopped=stopped)
        usage = None
        if reason is not None:
            self.ended = True
            text += self._decoder.flush()
            usage = Usage(
                prompt_tokens=len(self.request.prompt_ids),
                completion_tokens=self.completion_tokens,
            )
        self._tell(
            TokenEvent(
                text=text, token_id=token, logprob=logprob, finish_reason=reason, usage=usage
            )
        )
        return token

    def _finish_reason(self, *, stopped: bool) -> FinishReason | None:
        if stopped or self._decoder.stopped or (self.rules is not None and self.rules.finished):
            shortened = self.rules is not None and self.rules.shortened
            return "length" if shortened else "stop"
        return "length" if self.completion_tokens >= self.request.sampling.max_new_tokens else None

    def _tell(self, item: TokenEvent | BaseException) -> None:
        self._delivered += 1
        if not self.cancelled:
            self._deliver(item)
