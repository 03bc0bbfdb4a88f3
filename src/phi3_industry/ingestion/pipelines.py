"""Documents made into nodes by a LlamaIndex pipeline, in other processes or on other machines.

What is sent of a file is its name: whoever computes reads it there, with :class:`FileNodeParser`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, Document, MetadataMode, TextNode
from llama_index.core.utils import get_tqdm_iterable

from phi3_industry.errors import ConfigurationError, IngestionError, MissingDependencyError
from phi3_industry.ingestion.candidates import FOLDER_TO_READ, from_file
from phi3_industry.ingestion.limits import DEFAULT_LIMITS, ReadLimits
from phi3_industry.ingestion.node_parser import SectionNodeParser, source_of
from phi3_industry.ingestion.source import SourceDocument

__all__ = ["FileNodeParser", "NodesOfDocument", "Pipeline", "run_pipeline"]

_ALIKE = 0.99
"""bfloat16 and float32 agree at 0.999; other models or prompts are far below."""

_FINGERPRINT = "parser_fingerprint"
_POSITION, _PROBLEM, _PLACE, _FATAL = "position_in_document", "problem", "place", "fatal"


class Pipeline(Protocol):
    """What is needed of a LlamaIndex ``IngestionPipeline`` or ``RayIngestionPipeline``."""

    def run(self, *, documents: list[Document]) -> Sequence[BaseNode]:
        """Transform documents."""


class FileNodeParser(SectionNodeParser):
    """A :class:`SectionNodeParser` that reads the files which documents name.

    For a `KnowledgeBase` that lets a pipeline make its nodes. It is made of plain values, so that
    it can be built wherever it works; files have to be there under the same path.

    Attributes:
        limits: What is read of a single file.
    """

    limits: ReadLimits = Field(default=DEFAULT_LIMITS, exclude=True)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex serialises this class under."""
        return "FileNodeParser"

    def _parse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **_: Any
    ) -> list[BaseNode]:
        made: list[BaseNode] = []
        for node in get_tqdm_iterable(nodes, show_progress, "Reading documents"):
            made += self._nodes_or_problem(node)
        return made

    def _postprocess_parsed_nodes(
        self,
        nodes: list[BaseNode],
        parent_doc_map: dict[str, Document],  # noqa: ARG002 - LlamaIndex's
    ) -> list[BaseNode]:
        return nodes  # nothing of what was sent along belongs into them

    def _nodes_or_problem(self, node: BaseNode) -> list[TextNode]:
        """Give a document's nodes; what cannot be read must not end everybody's work."""
        metadata = dict(node.metadata)
        folder = metadata.pop(FOLDER_TO_READ, None)
        self._check_same_settings(metadata.pop(_FINGERPRINT, self.fingerprint))
        try:
            document = self.read(node) if folder is None else self._read(node.node_id, Path(folder))
            made = self.nodes_of(document, document_id=node.node_id, metadata=metadata)
        except (IngestionError, MissingDependencyError) as error:
            problem = error.problem if isinstance(error, IngestionError) else str(error)
            place = str(getattr(error, "place", ""))
            return [_problem_node(node.node_id, problem, place=place, fatal=True)]
        for position, own in enumerate(made):
            own.metadata[_POSITION] = position
            own.excluded_embed_metadata_keys.append(_POSITION)
        return [*made, *(_problem_node(node.node_id, remark) for remark in document.remarks)]

    def _read(self, document_id: str, folder: Path) -> SourceDocument:
        file = from_file(
            folder / document_id,
            document_id=document_id,
            origin=folder,
            fingerprint="",
            limits=self.limits,
        )
        return file.open().parse()

    def _check_same_settings(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise ConfigurationError(
                f"The pipeline's FileNodeParser splits by {self.fingerprint} and the knowledge "
                f"base by {fingerprint} (version, max_tokens, min_tokens, text_format). Give the "
                "pipeline the settings of the knowledge base's node_parser."
            )


@dataclass
class NodesOfDocument:
    """What a pipeline made of a document.

    Attributes:
        nodes: Its nodes in their order, with vectors.
        remarks: What of it could not be read.
        error: Why nothing of it could be read.
    """

    nodes: list[TextNode] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    error: IngestionError | None = None


def run_pipeline(
    pipeline: Pipeline, documents: Iterable[Document], *, parser: SectionNodeParser, embed: Any
) -> dict[str, NodesOfDocument]:
    """Let a pipeline make and embed the nodes of documents.

    Args:
        pipeline: It begins with a :class:`FileNodeParser` and ends with an embedding.
        documents: The documents, each with an id of its own.
        parser: What nodes are to be split by.
        embed: Embeds one text; the pipeline's vectors are compared with it.

    Returns:
        What became of each document, by its id. Nodes are as they are without a pipeline.

    Raises:
        ConfigurationError: The pipeline splits or embeds otherwise than it is to.
    """
    sent = []
    for document in documents:
        named = document.model_copy(deep=True)
        named.metadata[_FINGERPRINT] = parser.fingerprint
        sent.append(named)
    made = {document.node_id: NodesOfDocument() for document in sent}
    returned = list(pipeline.run(documents=sent)) if sent else []
    for node in returned:
        _sort_in(node, made)
    for document_id, own in made.items():
        own.nodes.sort(key=lambda node: int(node.metadata[_POSITION]))
        if [node.metadata.pop(_POSITION) for node in own.nodes] != list(range(len(own.nodes))):
            raise ConfigurationError(f"The pipeline lost nodes of '{document_id}'.")
        for node in own.nodes:
            node.excluded_embed_metadata_keys.remove(_POSITION)
    _check_vectors([node for own in made.values() for node in own.nodes], embed)
    return made


def _sort_in(node: BaseNode, made: dict[str, NodesOfDocument]) -> None:
    own = made.get(node.ref_doc_id or "")
    if own is None or not isinstance(node, TextNode):
        raise ConfigurationError(
            f"The pipeline gave a {type(node).__name__} of '{node.ref_doc_id}', which it was not "
            "sent. Let it begin with a FileNodeParser."
        )
    if _PROBLEM not in node.metadata:
        if _POSITION not in node.metadata:
            raise ConfigurationError(
                "The pipeline's nodes are not those of a FileNodeParser. Let it begin with one."
            )
        own.nodes.append(node)
    elif node.metadata[_FATAL]:
        own.error = IngestionError(
            node.ref_doc_id or "", node.metadata[_PROBLEM], place=node.metadata[_PLACE]
        )
    else:
        own.remarks.append(node.metadata[_PROBLEM])


def _check_vectors(nodes: Sequence[TextNode], embed: Any) -> None:
    """Refuse vectors of another embedding: they would compare to nothing in the store."""
    if not nodes:
        return
    unembedded = next((node for node in nodes if not node.embedding), None)
    if unembedded is not None:
        raise ConfigurationError(
            f"The pipeline gave the node '{unembedded.node_id}' of '{unembedded.ref_doc_id}' no "
            "vector. Let it end with the knowledge base's embedding."
        )
    found = nodes[0].embedding or []
    wanted = embed(nodes[0].get_content(metadata_mode=MetadataMode.EMBED))
    length = (sum(x * x for x in found) * sum(x * x for x in wanted)) ** 0.5
    alike = (
        sum(a * b for a, b in zip(found, wanted, strict=True)) / length
        if len(found) == len(wanted) and length
        else 0.0
    )
    if alike < _ALIKE:
        raise ConfigurationError(
            f"The pipeline's vectors are not those of the knowledge base's embedding: {len(found)} "
            f"numbers where {len(wanted)} were expected, or a cosine of {alike:.3f} where 1 was. "
            "Give the pipeline the same embedding with the same settings."
        )


def _problem_node(
    document_id: str, problem: str, *, place: str = "", fatal: bool = False
) -> TextNode:
    return TextNode(
        text=problem,
        metadata={_PROBLEM: problem, _PLACE: place, _FATAL: fatal},
        relationships=source_of(document_id),
    )
