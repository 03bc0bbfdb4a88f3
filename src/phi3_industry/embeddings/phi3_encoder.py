"""A Phi-3 model in the form that sentence-transformers trains, on the tokens of serving.

This module imports torch and sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule

from phi3_industry.embeddings.encoder import Encoder
from phi3_industry.engines.base import Pooling
from phi3_industry.models.adapter import resolve_target_modules
from phi3_industry.models.embedding_input import embedding_input
from phi3_industry.models.loading import LoadedModel

__all__ = ["phi3_encoder"]


def phi3_encoder(
    loaded: LoadedModel, *, pooling: Pooling, reading: Mapping[str, str], max_length: int
) -> Encoder:
    """Make a base model ready to be trained as an embedding.

    Args:
        loaded: A base model that nothing else uses.
        pooling: ``"last"`` or ``"mean"``.
        reading: Its prompts and its pooling, for the manifest.
        max_length: Tokens of prompt and text that are read.
    """
    module = _Phi3Module(loaded, pooling=pooling, max_length=max_length)
    return Encoder(
        model=SentenceTransformer(modules=[module], device=loaded.device),
        body=loaded.model,
        targets=resolve_target_modules(loaded.model, None),
        task_type="CAUSAL_LM",
        bfloat16=loaded.dtype == "bfloat16",
        base=loaded,
        reading=dict(reading),
    )


class _Phi3Module(InputModule):  # type: ignore[misc]  # it ships no type information for mypy
    """Texts become vectors as :class:`~phi3_industry.embeddings.phi3.Phi3Embedding` makes them."""

    def __init__(self, loaded: LoadedModel, *, pooling: Pooling, max_length: int) -> None:
        super().__init__()
        self.body = loaded.model
        self.tokenizer = loaded.tokenizer
        self.max_seq_length = max_length
        self._chat_format = loaded.chat_format
        self._pooling = pooling
        self._pad = int(loaded.tokenizer.pad_token_id or 0)

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Turn texts into padded token ids, ``(batch, seq_len)``."""
        rows = [
            embedding_input(
                self._chat_format, text, instruction=prompt or "", max_length=self.max_seq_length
            )[0]
            for text in inputs
        ]
        width = max(len(row) for row in rows)
        ids = [row + [self._pad] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add the pooled states, ``(batch, hidden_size)`` in float32."""
        mask = features["attention_mask"]
        decoder = self.body.get_decoder()
        states = decoder(input_ids=features["input_ids"], attention_mask=mask, use_cache=False)
        hidden = states.last_hidden_state.float()
        if self._pooling == "last":
            ends = mask.sum(dim=1) - 1
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        else:
            pooled = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return {**features, "sentence_embedding": pooled}

    def get_embedding_dimension(self) -> int:
        """Length of the vectors."""
        return int(self.body.config.hidden_size)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Save nothing: what is trained is the adapter, which is saved by itself."""
