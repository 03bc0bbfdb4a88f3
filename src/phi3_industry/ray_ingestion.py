"""Reading, splitting and embedding in the processes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, TransformComponent

from phi3_industry._optional import import_optional
from phi3_industry.embeddings import load_embedding
from phi3_industry.ingestion import FileNodeParser, SectionNodeParser

if TYPE_CHECKING:
    # a package of an extra, which a strict check must not need
    RayIngestionPipeline = Any

__all__ = ["NamedEmbedding", "ray_pipeline"]

_SERVICES = ("text-embedding-", "jina-embeddings-")


class NamedEmbedding(TransformComponent):
    """An embedding by its name, so that it is made of plain values wherever it works.

    Args:
        name: What `load_embedding` takes.
        **settings: What else it takes. A service's key is better read from the environment of
            the workers.
    """

    name: str
    settings: dict[str, Any]
    _embedding: BaseEmbedding

    def __init__(self, name: str = "embedded", **settings: Any) -> None:
        fields: dict[str, Any] = {"name": name, "settings": settings}
        super().__init__(**fields)
        self._embedding = load_embedding(name, **settings)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Give each node its vector."""
        return self._embedding(nodes, **kwargs)


def ray_pipeline(
    embedding: str = "embedded",
    *,
    parser: SectionNodeParser,
    actors: int,
    cpus: float = 1,
    gpus: float = 0,
    texts_together: int = 64,
    files_together: int = 8,
    **settings: Any,
) -> RayIngestionPipeline:
    """Make a pipeline for :meth:`~phi3_industry.knowledge_base.KnowledgeBase.add`.

    One actor reads and splits, the others embed. ``ray.init()`` comes before its first run::

        pipeline = ray_pipeline("embedded", parser=kb.node_parser, actors=8)
        kb.add("manuals/", pipeline=pipeline)

    Args:
        embedding: What the knowledge base's embedding was loaded by with `load_embedding`.
        parser: The knowledge base's ``node_parser``.
        actors: Processes that embed, each with a model of its own.
        cpus: Cores of each of them.
        gpus: GPUs of each of them, which may be a fraction.
        texts_together: Nodes that one of them is handed at a time. What a killed one had in hand
            is computed again.
        files_together: Files that are read at a time.
        **settings: What else `load_embedding` is given.

    Raises:
        MissingDependencyError: Ray or LlamaIndex's pipeline for it is not installed.
    """
    purpose = "compute on Ray"
    ray = import_optional("ray.data", package="ray", purpose=purpose, extra="ray")
    package = "llama-index-ingestion-ray"
    on_ray = import_optional(
        "llama_index.ingestion.ray", package=package, purpose=purpose, extra="ray"
    )
    counting = None if embedding.startswith(_SERVICES) else embedding
    plain = {name: getattr(parser, name) for name in ("max_tokens", "min_tokens", "text_format")}
    reads = {"compute": ray.ActorPoolStrategy(size=1), "num_cpus": 0, "batch_size": files_together}
    embeds = {
        "compute": ray.ActorPoolStrategy(size=actors),
        "num_cpus": cpus,
        "num_gpus": gpus,
        "batch_size": texts_together,
    }
    transformations = [
        on_ray.RayTransformComponent(
            FileNodeParser,
            map_batches_kwargs=reads,
            transform_kwargs={"tokenizer": parser.tokenizer or counting, **plain},
        ),
        on_ray.RayTransformComponent(
            NamedEmbedding,
            map_batches_kwargs=embeds,
            transform_kwargs={"name": embedding, **settings},
        ),
    ]
    return on_ray.RayIngestionPipeline(transformations=transformations)
