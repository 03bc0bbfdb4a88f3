"""The passages of a user's store, and which of them the questions are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from phi3_industry.errors import ConfigurationError, TrainingDataError
from phi3_industry.finetuning.evidence import Evidence, Passage, find_whole
from phi3_industry.finetuning.splits import split_questions
from phi3_industry.grounding.questions import Question

__all__ = ["Labelled", "holds_answer", "label", "passages_of", "read_passages", "split"]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A question with the passages that answer it.

    Attributes:
        question: The question.
        gold: Positions of its gold passages in the corpus, at least one.
    """

    question: Question
    gold: tuple[int, ...]


def read_passages(store: Any, questions: Sequence[Question]) -> list[Passage]:
    """Read the passages of a store as they are embedded.

    Args:
        store: A knowledge base, a LlamaIndex index, vector store or retriever, or nodes. Of a
            retriever the passages are those that it finds for the questions.
        questions: The questions.

    Raises:
        ConfigurationError: The vector store cannot list its nodes.
        TrainingDataError: There are fewer than two passages.
    """
    if isinstance(store, BaseRetriever):
        found = [item.node for q in questions for item in store.retrieve(q.question)]
        nodes: Iterable[BaseNode] = {node.node_id: node for node in found}.values()
    else:
        nodes = _listed(store)
    passages = passages_of(nodes)
    if len(passages) < 2:
        raise TrainingDataError(
            f"The store holds {len(passages)} passages; to tell a passage from others there must "
            "be at least two. Add documents first."
        )
    return passages


def passages_of(nodes: Iterable[BaseNode]) -> list[Passage]:
    """Give nodes as passages, with the text that is embedded; empty ones are left out."""
    passages = []
    for node in nodes:
        text = node.get_content(metadata_mode=MetadataMode.EMBED)
        if not text.strip():
            continue
        name = str(node.metadata.get("source_id") or node.node_id)
        passages.append(
            Passage(
                node_id=node.node_id,
                name=name,
                document=str(node.ref_doc_id or node.metadata.get("doc_id") or name),
                text=text,
            )
        )
    return passages


def label(questions: Sequence[Question], passages: Sequence[Passage]) -> list[Labelled]:
    """Find the gold passages of each question.

    Args:
        questions: The questions, with ``gold_ids``: node ids, source ids or document ids.
        passages: The passages.

    Returns:
        The questions that have a gold passage. Where an id names several, as that of a document
        does, those that hold an answer are gold, or all of them if none does.

    Raises:
        TrainingDataError: No question has a gold passage.
    """
    by_id: dict[str, list[int]] = defaultdict(list)
    for position, passage in enumerate(passages):
        for name in sorted(passage.ids):
            by_id[name].append(position)
    labelled = []
    for question in questions:
        named = sorted({place for name in question.gold_ids for place in by_id.get(name, ())})
        if len(named) > len(question.gold_ids):
            named = [
                place for place in named if holds_answer(question, passages[place].text)
            ] or named
        if named:
            labelled.append(Labelled(question=question, gold=tuple(named)))
    if not labelled:
        asked = sum(bool(question.gold_ids) for question in questions)
        example = next((q.gold_ids[0] for q in questions if q.gold_ids), None)
        known = passages[0].name
        raise TrainingDataError(
            f"Of {len(questions)} questions {asked} name passages in gold_ids and none of these is "
            f"in the store: '{example}' is asked for and a passage is called '{known}', say. Give "
            "each question the node id, source_id or document id of a passage that answers it."
        )
    return labelled


def holds_answer(question: Question, text: str) -> bool:
    """Tell whether the whole of an answer stands in a text."""
    return any(find_whole(answer, text) for answer in question.answers)


def split(
    labelled: Sequence[Labelled], passages: Sequence[Passage], *, share: float, seed: int
) -> tuple[list[Labelled], list[Labelled], str]:
    """Hold out questions by source document.

    Returns:
        Those to train on, those held out, and what was held out: ``"document"`` or ``"passage"``.
    """
    if not share:
        return list(labelled), [], "nothing"
    evidence = [Evidence(question=item.question, gold=passages[item.gold[0]]) for item in labelled]
    splits, split_by = split_questions(evidence, share=share, seed=seed)
    held = [item for item in labelled if splits[item.question.id] == "validation"]
    return [item for item in labelled if item not in held], held, split_by


def _listed(store: Any) -> Iterable[BaseNode]:
    if isinstance(store, Sequence):
        return store
    vector_store = getattr(store, "vector_store", store)  # of a knowledge base or an index
    if not isinstance(vector_store, BasePydanticVectorStore):
        raise TypeError(
            f"The store is a {type(store).__name__}; it must be a knowledge base, a LlamaIndex "
            "index, vector store or retriever, or a list of nodes."
        )
    if not vector_store.stores_text and hasattr(store, "docstore"):
        return list(store.docstore.docs.values())
    try:
        return vector_store.get_nodes()
    except NotImplementedError as error:
        raise ConfigurationError(
            f"A {type(vector_store).__name__} cannot list its nodes. Give the nodes themselves, or "
            "a retriever over the store."
        ) from error
