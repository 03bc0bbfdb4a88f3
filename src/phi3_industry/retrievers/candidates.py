"""The passages that the searches of one question brought, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llama_index.core.schema import BaseNode, MetadataMode

from phi3_industry.retrievers.evidence import Evidence, evidence

__all__ = ["Candidates", "Found", "document_of", "gather", "missing", "names_of", "text_of"]

#: What one search has found: nodes and scores, best first.
Found = list[tuple[BaseNode, float]]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Passages to put in order.

    Attributes:
        nodes: The passages, each once.
        scores: For each search, the known scores by node id.
        ranks: For each search, the places from 1 by node id, of those that it found.
        floors: For each search, the score that a passage has at most of which none is known.
    """

    nodes: tuple[BaseNode, ...]
    scores: Mapping[str, Mapping[str, float]]
    ranks: Mapping[str, Mapping[str, int]]
    floors: Mapping[str, float]

    def without(self, node_id: str) -> Candidates:
        """Return what would have been found if one passage were not there."""
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.node_id != node_id),
            scores={
                name: {key: score for key, score in known.items() if key != node_id}
                for name, known in self.scores.items()
            },
        )

    def evidence(self, question: str) -> Evidence:
        """Compute what speaks for each passage; shape ``(len(nodes), 5)``."""
        dense, lexical = self.scores.get("dense", {}), self.scores.get("lexical", {})
        return evidence(
            question,
            texts=[text_of(node) for node in self.nodes],
            documents=[document_of(node) for node in self.nodes],
            dense=[dense.get(node.node_id) for node in self.nodes],
            lexical=[lexical.get(node.node_id) for node in self.nodes],
            dense_floor=self.floors.get("dense"),
            lexical_floor=self.floors.get("lexical", 0.0),
        )


def gather(found: Mapping[str, Found], completed: Mapping[str, Found], *, depth: int) -> Candidates:
    """Join what the searches found.

    Args:
        found: For each search its nodes and scores, best first.
        completed: For each search the scores that it gave on being asked for those nodes that
            only another one had found. A node that it then left out has none of the words.
        depth: The most nodes that a search could bring.
    """
    nodes = {node.node_id: node for hits in found.values() for node, _ in hits}
    floors: dict[str, float] = {}
    for name, hits in found.items():
        if name == "dense" and hits:
            floors[name] = hits[-1][1]
        elif name == "lexical":
            cut_off = len(hits) >= depth and name not in completed
            floors[name] = hits[-1][1] if cut_off else 0.0
    return Candidates(
        nodes=tuple(nodes.values()),
        scores={
            name: {node.node_id: score for node, score in [*hits, *completed.get(name, [])]}
            for name, hits in found.items()
        },
        ranks={
            name: {node.node_id: rank for rank, (node, _) in enumerate(hits, start=1)}
            for name, hits in found.items()
        },
        floors=floors,
    )


def missing(found: Mapping[str, Found]) -> dict[str, list[str]]:
    """Return for each search the ids of the nodes that only another one found, if any."""
    everything = list(dict.fromkeys(node.node_id for hits in found.values() for node, _ in hits))
    absent: dict[str, list[str]] = {}
    for name, hits in found.items():
        own = {node.node_id for node, _ in hits}
        if unknown := [node_id for node_id in everything if node_id not in own]:
            absent[name] = unknown
    return absent


def text_of(node: BaseNode) -> str:
    """Return the text of a node with its header, as an LLM would be shown it."""
    return node.get_content(metadata_mode=MetadataMode.LLM)


def document_of(node: BaseNode) -> str:
    """Return the id of a node's document, or its own if it has none."""
    return node.ref_doc_id or node.node_id


def names_of(node: BaseNode) -> frozenset[str]:
    """Return the names by which a question's ``gold_ids`` may mean a node."""
    names: Sequence[object] = (node.node_id, node.ref_doc_id, node.metadata.get("source_id"))
    return frozenset(str(name) for name in names if name)
