"""Sections and rows become nodes, each with the headings above it as its context."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.node_parser import NodeParser
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.utils import get_tqdm_iterable

from phi3_industry.ingestion.cells import cell_value, typed_cell, unit_of
from phi3_industry.ingestion.chunking import split_text
from phi3_industry.ingestion.markdown import read_markdown
from phi3_industry.ingestion.plain_text import read_plain_text
from phi3_industry.ingestion.source import SourceDocument, one_line
from phi3_industry.ingestion.tables import Table, row_texts
from phi3_industry.ingestion.tokens import (
    NamedTokenizer,
    count_globally,
    input_limit_of,
    token_counter_of,
)

__all__ = ["SectionNodeParser", "source_of"]

_CELL_CHARS = 256
"""Longer cells are text for reading and no value to filter by: they get no ``cell:`` entry."""

_HEADER_SHARE = 3
"""A context header takes at most one third of a node's tokens."""


class SectionNodeParser(NodeParser):
    """Splits documents at their headings into nodes that know where they stand.

    A section is never joined with another one. A long section is split at paragraphs and
    sentences, a table into its rows. Each node's metadata holds a ``context_header``, the title
    and the headings above it, which is put before the text for the embedding and the LLM::

        parser = SectionNodeParser()
        pipeline = IngestionPipeline(transformations=[parser, embed_model])

    Attributes:
        max_tokens: The most tokens of a node, its context header included.
        min_tokens: Tokens from which on a long section may be split at a paragraph.
        text_format: How LlamaIndex documents are read: as Markdown, or as text without marks.
        tokenizer: Whose tokens are counted: a Hugging Face id, a folder, or ``"embedded"`` for the
            embedded embedding's; LlamaIndex's global tokenizer if not given. A name rather than
            an object, so that the parser can be made from plain values on another machine.
        token_counter: Counts the tokens of a text in its place.
    """

    max_tokens: int = Field(default=384, ge=16)
    min_tokens: int = Field(default=256, ge=1)
    text_format: Literal["markdown", "plain"] = "markdown"
    tokenizer: str | None = None
    token_counter: Callable[[str], int] = Field(default=count_globally, exclude=True)
    # ids are hashes; the inherited field cannot be read back from its serialised form
    id_func: Any = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _check(self) -> SectionNodeParser:
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens is {self.min_tokens} and max_tokens is {self.max_tokens}; it must "
                "not be larger."
            )
        if self.tokenizer is not None and self.token_counter is count_globally:
            self.token_counter = NamedTokenizer(self.tokenizer)
        return self

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex serialises this class under."""
        return "SectionNodeParser"

    @classmethod
    def from_embed_model(cls, embed_model: Any, **settings: Any) -> SectionNodeParser:
        """Make a parser that counts as an embedding model does and never exceeds its limit.

        Args:
            embed_model: A LlamaIndex embedding.
            **settings: The attributes of this class. ``max_tokens`` and ``min_tokens`` are
                lowered if the model reads less than that.
        """
        defaults = {name: cls.model_fields[name].default for name in ("max_tokens", "min_tokens")}
        counter = (
            {} if settings.get("tokenizer") else {"token_counter": token_counter_of(embed_model)}
        )
        chosen = {**defaults, **counter, **settings}
        limit = input_limit_of(embed_model)
        if limit is not None:
            chosen["max_tokens"] = min(chosen["max_tokens"], limit)
        chosen["min_tokens"] = min(chosen["min_tokens"], 2 * chosen["max_tokens"] // 3)
        return cls(**chosen)

    @property
    def fingerprint(self) -> str:
        """What of the settings shapes the nodes, as text for content hashes."""
        return json.dumps([_VERSION, self.max_tokens, self.min_tokens, self.text_format])

    def nodes_of(
        self,
        document: SourceDocument,
        *,
        document_id: str,
        metadata: dict[str, Any] | None = None,
    ) -> list[TextNode]:
        """Make the nodes of a document.

        Args:
            document: The document.
            document_id: Its id: for files the path, relative to their folder, with ``/``.
            metadata: What else to write into each node's metadata; shown neither to the
                embedding nor to the LLM.

        Returns:
            The nodes in the document's order. Their ids are SHA-256 hashes of document id,
            position and text.
        """
        return list(self.stream(document, document_id=document_id, metadata=metadata))

    def stream(
        self,
        document: SourceDocument,
        *,
        document_id: str,
        metadata: dict[str, Any] | None = None,
    ) -> Iterator[TextNode]:
        """Make the nodes of a document one after the other, as `nodes_of` does."""
        said = {"date": document.date, "version_of": document.version_of}
        dated = {name: value for name, value in said.items() if value}
        for position, (text, header, details) in enumerate(self._passages(document)):
            own = {
                **(metadata or {}),
                "context_header": header,
                "file_name": PurePosixPath(document_id).name,
                "file_path": document_id,
                "title": document.title,
                **dated,
                **details,
            }
            name = details.get("row_key") or details["section"]
            if details.get("group"):
                name = f"{details['group']} > {name}" if name else details["group"]
            own["source_id"] = f"{document_id}#{name}" if name else document_id
            yield _node(text, own, document_id=document_id, position=position)

    def _passages(self, document: SourceDocument) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield (text, context header, metadata) of each node."""
        for block in document.blocks:
            path = [document.title, *block.section]
            if isinstance(block, Table):
                if block.name and block.name != path[-1]:
                    path.append(block.name)
                yield from self._rows(block, path, document.date)
                continue
            header, room = self._header(path, document.date)
            pieces = split_text(
                block.text,
                max_tokens=room,
                min_tokens=min(self.min_tokens, room),
                count_tokens=self.token_counter,
                whole=block.whole,
            )
            for piece in pieces:
                yield piece, header, {"section": " > ".join(block.section), "kind": "text"}

    def _rows(
        self, table: Table, path: Sequence[str], date: str
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        formats = table.column_formats()
        group: tuple[str, ...] | None = None
        header, room = "", 0
        for index, cells in enumerate(table.rows):
            if table.group_of(index) != group:
                group = table.group_of(index)
                header, room = self._header([*path, *group], date)
            details: dict[str, Any] = {
                "section": " > ".join(table.section),
                "kind": "table_row",
                "table": table.name,
                "row_key": cells[table.key_column],
                "row_number": table.first_row + index,
            }
            if group:
                details["group"] = " > ".join(group)
            for place, (column, cell) in enumerate(zip(table.columns, cells, strict=True)):
                if cell and len(cell) <= _CELL_CHARS:
                    is_text = place in table.text_columns
                    details |= _cell_entries(column, cell, formats[place], is_text=is_text)
            notes = table.notes_of(index)
            for text in row_texts(
                [*table.columns, *(mark for mark, _ in notes)],
                [*cells, *(note for _, note in notes)],
                table.key_column,
                max_tokens=room,
                count_tokens=self.token_counter,
            ):
                yield text, header, details

    def _header(self, path: Sequence[str], date: str) -> tuple[str, int]:
        """Join path and date and give the tokens left for text; a long one is cut from the left.

        The title, the last heading and the date say the most, so headings between them go first.
        """
        most = self.max_tokens // _HEADER_SHARE
        path = [*path, date] if date else path
        parts = [one_line(part)[: 8 * most] for part in path]
        kept = 3 if date else 2
        while len(parts) > kept and self.token_counter(" > ".join(parts)) > most:
            del parts[1]
        header = " > ".join(parts)
        if self.token_counter(header) > most:
            header = split_text(header, max_tokens=most, count_tokens=self.token_counter)[0]
        return header, self.max_tokens - self.token_counter(f"{header}\n")

    def _parse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **_: Any
    ) -> list[BaseNode]:
        parsed: list[BaseNode] = []
        for node in get_tqdm_iterable(nodes, show_progress, "Parsing documents"):
            parsed += self.nodes_of(
                self.read(node), document_id=node.node_id, metadata=node.metadata
            )
        return parsed

    def read(self, node: BaseNode) -> SourceDocument:
        """Read a LlamaIndex document, by its ``text_format``."""
        name = str(node.metadata.get("title") or node.metadata.get("file_name") or "")
        read = read_markdown if self.text_format == "markdown" else read_plain_text
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        return read(text, fallback_title=name or node.node_id)


_VERSION = 3
"""Raised when the same document would give other nodes than before."""


def _cell_entries(
    column: str, cell: str, column_format: str, *, is_text: bool
) -> dict[str, int | float | str]:
    """Write a cell for filters: as it stands, and as the number with unit or date that it is."""
    value = cell if is_text else cell_value(cell)
    entries = {f"cell:{column}": value}
    typed = typed_cell(cell, column_format)
    if unit_of(column) and ("number" in typed or not isinstance(value, str)):
        typed = {"unit": unit_of(column), **typed}
    return {**entries, **{f"{kind}:{column}": read for kind, read in typed.items()}}


def _node(text: str, metadata: dict[str, Any], *, document_id: str, position: int) -> TextNode:
    digest = hashlib.sha256(json.dumps([document_id, position, text]).encode()).hexdigest()
    hidden = [key for key in metadata if key != "context_header"]
    return TextNode(
        id_=digest,
        text=text,
        metadata=metadata,
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=list(hidden),
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
        relationships=source_of(document_id),
    )


def source_of(document_id: str) -> dict[NodeRelationship, Any]:
    """Say which document a node is from, as LlamaIndex writes it."""
    source = RelatedNodeInfo(node_id=document_id, node_type=ObjectType.DOCUMENT)
    return {NodeRelationship.SOURCE: source}
