"""The engine in this process: transformers computes, PEFT applies the adapters."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from phi3_industry.engines.base import (
    Engine,
    FinishReason,
    GenerationRequest,
    Pooling,
    SamplingParams,
    TokenEvent,
    Usage,
)
from phi3_industry.engines.detokenizer import StreamDecoder
from phi3_industry.errors import AdapterNotFoundError, EngineError, RequestTimeoutError
from phi3_industry.models.adapter import attach_adapter, check_fits, read_manifest
from phi3_industry.models.loading import LoadedModel

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["LocalEngine"]

_BASE = "__base__"  # PEFT's name for a row without adapter
_ROWS_PER_PASS = 8


class LocalEngine(Engine):
    """Computes with a model in this process.

    Each step names the adapter of its own rows, so that requests for different adapters may be
    interleaved: there is no active adapter that one request could leave behind for another.

    Args:
        loaded: The base model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._model = loaded.model
        self._internal_names: dict[str, str] = {}
        self._attached = 0
        self._lock = threading.RLock()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters, sorted."""
        return tuple(sorted(self._internal_names))

    def load_adapter(self, path: str | PathLike[str], *, name: str) -> None:
        """Load an adapter folder and make it known by a name.

        Raises:
            ValueError: The name is empty or taken.
            AdapterNotFoundError: There is no adapter at the path.
            AdapterError: The adapter is damaged or was made for something else.
        """
        if not name:
            raise ValueError("The adapter's name is empty; give it one.")
        manifest = read_manifest(path)
        check_fits(manifest, self.loaded, adapter=path)
        with self._lock:
            if name in self._internal_names:
                raise ValueError(
                    f"An adapter '{name}' is loaded already. Unload it first, or choose another "
                    "name."
                )
            internal = f"adapter{self._attached}"
            self._model = attach_adapter(self._model, path, internal_name=internal)
            self._attached += 1
            self._internal_names[name] = internal

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter and free its memory.

        Raises:
            AdapterNotFoundError: No adapter of that name is loaded.
        """
        with self._lock:
            internal = self._internal(name)
            others = [other for other in self._internal_names.values() if other != internal]
            if others:
                self._model.set_adapter(others[0])  # PEFT warns when its active one is deleted
                self._model.delete_adapter(internal)
            else:
                self._model = self._model.unload()  # PEFT cannot hold a model without adapter
            del self._internal_names[name]

    def generate(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        """Continue a prompt token by token; see :meth:`Engine.generate`."""
        if not request.prompt_ids:
            raise ValueError("The prompt is empty; give at least one token.")
        self._internal(request.adapter)  # an unknown adapter is refused before the first step
        return self._generate(request)

    def score(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        adapter: str | None = None,
    ) -> list[list[float]]:
        """Give the log probability of each token of each continuation of one prompt.

        Raises:
            ValueError: The prompt or a continuation is empty.
            AdapterNotFoundError: No adapter of that name is loaded.
            EngineError: Computing failed.
        """
        import torch

        if not prompt_ids or not all(continuations):
            raise ValueError("The prompt and every continuation need at least one token.")
        prompt = list(prompt_ids)
        scores: list[list[float]] = []
        for first in range(0, len(continuations), _ROWS_PER_PASS):
            part = continuations[first : first + _ROWS_PER_PASS]
            longest = max(len(continuation) for continuation in part)
            output = self._forward(
                [prompt + list(continuation) for continuation in part],
                adapter=adapter,
                # the last prompt token predicts the first of the continuation
                logits_to_keep=longest + 1,
            )
            log_probabilities = torch.log_softmax(output.logits.float(), dim=-1)
            for row, continuation in enumerate(part):
                tokens = torch.tensor(list(continuation), device=log_probabilities.device)
                chosen = log_probabilities[row, : len(continuation)].gather(1, tokens[:, None])
                scores.append([float(value) for value in chosen[:, 0]])
        return scores

    def embed(
        self,
        batch: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "last",
        adapter: str | None = None,
    ) -> NDArray[np.float32]:
        """Embed token sequences by pooling the last hidden states.

        Returns:
            Vectors of length 1, ``(len(batch), hidden_size)``.

        Raises:
            ValueError: A text has no token.
            AdapterNotFoundError: No adapter of that name is loaded.
            EngineError: Computing failed.
        """
        import numpy as np
        import torch

        if not all(batch):
            raise ValueError("Each text needs at least one token.")
        vectors = []
        for first in range(0, len(batch), _ROWS_PER_PASS):
            part = [list(ids) for ids in batch[first : first + _ROWS_PER_PASS]]
            output = self._forward(
                part, adapter=adapter, logits_to_keep=1, output_hidden_states=True
            )
            states = output.hidden_states[-1].float()  # (batch, seq_len, hidden_size)
            for row, ids in enumerate(part):
                own = states[row, : len(ids)]
                vectors.append(own[-1] if pooling == "last" else own.mean(dim=0))
        if not vectors:
            return np.zeros((0, self.loaded.model.config.hidden_size), dtype=np.float32)
        stacked = torch.nn.functional.normalize(torch.stack(vectors), dim=-1)
        return np.asarray(stacked.cpu().numpy(), dtype=np.float32)

    def _generate(self, request: GenerationRequest) -> Iterator[TokenEvent]:
        sampling = request.sampling
        started = time.monotonic()
        choose = _TokenChooser(sampling, device=self.loaded.device)
        decoder = StreamDecoder(self.loaded.chat_format.decode, stop=sampling.stop)
        stops = self.loaded.chat_format.stop_token_ids
        ids = list(request.prompt_ids)
        cache: Any = None
        for count in range(1, sampling.max_new_tokens + 1):
            if request.timeout_s is not None and time.monotonic() - started > request.timeout_s:
                raise RequestTimeoutError(timeout_s=request.timeout_s, completion_tokens=count - 1)
            logits, cache = self._step(ids, cache, adapter=request.adapter)
            token, logprob = choose(logits)
            ids.append(token)
            ended = token in stops
            text = "" if ended else decoder.push(token)
            reason: FinishReason | None = None
            if ended or decoder.stopped:
                reason = "stop"
            elif count == sampling.max_new_tokens:
                reason = "length"
            if reason is None:
                yield TokenEvent(text=text, token_id=token, logprob=logprob)
                continue
            yield TokenEvent(
                text=text + decoder.flush(),
                token_id=token,
                logprob=logprob,
                finish_reason=reason,
                usage=Usage(prompt_tokens=len(request.prompt_ids), completion_tokens=count),
            )
            return

    def _step(self, ids: list[int], cache: Any, *, adapter: str | None) -> tuple[torch.Tensor, Any]:
        """Compute the logits after the last token, ``(vocab_size,)``, and the grown cache."""
        from transformers import DynamicCache

        # Keys that were cached with the short rotary factors do not fit the long ones: at the
        # switch everything is computed anew. Source: transformers' own generation does the same.
        switch = self.loaded.checkpoint.rope_switch
        if cache is None or (switch is not None and len(ids) == switch + 1):
            cache = DynamicCache(config=self.loaded.model.config)
        new = ids[cache.get_seq_length() :]
        output = self._forward(
            [new], adapter=adapter, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return output.logits[0, -1].float(), output.past_key_values

    def _forward(
        self, rows: list[list[int]], *, adapter: str | None, logits_to_keep: int, **options: Any
    ) -> Any:
        """Run the model on rows of token ids, padded on the right, each with the same adapter.

        ``logits_to_keep`` counts positions back from the end of the longest row.
        """
        import torch

        longest = max(len(row) for row in rows)
        device = self.loaded.device
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        if any(len(row) < longest for row in rows):
            options["attention_mask"] = torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device
            )
        with self._lock, torch.inference_mode():
            internal = self._internal(adapter)
            if self._internal_names:
                options["adapter_names"] = [internal] * len(rows)
            options.setdefault("use_cache", False)
            try:
                return self._model(input_ids=padded, logits_to_keep=logits_to_keep, **options)
            except RuntimeError as error:
                raise EngineError(
                    f"Computing {len(rows)} x {longest} tokens failed: {error}"
                ) from error

    def _internal(self, adapter: str | None) -> str:
        if adapter is None:
            return _BASE
        try:
            return self._internal_names[adapter]
        except KeyError:
            raise AdapterNotFoundError(adapter, self.adapters) from None


class _TokenChooser:
    """Chooses the next token from logits, greedily or by sampling.

    Args:
        sampling: How to choose.
        device: Where the logits are.
    """

    def __init__(self, sampling: SamplingParams, *, device: str) -> None:
        self._greedy = sampling.temperature == 0
        self._wants_logprob = sampling.logprobs
        self._generator: Any = None
        self._warpers: list[Any] = []
        if self._greedy:
            return
        import torch
        from transformers.generation import (
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, logits: torch.Tensor) -> tuple[int, float | None]:
        """Give the chosen token and, if asked for, its log probability under the plain model."""
        import torch

        if self._greedy:
            token = int(logits.argmax())
        else:
            scores = logits[None]
            for warp in self._warpers:
                scores = warp(None, scores)
            probabilities = torch.softmax(scores[0], dim=-1)
            token = int(torch.multinomial(probabilities, 1, generator=self._generator))
        if not self._wants_logprob:
            return token, None
        return token, float(torch.log_softmax(logits, dim=-1)[token])
