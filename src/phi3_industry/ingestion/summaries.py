"""A document's summary, shown to the LLM above each of its passages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol

from llama_index.core.schema import TextNode

from phi3_industry.ingestion.chunking import split_text
from phi3_industry.ingestion.source import Block, SourceDocument, TextBlock, one_line
from phi3_industry.ingestion.tables import Table
from phi3_industry.ingestion.tokens import count_globally

__all__ = [
    "DEFAULT_SUMMARY_PROMPT",
    "LLMSummaries",
    "OutlineSummaries",
    "Summaries",
    "as_summaries",
    "attach_summary",
    "open_document",
    "summary_key",
]

DEFAULT_SUMMARY_PROMPT = """\
Say in at most three sentences what the document below is about: its subject, the things, places \
or people that it names, and the time that it is of. Write in the language of the document. Add \
nothing that is not in it, and give nothing but these sentences.

{document}"""

_OPENING_CHARS = 24_000
_OUTLINE_CHARS = 400
_HEADINGS = 12


class Summaries(Protocol):
    """Writes summaries."""

    @property
    def fingerprint(self) -> str:
        """What shapes a summary; documents are read anew when it changes."""

    def summarise(self, opening: str, blocks: Iterable[Block]) -> str:
        """Write the summary of a document from its opening, as text and as blocks."""


@dataclass(frozen=True)
class OutlineSummaries:
    """The first lines of a document and its headings: free, and nothing is made up.

    Attributes:
        max_chars: The most characters of a summary.
    """

    max_chars: int = _OUTLINE_CHARS

    @property
    def fingerprint(self) -> str:
        """What shapes a summary."""
        return f"outline {self.max_chars}"

    def summarise(self, opening: str, blocks: Iterable[Block]) -> str:  # noqa: ARG002 - the protocol's
        """Join the first lines and the headings."""
        headings: dict[str, None] = {}
        lines = ""
        for block in blocks:
            named = (block.name or ", ".join(block.columns)) if isinstance(block, Table) else ""
            headings |= dict.fromkeys(filter(None, (*block.section[:2], named)))
            if isinstance(block, TextBlock) and not lines:
                lines = _first(one_line(block.text), self.max_chars // 2)
        outline = " · ".join(islice(headings, _HEADINGS))
        return _first(" … ".join(filter(None, (lines, outline))), self.max_chars)


@dataclass(frozen=True)
class LLMSummaries:
    """Summaries that a LlamaIndex LLM writes, once for each content of a document.

    They help an LLM to place a passage, and they are no source: the LLM that writes them may be
    wrong where the document is not.

    Attributes:
        llm: The LLM.
        prompt: What it is asked; ``{document}`` stands for the opening of the document.
        max_input_tokens: The most tokens of the opening, by LlamaIndex's global tokenizer.
    """

    llm: Any
    prompt: str = DEFAULT_SUMMARY_PROMPT
    max_input_tokens: int = 2000

    def __post_init__(self) -> None:
        if "{document}" not in self.prompt:
            raise ValueError("The prompt for summaries has no place for '{document}'. Add it.")
        if self.max_input_tokens < 1:
            raise ValueError(f"max_input_tokens is {self.max_input_tokens}; it must be at least 1.")

    @property
    def fingerprint(self) -> str:
        """What shapes a summary."""
        return json.dumps([self.llm.metadata.model_name, self.prompt, self.max_input_tokens])

    def summarise(self, opening: str, blocks: Iterable[Block]) -> str:  # noqa: ARG002 - the protocol's
        """Ask the LLM."""
        pieces = split_text(opening, max_tokens=self.max_input_tokens, count_tokens=count_globally)
        # no str.format: braces in a document or in a user's prompt are no fields
        reply = self.llm.complete(self.prompt.replace("{document}", pieces[0] if pieces else ""))
        return one_line(str(reply))


def as_summaries(given: object) -> Summaries | None:
    """Take what a user names for summaries: nothing, ``"outline"``, an LLM, or a writer.

    Raises:
        TypeError: It is none of these.
    """
    if given is None:
        return None
    if given == "outline":
        return OutlineSummaries()
    if hasattr(given, "summarise") and hasattr(given, "fingerprint"):
        return given  # what the protocol asks for
    if hasattr(given, "complete") and hasattr(given, "metadata"):
        return LLMSummaries(given)
    raise TypeError(
        f"summaries is {given!r}; it can be None, 'outline', a LlamaIndex LLM, or an object with "
        "summarise() and a fingerprint."
    )


def open_document(document: SourceDocument) -> tuple[str, list[Block], SourceDocument]:
    """Take the opening of a document without losing anything of it.

    Returns:
        Its opening as text and as blocks, and the document, which can still be gone through.
    """
    blocks = iter(document.blocks)
    taken: list[Block] = []
    texts = [document.title]
    size = 0
    for block in blocks:
        taken.append(block)
        text = _as_text(block)
        size += len(text)
        texts.append(text)
        if size > _OPENING_CHARS:
            break
    opening = "\n\n".join(texts)[:_OPENING_CHARS]
    whole = replace(document, blocks=chain(taken, blocks))
    return opening, taken, whole


def attach_summary(
    nodes: Iterator[TextNode],
    *,
    key: str,
    summary: Callable[[], str],
) -> Iterator[TextNode]:
    """Put a summary into the nodes of a document, unless it has a single one.

    It is shown to the LLM below the context header. The embedding does not see it: it would be
    the same for all nodes of the document, and take their room.

    Args:
        nodes: The nodes.
        key: SHA-256 of what the summary was made of.
        summary: Gives it; called for a document of several nodes alone.
    """
    first = list(islice(nodes, 2))
    if len(first) < 2:
        yield from first
        return
    text = summary()
    for node in chain(first, nodes):
        own = dict(node.metadata)
        header = {"context_header": own.pop("context_header", "")}
        node.metadata = {**header, "summary": text, **own, "summary_key": key}
        node.excluded_embed_metadata_keys += ["summary", "summary_key"]
        node.excluded_llm_metadata_keys += ["summary_key"]
        yield node


def summary_key(opening: str, summaries: Summaries) -> str:
    """Give the SHA-256 of what a summary is made of."""
    listed = json.dumps([summaries.fingerprint, opening])
    return hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()


def _as_text(block: Block) -> str:
    heading = " > ".join(block.section)
    if isinstance(block, TextBlock):
        return f"{heading}\n{block.text}" if heading else block.text
    rows = [" | ".join(row) for row in block.rows[:20]]
    return "\n".join(filter(None, (heading, block.name, " | ".join(block.columns), *rows)))


def _first(text: str, chars: int) -> str:
    pieces = split_text(text, max_tokens=chars, count_tokens=len)
    return pieces[0] if pieces else ""
