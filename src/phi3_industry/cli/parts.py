"""What the commands share: opening a knowledge base and loading an LLM."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_industry._addresses import masked
from phi3_industry.cli.console import Console
from phi3_industry.cli.stores import IN_THE_FOLDER, check_store, opened_store, vector_length
from phi3_industry.errors import AdapterError, StoreError

if TYPE_CHECKING:
    from phi3_industry.knowledge_base import KnowledgeBase
    from phi3_industry.llms import Phi3LLM

__all__ = [
    "check_file_to_write",
    "check_places",
    "choose_threads",
    "holds_knowledge_base",
    "load_llm",
    "open_knowledge_base",
    "whole_file",
]


def check_places(arguments: argparse.Namespace) -> None:
    """Check, before anything is loaded, that what is to be read is there.

    Raises:
        StoreError: There is no knowledge base, or its nodes lie elsewhere.
        AdapterError: There is no adapter folder, and no server that could have it.
    """
    elsewhere = None if arguments.store == IN_THE_FOLDER else arguments.store
    if not holds_knowledge_base(arguments.kb):
        raise StoreError(
            f"There is no knowledge base in '{arguments.kb}'. Build it with: phi3-industry index "
            f"DOCUMENTS --kb {arguments.kb}"
            + (f' --store "{masked(elsewhere)}"' if elsewhere else "")
        )
    check_store(arguments.kb, elsewhere, option="--store")
    adapter = getattr(arguments, "adapter", None)  # finetune makes one
    if adapter is None or arguments.base_url is not None:
        return
    if not (Path(adapter) / "adapter_config.json").is_file():
        raise AdapterError(
            f"There is no adapter in '{adapter}'. Train one with: phi3-industry finetune QUESTIONS "
            f"--output {adapter}"
        )


def holds_knowledge_base(folder: str) -> bool:
    """Tell whether a folder holds a knowledge base, or the register of one."""
    from phi3_industry.vector_stores.others.register import REGISTER_NAME
    from phi3_industry.vector_stores.schema import DATABASE_NAME

    return any((Path(folder) / name).is_file() for name in (DATABASE_NAME, REGISTER_NAME))


@contextmanager
def open_knowledge_base(
    path: str,
    console: Console,
    *,
    store: str | None = None,
    embedding: str = "embedded",
    read_only: bool = False,
    summaries: str | None = None,
) -> Iterator[KnowledgeBase]:
    """Open a knowledge base, and close it and its store afterwards.

    Args:
        path: Its folder.
        console: Where to show that it takes its time.
        store: The address of the vector store that its nodes lie in; ``None`` if they lie in the
            folder.
        embedding: The name of its embedding.
        read_only: Never write.
        summaries: What is shown above each passage of its document.

    Raises:
        StoreError: It cannot be opened, or its nodes lie elsewhere.
    """
    with ExitStack() as opened:
        with console.working("Opening the knowledge base"):
            from phi3_industry.embeddings import load_embedding
            from phi3_industry.knowledge_base import KnowledgeBase

            embed_model = load_embedding(embedding)
            vector_store = opened.enter_context(
                opened_store(
                    path, store, option="--store", dimensions=lambda: vector_length(embed_model)
                )
            )
            knowledge_base = opened.enter_context(
                KnowledgeBase.open(
                    path,
                    embed_model=embed_model,
                    vector_store=vector_store,
                    read_only=read_only,
                    summaries=summaries,
                )
            )
        yield knowledge_base


def load_llm(arguments: argparse.Namespace, console: Console) -> Phi3LLM:
    """Load the LLM that a command asks for, with its adapter under ``adapter_name``."""
    from phi3_industry.llms import Phi3LLM

    choose_threads(arguments.model)
    settings: dict[str, Any] = {}
    if arguments.base_url is not None:
        if arguments.origins["base_url"] != "command line":
            console.say(f"{arguments.base_url} answers, as {arguments.project.path} says.")
        settings = {
            "base_url": arguments.base_url,
            "served_model": arguments.served_model,
            "api_key_env": arguments.api_key_env,
        }
    name = arguments.adapter_name
    if name is not None and (arguments.base_url is None or Path(arguments.adapter).is_dir()):
        settings["adapter_paths"] = {name: arguments.adapter}
    llm = Phi3LLM(
        model=arguments.model,
        quantization=arguments.quantization,
        device=arguments.device,
        **settings,
    )
    with console.working("Loading the model"):
        return llm.load()


def choose_threads(model: str) -> None:
    """Compute the embedded model on one thread.

    Its matrices are so small that threads wait for each other longer than they compute; beside
    another busy process the wait was many times the work.
    """
    from phi3_industry.models.catalog import EMBEDDED

    if model == EMBEDDED:
        import torch

        torch.set_num_threads(1)


def check_file_to_write(path: str | None) -> None:
    """Check, before anything is computed for it, that a file can be written.

    Args:
        path: The file; ``None`` if none is wanted.

    Raises:
        OSError: It is a folder, or its folder is not there.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; name a file to write.")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(
            f"'{path}' cannot be written: there is no folder '{Path(path).parent}'. Make it first."
        )


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Give a name to write a file under, which gets its own name when it is whole.

    Args:
        path: The file; one that is there stays until then.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield str(partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
