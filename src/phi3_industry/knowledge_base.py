"""Documents and tables become nodes in a durable store, and the store becomes answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import Document
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters

from phi3_industry.errors import IngestionError, StoreError
from phi3_industry.ingestion.candidates import (
    Candidate,
    from_document,
    from_file,
    from_query,
    known_origin,
)
from phi3_industry.ingestion.database import SqlQuery
from phi3_industry.ingestion.folder import FolderListing, list_folder
from phi3_industry.ingestion.intake import Intake
from phi3_industry.ingestion.limits import DEFAULT_LIMITS, ReadLimits
from phi3_industry.ingestion.node_parser import SectionNodeParser
from phi3_industry.ingestion.pipelines import Pipeline
from phi3_industry.ingestion.report import IngestReport
from phi3_industry.ingestion.summaries import as_summaries
from phi3_industry.vector_stores.faiss_sqlite import FaissSQLiteVectorStore
from phi3_industry.vector_stores.others import RegisteredVectorStore, open_store

if TYPE_CHECKING:
    from phi3_industry.query_engine.hybrid import HybridQueryEngine
    from phi3_industry.retrievers.fitting import FitReport
    from phi3_industry.retrievers.hybrid import HybridRetriever

__all__ = ["IngestReport", "KnowledgeBase", "Source"]

Source = str | PathLike[str] | Document | Sequence[Document]
"""What can be added: a folder, a file, or LlamaIndex documents."""


class KnowledgeBase:
    """A folder on disk that holds what your documents say, ready to be searched.

    Each document enters in one transaction. An interruption at any moment leaves every document
    whole, in its old or its new state, and a second `add` or `refresh` goes on from there::

        kb = KnowledgeBase.open("kb/", embed_model=load_embedding("embedded"))
        print(kb.add("manuals/"))
        engine = kb.as_query_engine(llm=llm)

    The id of a document from a folder is its path inside that folder, with ``/``. Documents of
    two folders that have the same path are not mixed up: the second one is skipped with a reason.

    Args:
        vector_store: The store: our own, or another with its register.
        embed_model: The LlamaIndex embedding that the store was or will be built with.
        node_parser: Splits documents into nodes; one that counts tokens as ``embed_model`` does
            if not given.
        limits: What is read of a single file.
        summaries: What is shown to the LLM above each passage about the document that it is
            from: ``None`` for nothing, ``"outline"`` for its first lines and headings, a
            LlamaIndex LLM that writes a summary once for each content, or an `LLMSummaries` with a
            prompt of your own.
    """

    def __init__(
        self,
        vector_store: FaissSQLiteVectorStore | RegisteredVectorStore,
        *,
        embed_model: BaseEmbedding,
        node_parser: SectionNodeParser | None = None,
        limits: ReadLimits = DEFAULT_LIMITS,
        summaries: Any = None,
    ) -> None:
        self._store = vector_store
        self._embed_model = embed_model
        self._parser = node_parser or SectionNodeParser.from_embed_model(embed_model)
        self._limits = limits
        self._intake = Intake(vector_store, embed_model, self._parser, as_summaries(summaries))
        self._index: VectorStoreIndex | None = None

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        embed_model: BaseEmbedding,
        vector_store: BasePydanticVectorStore | None = None,
        read_only: bool = False,
        node_parser: SectionNodeParser | None = None,
        limits: ReadLimits = DEFAULT_LIMITS,
        summaries: Any = None,
    ) -> KnowledgeBase:
        """Open a knowledge base, or begin one.

        Args:
            path: Its folder.
            embed_model: The LlamaIndex embedding. It has to be the one that the knowledge base
                was built with.
            vector_store: A LlamaIndex vector store to keep the nodes in, such as a
                ``QdrantVectorStore``; the folder holds a register of its documents then, and both
                are needed to open the knowledge base again. ``None`` keeps everything in the
                folder.
            read_only: Never write; any number may read while one writes.
            node_parser: Splits documents into nodes.
            limits: What is read of a single file.
            summaries: A summary of its document above each passage; see the class.

        Raises:
            StoreIdentityError: It was built with another embedding.
            StoreError: It cannot be read, or there is none to read, or its nodes lie elsewhere.
        """
        from phi3_industry.embeddings import embedding_identity

        store = open_store(
            path,
            identity=embedding_identity(embed_model),
            vector_store=vector_store,
            read_only=read_only,
        )
        return cls(
            store,
            embed_model=embed_model,
            node_parser=node_parser,
            limits=limits,
            summaries=summaries,
        )

    @property
    def vector_store(self) -> FaissSQLiteVectorStore | RegisteredVectorStore:
        """The store, a LlamaIndex vector store."""
        return self._store

    @property
    def embed_model(self) -> BaseEmbedding:
        """The embedding."""
        return self._embed_model

    @property
    def node_parser(self) -> SectionNodeParser:
        """What splits documents into nodes; works in LlamaIndex pipelines as well."""
        return self._parser

    @property
    def index(self) -> VectorStoreIndex:
        """An ordinary LlamaIndex index over the store."""
        if self._index is None:
            self._index = VectorStoreIndex.from_vector_store(
                self._store, embed_model=self._embed_model
            )
        return self._index

    @property
    def documents(self) -> list[str]:
        """Ids of the documents, sorted."""
        records = self._intake.records()
        ids = self._store.ref_doc_ids()
        return sorted({records[i].part_of(i) if i in records else i for i in ids})

    def add(
        self, source: Source, *, show_progress: bool = False, pipeline: Pipeline | None = None
    ) -> IngestReport:
        """Add documents; those that are there already and have not changed cost next to nothing.

        Args:
            source: A folder with everything in it, a file, a LlamaIndex document or a list of
                them.
            show_progress: Whether to show a progress bar.
            pipeline: A LlamaIndex pipeline that reads, splits and embeds in place of this
                process, such as :func:`~phi3_industry.ray_ingestion.ray_pipeline` makes. It
                begins with a ``FileNodeParser`` and ends with this knowledge base's embedding.

        Returns:
            What became of each document. What cannot be read in a folder is skipped with a
            reason.

        Raises:
            FileNotFoundError: There is no such folder or file.
            IngestionError: The folder holds no document that can be read, or the file cannot be
                read; the knowledge base is as before.
            MissingDependencyError: The package that reads the file is not installed.
            StoreError: The store cannot be written; documents that were finished are in it.
            ConfigurationError: The pipeline splits or embeds otherwise than the knowledge base.
        """
        report = IngestReport()
        if isinstance(source, Document) or not isinstance(source, str | PathLike):
            given = [source] if isinstance(source, Document) else list(source)
            shape = self._intake.fingerprint
            candidates = [
                from_document(_checked(item), parser=self._parser, fingerprint=shape)
                for item in given
            ]
            self._intake.take(candidates, report, show_progress=show_progress, pipeline=pipeline)
            return report
        path = Path(source)
        if path.is_dir():
            listing = list_folder(path)
            self._ingest_folder(
                path, listing, report, show_progress=show_progress, pipeline=pipeline
            )
            return report
        candidate = self._single_file(path)
        self._intake.take(
            [candidate], report, show_progress=show_progress, strict=True, pipeline=pipeline
        )
        return report

    def add_sql(
        self,
        url: Any,
        query: str,
        *,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        show_progress: bool = False,
    ) -> IngestReport:
        """Add the rows that a database gives to a query; again, to bring them up to date.

        Args:
            url: A SQLAlchemy URL or engine. It is kept nowhere.
            query: A query that gives rows, with an ``ORDER BY`` so that unchanged rows are known
                as such. It cannot write.
            name: The document's id and title, such as ``"pumps"``.
            parameters: Values of the query's ``:name`` parameters.
            show_progress: Whether to show a progress bar.

        Returns:
            What became of the document.

        Raises:
            IngestionError: The database cannot be reached or refuses the query.
            MissingDependencyError: SQLAlchemy or the database's driver is not installed.
            StoreError: The store cannot be written.
        """
        report = IngestReport()
        asked = SqlQuery(
            url=url, query=query, title=name, parameters=parameters or {}, limits=self._limits
        )
        candidate = from_query(asked, fingerprint=self._intake.fingerprint)
        self._intake.take([candidate], report, show_progress=show_progress, strict=True)
        return report

    def refresh(
        self,
        folder: str | PathLike[str],
        *,
        show_progress: bool = False,
        pipeline: Pipeline | None = None,
    ) -> IngestReport:
        """Bring the knowledge base to the state of a folder.

        New and changed documents are read, and those of this folder that are gone are deleted.
        Documents of other folders stay as they are.

        Args:
            folder: A folder, the same one that was added.
            show_progress: Whether to show a progress bar.
            pipeline: Computes in place of this process, as in :meth:`add`.

        Returns:
            What became of each document.

        Raises:
            FileNotFoundError: There is no such folder.
            NotADirectoryError: It is no folder.
            IngestionError: It holds no document that can be read; nothing is deleted then.
            StoreError: The store cannot be written; documents that were finished are in it.
            ConfigurationError: The pipeline splits or embeds otherwise than the knowledge base.
        """
        root = Path(folder)
        listing = list_folder(root)
        report = IngestReport()
        self._ingest_folder(root, listing, report, show_progress=show_progress, pipeline=pipeline)
        records = self._intake.records()
        inside = {i: r for i, r in records.items() if r.origin == str(root.resolve())}
        for document_id in sorted({record.part_of(i) for i, record in inside.items()}):
            if not _still_there(document_id, listing):
                self._intake.delete(document_id)
                report.deleted.append(document_id)
        return report

    def delete(self, ref_doc_id: str) -> bool:
        """Delete a document.

        Returns:
            Whether there was one.

        Raises:
            StoreError: The store cannot be written.
        """
        there = ref_doc_id in self.documents
        if there:
            self._intake.delete(ref_doc_id)
        return there

    def as_retriever(self, similarity_top_k: int = 5, **settings: Any) -> HybridRetriever:
        """Make a retriever that searches by meaning and by words.

        Args:
            similarity_top_k: Nodes to find.
            **settings: What else `HybridRetriever` takes, such as ``filters``. Its ``weights``
                are those that `fit` has found, if they are not given.
        """
        from phi3_industry.retrievers.hybrid import HybridRetriever

        if self._fitted_weights.is_file():
            settings = {"weights": self._fitted_weights, **settings}
        return HybridRetriever(
            self.index,
            embed_model=self._embed_model,
            similarity_top_k=similarity_top_k,
            **settings,
        )

    def fit(self, questions: Any = None, **settings: Any) -> FitReport:
        """Fit how meaning and words are weighed in search, and keep what was found.

        Args:
            questions: Questions with the passages that answer them, as `HybridRetriever.fit`
                takes them; ``None`` lets the documents ask themselves.
            **settings: What else `HybridRetriever.fit` takes.

        Returns:
            What was found. Weights that were adopted are kept beside the store, and every
            `as_retriever` and `as_query_engine` from now on uses them.

        Raises:
            StoreError: The knowledge base is open for reading alone.
        """
        if self._store.read_only:
            raise StoreError(
                f"The knowledge base '{self._store.path}' is open for reading alone, so that no "
                "fitted weights can be kept. Open it without read_only=True."
            )
        retriever = self.as_retriever()
        report = retriever.fit(questions, **settings)
        if report.adopted:
            report.weights.save(self._fitted_weights)
        return report

    @property
    def _fitted_weights(self) -> Path:
        return Path(self._store.path) / "fusion.json"

    def as_query_engine(
        self,
        llm: Any,
        *,
        adapter: str | None = None,
        strategy: str = "auto",
        similarity_top_k: int = 3,
        streaming: bool = False,
        filters: MetadataFilters | None = None,
        reranker: BaseNodePostprocessor | None = None,
        retriever: BaseRetriever | None = None,
        **settings: Any,
    ) -> HybridQueryEngine:
        """Make a query engine that answers with sources.

        Args:
            llm: A LlamaIndex LLM.
            adapter: Name of an adapter that the LLM has loaded.
            strategy: ``base``, ``rag``, ``fine_tuned``, ``rag_fine_tuned``, or ``auto``.
            similarity_top_k: Passages to show to the LLM.
            streaming: Whether responses stream.
            filters: The only nodes to look at, by metadata such as ``cell:Kind``.
            reranker: Orders what the retriever finds before the best ``similarity_top_k`` are
                taken, such as `Phi3Rerank` or LlamaIndex's ``SentenceTransformerRerank``.
            retriever: A retriever to use in place of `as_retriever`'s, which ``filters``,
                ``similarity_top_k`` and ``reranker`` are for.
            **settings: What else `HybridQueryEngine` takes, such as ``prompt``.
        """
        from phi3_industry.query_engine.hybrid import HybridQueryEngine

        chosen = retriever or self.as_retriever(
            similarity_top_k=similarity_top_k, filters=filters, reranker=reranker
        )
        return HybridQueryEngine(
            retriever=chosen,
            llm=llm,
            adapter=adapter,
            strategy=strategy,
            streaming=streaming,
            **settings,
        )

    def close(self) -> None:
        """Give up the files and the writer's lock."""
        self._store.close()

    def __enter__(self) -> KnowledgeBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _single_file(self, path: Path) -> Candidate:
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder '{path}'.")
        file = path.resolve()
        origin = known_origin(file, list(self._intake.records().values()))
        return from_file(
            file,
            document_id=file.relative_to(origin).as_posix(),
            origin=origin,
            fingerprint=self._intake.fingerprint,
            limits=self._limits,
        )

    def _ingest_folder(
        self,
        root: Path,
        listing: FolderListing,
        report: IngestReport,
        *,
        show_progress: bool,
        pipeline: Pipeline | None,
    ) -> None:
        report.skipped += listing.skipped
        origin = root.resolve()
        shape = self._intake.fingerprint
        candidates = [
            from_file(
                file,
                document_id=document_id,
                origin=origin,
                fingerprint=shape,
                limits=self._limits,
            )
            for document_id, file in listing.files.items()
        ]
        self._intake.take(candidates, report, show_progress=show_progress, pipeline=pipeline)
        if not (report.added or report.updated or report.unchanged or report.deleted):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in report.skipped[:5])
            raise IngestionError(
                root,
                "The folder holds no document that can be read. "
                + (f"What it holds: {reasons}" if reasons else "It is empty."),
            )


def _checked(item: object) -> Document:
    if not isinstance(item, Document):
        raise TypeError(
            f"A {type(item).__name__} cannot be added. Give a folder, a file or LlamaIndex "
            "documents."
        )
    return item


def _still_there(document_id: str, listing: FolderListing) -> bool:
    """Whether a document is in a folder, or in a part of it that could not be looked into."""
    if document_id in listing.files:
        return True
    return any(
        document_id == place or document_id.startswith(f"{place}/") for place, _ in listing.skipped
    )
