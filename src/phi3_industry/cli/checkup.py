"""Whether a project's parts are there and fit each other."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phi3_industry.cli.console import Console
from phi3_industry.cli.failures import explain
from phi3_industry.cli.parts import holds_knowledge_base, load_llm, open_knowledge_base
from phi3_industry.cli.stores import chosen_store

__all__ = ["Finding", "check_project"]

State = Literal["ok", "note", "problem"]

_LITTLE_ROOM_GIB = 1.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a look at one part gave.

    Attributes:
        part: The part.
        state: ``"problem"`` if something has to be done, ``"note"`` if something may.
        text: What is true, and what to do.
    """

    part: str
    state: State
    text: str


def check_project(arguments: argparse.Namespace, console: Console) -> Iterator[Finding]:
    """Look at each part that the settings name.

    Args:
        arguments: The settings, resolved.
        console: Where to show what takes its time.
    """
    for part, look in _CHECKS.items():
        try:
            found = look(arguments, console)
        except Exception as error:  # each part is looked at, whatever is wrong with others
            found = ("problem", explain(error))
        if found is not None:
            yield Finding(part=part, state=found[0], text=found[1])


_Found = tuple[State, str] | None


def _documents(arguments: argparse.Namespace, _: Console) -> _Found:
    sources = [Path(source) for source in arguments.documents or ()]
    if not sources:
        return None
    missing = [str(source) for source in sources if not source.exists()]
    if missing:
        return (
            "problem",
            f"There is no {', '.join(missing)}. Correct documents in the project file.",
        )
    files = sum(path.is_file() for s in sources for path in (s.rglob("*") if s.is_dir() else (s,)))
    return "ok", f"{', '.join(map(str, sources))}: {files} files"


def _knowledge_base(arguments: argparse.Namespace, console: Console) -> _Found:
    from phi3_industry.vector_stores import FaissSQLiteVectorStore

    if not holds_knowledge_base(arguments.kb):
        return "note", (
            f"There is none in '{arguments.kb}' yet. Build it with: phi3-industry index DOCUMENTS"
        )
    with open_knowledge_base(
        arguments.kb,
        console,
        store=chosen_store(arguments, console),
        embedding=arguments.embedding,
        read_only=True,
    ) as knowledge_base:
        store = knowledge_base.vector_store
        documents = len(knowledge_base.documents)
        content = f"{arguments.kb}: {documents} documents, {store.count} nodes"
        if not isinstance(store, FaissSQLiteVectorStore):
            return "ok", f"{content} in {store.place}, of which some were looked for and are there"
        if not arguments.verify:
            return "ok", f"{content} (--verify compares all of it with its checksums)"
        with console.working("Reading the whole knowledge base"):
            report = store.verify()
    if report.index_file == "damaged":
        return "note", f"{content}; its index is damaged and is made anew at the next writing"
    return "ok", f"{content}; every row is as it was written"


def _model(arguments: argparse.Namespace, _: Console) -> _Found:
    from phi3_industry.models.catalog import EMBEDDED, resolve_model

    place, name = resolve_model(arguments.model)
    if arguments.base_url is not None:
        return None
    if arguments.model == EMBEDDED:
        return "ok", "embedded, the small one that ships with the package; for work name another"
    if Path(place).is_dir():
        missing = not (Path(place) / "config.json").is_file()
        return (
            ("problem", f"The folder '{place}' holds no config.json, so it is no checkpoint.")
            if missing
            else ("ok", f"{name}, in the folder '{place}'")
        )
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        return "problem", f"'{place}' is neither 'embedded', nor a folder, nor a hub id."
    return "ok", f"{name}, from the hub or its cache (not loaded here)"


def _server(arguments: argparse.Namespace, console: Console) -> _Found:
    if arguments.base_url is None:
        return None
    llm = load_llm(arguments, console)
    served = ", ".join(llm.adapters) or "none"
    return "ok", f"{arguments.base_url} answers; its adapters: {served}"


def _adapter(arguments: argparse.Namespace, _: Console) -> _Found:
    if arguments.adapter is None or (arguments.base_url and not Path(arguments.adapter).is_dir()):
        return None
    from phi3_industry.grounding.prompt import DEFAULT_PROMPT
    from phi3_industry.models.adapter import read_manifest
    from phi3_industry.models.catalog import resolve_model

    if not Path(arguments.adapter).is_dir():
        return "problem", (
            f"There is no adapter in '{arguments.adapter}'. Train it with: phi3-industry finetune "
            f"QUESTIONS --output {arguments.adapter}"
        )
    manifest = read_manifest(arguments.adapter)
    wanted = resolve_model(arguments.model)[1]
    if manifest.base_model != wanted:
        return "problem", (
            f"'{arguments.adapter}' was trained on '{manifest.base_model}', and the model is "
            f"'{wanted}'. Set model to the former, or train on the latter."
        )
    if manifest.prompt_fingerprint != DEFAULT_PROMPT.fingerprint:
        return "problem", f"'{arguments.adapter}' was trained with another prompt. Train it anew."
    return "ok", f"{arguments.adapter}: {manifest.method} on '{manifest.base_model}'"


def _questions(key: str) -> Callable[[argparse.Namespace, Console], _Found]:
    def look(arguments: argparse.Namespace, _: Console) -> _Found:
        from phi3_industry.grounding.questions import load_questions

        path: str | None = getattr(arguments, key)
        return None if path is None else ("ok", f"{path}: {len(load_questions(path))} questions")

    return look


def _disk(arguments: argparse.Namespace, _: Console) -> _Found:
    folder = Path(arguments.kb).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    text = f"{free:.1f} GiB are free in '{folder}'"
    if free < _LITTLE_ROOM_GIB:
        return "problem", f"Only {text}. Free some before you index or train."
    return "ok", text


_CHECKS: dict[str, Callable[[argparse.Namespace, Console], _Found]] = {
    "documents": _documents,
    "knowledge base": _knowledge_base,
    "model": _model,
    "server": _server,
    "adapter": _adapter,
    "questions": _questions("questions"),
    "train_questions": _questions("train_questions"),
    "disk": _disk,
}
