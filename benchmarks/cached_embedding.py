"""An embedding that remembers its vectors between runs, so that benchmarks repeat quickly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

_SAVED_TEXTS = 512


class CachedEmbedding(BaseEmbedding):
    """Asks ``load_embedding("embedded")`` once for each text and keeps what it said in a file.

    Args:
        path: A NumPy file, made if it is not there; delete it when the model changes.
    """

    _path: Path = PrivateAttr()
    _known: dict[str, Any] = PrivateAttr()
    _model: Any = PrivateAttr(default=None)

    def __init__(self, path: Path) -> None:
        super().__init__(model_name="embedded", embed_batch_size=_SAVED_TEXTS)
        self._path, self._known = path, {}
        if path.exists():
            with np.load(path) as saved:
                self._known = dict(zip(saved["keys"].tolist(), saved["vectors"], strict=True))

    def save(self) -> None:
        """Write what is known now."""
        if self._known:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(".new.npz")
            vectors = np.stack([*self._known.values()])
            np.savez(unfinished, keys=np.array([*self._known]), vectors=vectors)
            unfinished.replace(self._path)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            if self._model is None:
                from phi3_industry import load_embedding

                self._model = load_embedding("embedded")
            vectors = self._model.get_text_embedding_batch([*new.values()])
            self._known |= dict(zip(new, np.array(vectors, dtype=np.float32), strict=True))
            if len(new) == _SAVED_TEXTS:
                self.save()
        return [self._known[key].tolist() for key in keys]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    # the embedded model has one role: a query is embedded as a text is
    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)
