"""Passes of the model over packed tokens: with their adapters, rotary factors and kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from phi3_industry.engines.adapter_table import AdapterTable
from phi3_industry.engines.cpu_kernels import single_token_kernels, wants_single_token_kernels
from phi3_industry.engines.packing import PackedSpan, SequenceCache, use_packed_attention
from phi3_industry.errors import EngineError
from phi3_industry.models.loading import LoadedModel

if TYPE_CHECKING:
    import torch

__all__ = ["PASS_TOKENS", "PackedModel"]

PASS_TOKENS = 2048
"""Tokens of one pass over long texts: enough to compute at full speed, and little memory."""

_TOKEN_OF_NOBODY = 0
_NO_MEMORY = "can't allocate memory"  # on a CPU torch raises a plain RuntimeError that says so


class PackedModel:
    """Computes passes over the tokens of many sequences; for one thread alone.

    Args:
        loaded: The base model.

    Attributes:
        adapters: Its adapters.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        import torch

        use_packed_attention(loaded.model)
        self.adapters = AdapterTable(loaded)
        self._loaded = loaded
        self._no_mask = torch.empty((1, 1, 0, 0), device=loaded.device)
        self._one_by_one = wants_single_token_kernels(loaded)
        self._layers = int(loaded.model.config.num_hidden_layers)
        self._window: int | None = getattr(loaded.model.config, "sliding_window", None)

    def new_cache(
        self, sequence_length: int, *, prefix: SequenceCache | None = None
    ) -> SequenceCache:
        """Give the empty cache of a sequence.

        Args:
            sequence_length: Tokens of the sequence at its next pass. The length chooses the
                rotary factors of longrope models, and keys of one kind do not fit the other.
            prefix: A sequence that the new one continues.
        """
        long_rope = self.needs_long_rope(sequence_length)
        return SequenceCache(self._layers, long_rope=long_rope, prefix=prefix)

    def needs_long_rope(self, sequence_length: int) -> bool:
        """Say whether a sequence of that length takes the long rotary factors."""
        switch = self._loaded.checkpoint.rope_switch
        return switch is not None and sequence_length > switch

    def can_share(self, span: PackedSpan) -> tuple[bool, str | None]:
        """Give a key: spans may share a pass if their keys are equal."""
        alone = span.adapter if self.adapters.is_alone(span.adapter) else None
        return span.cache.long_rope, alone

    def logits(self, spans: Sequence[PackedSpan]) -> list[torch.Tensor]:
        """Compute the logits after the kept tokens of each span; commits nothing.

        Args:
            spans: Tokens of sequences that may share a pass, each sequence once.

        Returns:
            For each span ``(keep, vocab_size)`` in float32.

        Raises:
            torch.OutOfMemoryError: Too little memory.
            EngineError: Computing failed.
        """
        import torch

        ends = list(accumulate(len(span.token_ids) for span in spans))
        kept = [
            end - back
            for span, end in zip(spans, ends, strict=True)
            for back in range(span.keep, 0, -1)
        ]
        positions = torch.tensor(kept, device=self._loaded.device, dtype=torch.long)
        with self._pass(spans) as inputs:
            output = self._loaded.model(**inputs, logits_to_keep=positions)
            logits = output.logits[0].float()
        return list(logits.split([span.keep for span in spans]))

    def states(self, spans: Sequence[PackedSpan]) -> list[torch.Tensor]:
        """Compute the last hidden states of each span's tokens; commits nothing.

        Returns:
            For each span ``(tokens, hidden_size)`` in float32.
        """
        with self._pass(spans) as inputs:
            states = self._loaded.model.get_decoder()(**inputs).last_hidden_state[0].float()
        lengths = [len(span.token_ids) for span in spans]
        return list(states[: sum(lengths)].split(lengths))

    @contextmanager
    def _pass(self, spans: Sequence[PackedSpan]) -> Iterator[dict[str, Any]]:
        """Prepare the model for a pass and give its inputs."""
        import torch

        with torch.inference_mode():
            ids, positions = self._packed(spans)
            owners: list[tuple[str | None, int]] = [
                (span.adapter, len(span.token_ids)) for span in spans
            ]
            nobodys = len(ids) - sum(count for _, count in owners)
            for span in spans:
                span.look_back(self._window, device=self._loaded.device)
            try:
                with (
                    self.adapters.applied([*owners, (owners[-1][0], nobodys)]),
                    self._kernels(len(ids)),
                ):
                    yield {
                        "input_ids": torch.tensor([ids], device=self._loaded.device),
                        "position_ids": torch.tensor([positions], device=self._loaded.device),
                        # transformers takes a mask of four dimensions as it is and makes none
                        "attention_mask": self._no_mask,
                        "use_cache": False,
                        "packed_spans": spans,
                    }
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                if _NO_MEMORY in str(error):
                    raise torch.OutOfMemoryError(str(error)) from error
                raise EngineError(
                    f"Computing {len(ids)} tokens of {len(spans)} sequences failed: {error}"
                ) from error

    def _packed(self, spans: Sequence[PackedSpan]) -> tuple[list[int], list[int]]:
        ids = [token for span in spans for token in span.token_ids]
        positions = [
            position
            for span in spans
            for position in range(span.cache.length, span.cache.length + len(span.token_ids))
        ]
        switch = self._loaded.checkpoint.rope_switch
        if switch is not None and spans[0].cache.long_rope and max(positions) < switch:
            # The model takes its long factors by the greatest position in a pass. The beginning
            # of a long sequence needs them too: a token of nobody stands at such a position.
            ids.append(_TOKEN_OF_NOBODY)
            positions.append(switch)
        return ids, positions

    def _kernels(self, tokens: int) -> AbstractContextManager[None]:
        return single_token_kernels() if tokens == 1 and self._one_by_one else nullcontext()
