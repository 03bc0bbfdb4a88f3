"""What the commands share: opening a knowledge base, an LLM, and showing an answer."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry.errors import StoreError

if TYPE_CHECKING:
    from phi3_industry.knowledge_base import KnowledgeBase
    from phi3_industry.llms import Phi3LLM

__all__ = [
    "adapter_name",
    "choose_threads",
    "describe_answer",
    "load_llm",
    "open_knowledge_base",
    "print_answer",
]

_WIDTH = 88


def open_knowledge_base(
    path: str,
    *,
    embedding: str = "embedded",
    read_only: bool = False,
    summaries: str | None = None,
) -> KnowledgeBase:
    """Open a knowledge base; one that is only to be read has to be there.

    Raises:
        StoreError: There is none to read.
    """
    if read_only and not (Path(path) / "store.sqlite").is_file():
        raise StoreError(
            f"There is no knowledge base in '{path}'. Build it with: phi3-industry index DOCUMENTS "
            f"--kb {path}"
        )
    from phi3_industry.embeddings import load_embedding
    from phi3_industry.knowledge_base import KnowledgeBase

    return KnowledgeBase.open(
        path,
        embed_model=load_embedding(embedding),
        read_only=read_only,
        summaries=summaries,
    )


def load_llm(arguments: argparse.Namespace) -> Phi3LLM:
    """Make the LLM that a command asks for, with its adapter under the folder's name."""
    from phi3_industry.llms import Phi3LLM

    choose_threads(arguments.model)
    llm = Phi3LLM(model=arguments.model, quantization=arguments.quantization)
    name = adapter_name(arguments)
    if name is not None:
        llm.load_adapter(arguments.adapter, name)
    return llm


def choose_threads(model: str) -> None:
    """Compute the embedded model on one thread.

    Its matrices are so small that threads wait for each other longer than they compute; beside
    another busy process the wait was many times the work.
    """
    from phi3_industry.models.catalog import EMBEDDED

    if model == EMBEDDED:
        import torch

        torch.set_num_threads(1)


def adapter_name(arguments: argparse.Namespace) -> str | None:
    """Name of the adapter that a command asks for: that of its folder."""
    return None if arguments.adapter is None else Path(arguments.adapter).resolve().name


def describe_answer(question: str, response: Any) -> dict[str, Any]:
    """Put an answer into plain JSON values."""
    return {
        "question": question,
        "answer": str(response),
        **response.metadata,
        "sources": [
            {
                "marker": number,
                "node_id": source.node.node_id,
                "source_id": source.node.metadata.get("source_id"),
                "score": source.score,
                "text": _passage(source),
            }
            for number, source in enumerate(response.source_nodes, start=1)
        ],
    }


def print_answer(question: str, response: Any) -> None:
    """Show an answer with the passages it cites and the reason of its strategy."""
    metadata = response.metadata
    print(question)
    print(f"  {str(response).strip()}")
    checked = {item["node_id"]: item["verified"] for item in metadata["citations"]}
    for number, source in enumerate(response.source_nodes, start=1):
        if source.node.node_id not in checked:
            continue
        mark = "quote found" if checked[source.node.node_id] else "QUOTE NOT FOUND"
        print(f"    [{number}] {source.node.metadata.get('source_id', '')} ({mark})")
        text = textwrap.shorten(" ".join(_passage(source).split()), 3 * _WIDTH, placeholder=" …")
        print(textwrap.indent(textwrap.fill(text, _WIDTH - 8), " " * 8))
    reason = f"{metadata['strategy']}: {metadata['reason']}"
    print(textwrap.indent(textwrap.fill(reason, _WIDTH - 4), " " * 4))


def _passage(source: Any) -> str:
    from llama_index.core.schema import MetadataMode

    return str(source.node.get_content(metadata_mode=MetadataMode.LLM))
