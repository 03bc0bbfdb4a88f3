"""What an OpenAI-compatible server sends of an answer, read into token events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from phi3_industry.engines.base import FinishReason, GenerationRequest, TokenEvent, Usage
from phi3_industry.engines.detokenizer import StreamDecoder
from phi3_industry.errors import EngineError, RequestTimeoutError
from phi3_industry.models.chat_format import ChatFormat

__all__ = ["AnswerReader"]


class AnswerReader:
    """Reads the chunks of one streamed completion.

    Where the server names its tokens, they are turned into text here, as those of a model in this
    process are: servers differ in the space before the first word. Otherwise its text is taken, up
    to a stop text, which some servers leave at the end.

    Args:
        request: What was asked for; its ``timeout_s`` counts from now.
        chat_format: The model's chat format.
        server: Address of the server, for messages.
    """

    def __init__(self, request: GenerationRequest, *, chat_format: ChatFormat, server: str) -> None:
        self._request = request
        self._stop_ids = chat_format.stop_token_ids
        self._decoder = StreamDecoder(chat_format.decode, stop=request.sampling.stop)
        self._server = server
        self._began = time.monotonic()
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._scored = False
        self.tokens = 0

    @property
    def seconds_left(self) -> float | None:
        """Time until the request has to be over; ``None`` if it has as long as it takes."""
        if self._request.timeout_s is None:
            return None
        return max(0.0, self._began + self._request.timeout_s - time.monotonic())

    def read(self, chunk: Any) -> Iterator[TokenEvent]:
        """Read one chunk.

        Raises:
            RequestTimeoutError: The request's time is over.
        """
        if chunk.usage is not None:
            self._usage = Usage(
                prompt_tokens=chunk.usage.prompt_tokens,
                completion_tokens=chunk.usage.completion_tokens,
            )
        for choice in chunk.choices:
            events = list(self._events(choice))
            self.tokens += len(events)
            yield from events
            self._finish_reason = choice.finish_reason or self._finish_reason
        if self.seconds_left == 0.0 and self._finish_reason is None:
            raise self.timed_out()

    def end(self) -> TokenEvent:
        """Give the last event, when the server has closed the stream.

        Raises:
            EngineError: The answer is not whole, or lacks its log probabilities or the count of
                its tokens.
        """
        if self._finish_reason is None:
            raise EngineError(
                f"The server {self._server} broke off after {self.tokens} tokens of an answer. "
                "Ask again; if it happens again, look into the server's log."
            )
        if self._finish_reason not in ("stop", "length"):
            raise EngineError(
                f"The server {self._server} ended an answer with {self._finish_reason!r} and not "
                "at its end or length. Look into the server's log."
            )
        if self._usage is None:
            raise EngineError(
                f"The server {self._server} does not say how many tokens it used. It must honour "
                "stream_options.include_usage, as vLLM does."
            )
        if self._request.sampling.logprobs and self.tokens and not self._scored:
            raise EngineError(
                f"The server {self._server} gave no log probabilities, which were asked for. Use "
                "one that does, such as vLLM, or do without logprobs."
            )
        rest = self._decoder.flush()
        at_end = self._finish_reason == "stop" or self._decoder.stopped
        reason: FinishReason = "stop" if at_end else "length"
        return TokenEvent(text=rest, finish_reason=reason, usage=self._usage)

    def timed_out(self, waited_s: float = 0.0) -> RequestTimeoutError:
        """Make the error of a request that took too long.

        Args:
            waited_s: Time without a word from the server, for requests without a limit.
        """
        return RequestTimeoutError(
            timeout_s=self._request.timeout_s or waited_s, completion_tokens=self.tokens
        )

    def _events(self, choice: Any) -> Iterator[TokenEvent]:
        """Give an event for each token of a choice, as far as the server tells them apart."""
        ids = (choice.model_extra or {}).get("token_ids") or []
        wants_scores = self._request.sampling.logprobs and choice.logprobs is not None
        scores = (choice.logprobs.token_logprobs or []) if wants_scores else []
        self._scored = self._scored or bool(scores)
        if ids:
            known = scores if len(scores) == len(ids) else [None] * len(ids)
            for token_id, score in zip(ids, known, strict=True):
                yield TokenEvent(text=self._text_of(token_id), token_id=token_id, logprob=score)
            return
        pieces = [choice.text] if choice.text or scores else []
        if len(scores) > 1:
            pieces = [*([""] * (len(scores) - 1)), choice.text]
        for number, piece in enumerate(pieces):
            certain = self._decoder.push_text(piece)
            yield TokenEvent(text=certain, logprob=scores[number] if scores else None)

    def _text_of(self, token_id: int) -> str:
        if token_id in self._stop_ids or self._decoder.stopped:
            return ""
        return self._decoder.push(token_id)
