"""EmbeddingFinetuneEngine: questions and passages that answer them become a better embedding."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding

from phi3_industry.errors import MissingDependencyError, TrainingDataError
from phi3_industry.finetuning.checkpoints import open_run, run_folder_of, step_of
from phi3_industry.finetuning.curve import CSV_NAME, LOG_NAME, PLOT_NAME
from phi3_industry.finetuning.embedding_config import EmbeddingFinetuneConfig
from phi3_industry.finetuning.embedding_corpus import Labelled, label, read_passages, split
from phi3_industry.finetuning.embedding_pairs import Pair, found_by, mine_pairs
from phi3_industry.finetuning.embedding_quality import (
    compare_ranks,
    embed_passages,
    embed_questions,
    ndcg_of_each,
)
from phi3_industry.finetuning.evidence import Passage
from phi3_industry.finetuning.folders import check_target, replaced_folder
from phi3_industry.grounding.questions import Question, load_questions
from phi3_industry.models.adapter import MANIFEST_NAME, AdapterManifest, write_manifest

if TYPE_CHECKING:
    from phi3_industry.finetuning.embedding_training import Encoder, TrainedEmbedding

__all__ = ["EmbeddingFinetuneEngine"]

_LOG_FOLDER = "training"
_LOGGER = logging.getLogger(__name__)

Questions = Sequence[Question] | str | PathLike[str]


class EmbeddingFinetuneEngine:
    """Trains a LoRA adapter for an embedding, in the two-method shape of LlamaIndex's engines.

    Each question is to be told from its own passage's rivals: those of the other questions of a
    step, and hard ones that the embedding, or the user's retriever, ranks high and that do not
    answer it. Some questions are held out, by source document, and say whether it helped. The
    adapter folder appears when it is complete; until then an earlier one stays in use.

    A store holds vectors of the embedding that it was built with, and refuses the tuned one: build
    it again with what :meth:`get_finetuned_model` gives.

    Args:
        embed_model: What ``load_embedding`` gives for a local model, or a ``Phi3Embedding``.
        store: Whose passages the questions are about: a knowledge base, a LlamaIndex index, vector
            store or retriever, or nodes. Of a retriever the passages are those that it finds.
        questions: The questions, or their file; each names its passages in ``gold_ids``.
        output_dir: The adapter folder to write; an earlier adapter in it is replaced.
        retriever: Hard negatives are drawn from what it finds, too, such as by words.
        validation_questions: Questions to hold out in place of a share of ``questions``.
        config: The settings.
        show_progress: Whether to show progress on the standard error stream.
        report: Takes each line for the user in place of the standard error stream.
        **settings: Fields of
            :class:`~phi3_industry.finetuning.embedding_config.EmbeddingFinetuneConfig` in place
            of ``config``, such as ``num_epochs=5``.

    Raises:
        ValueError: A setting is outside its range.
        TypeError: The embedding cannot be trained, a setting is unknown, or stands beside
            ``config``.

    Example:
        >>> tuner = EmbeddingFinetuneEngine(  # doctest: +SKIP
        ...     load_embedding("embedded"),
        ...     store=kb,
        ...     questions="questions.train.jsonl",
        ...     output_dir="adapters/search",
        ... )
        >>> tuner.finetune().metrics["verdict"]  # doctest: +SKIP
        'better'
        >>> embed = tuner.get_finetuned_model()  # doctest: +SKIP
    """

    def __init__(
        self,
        embed_model: BaseEmbedding,
        *,
        store: Any,
        questions: Questions,
        output_dir: str | PathLike[str],
        retriever: BaseRetriever | None = None,
        validation_questions: Questions | None = None,
        config: EmbeddingFinetuneConfig | None = None,
        show_progress: bool = True,
        report: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise TypeError(
                f"Both config and the settings {sorted(settings)} are given; put all into one."
            )
        if not hasattr(embed_model, "encoder") or not hasattr(embed_model, "with_adapter"):
            raise TypeError(
                f"A {type(embed_model).__name__} cannot be trained here. Give what load_embedding "
                "gives for 'embedded', a folder or a Hugging Face id, or a Phi3Embedding."
            )
        self.config = config or EmbeddingFinetuneConfig(**settings)
        self.output_dir = Path(output_dir)
        self._embed_model: Any = embed_model
        self._store = store
        self._questions = questions
        self._retriever = retriever
        self._validation_questions = validation_questions
        self._show_progress = show_progress
        self._report = report

    def finetune(self, *, resume: bool = False) -> AdapterManifest:
        """Train the adapter and write its folder.

        Beside PEFT's files and the manifest the folder holds ``training/`` with the loss curve as
        ``loss.csv`` and ``loss.png`` and the log as ``log.json``. While it trains, curve and
        checkpoints are in the hidden folder ``.NAME.training`` beside it.

        Args:
            resume: Whether an interrupted run goes on. Without one, training begins anew.

        Returns:
            The manifest as written; ``metrics`` has nDCG@10 on held-out questions before and
            after, and ``metrics["verdict"]`` says ``"better"``, ``"worse"`` or ``"same"``.

        Raises:
            TrainingDataError: The questions cannot be trained on.
            ConfigurationError: The embedding has an adapter already, the store cannot list its
                nodes, or an interrupted run is another one.
            ModelLoadError: The model does not load.
            FileExistsError: ``output_dir`` holds something else than an adapter of ours, or an
                interrupted run could go on.
            EngineError: The loss was lost.
        """
        path = check_target(self.output_dir, marker=MANIFEST_NAME)
        train, held, passages = self._read()
        self._say(f"{len(passages)} passages; embedding them as they are served now.")
        passage_vectors = embed_passages(
            self._embed_model, passages, show_progress=self._show_progress
        )
        before = self._ndcg(self._embed_model, held, passage_vectors)
        pairs = self._mine(train, passages, passage_vectors)
        encoder: Encoder = self._embed_model.encoder()
        run_folder = run_folder_of(path)
        data = _fingerprint(pairs)
        identity = {"base": encoder.base.weights_fingerprint, "rows": data, **asdict(self.config)}
        resume_from = open_run(run_folder, identity, resume=resume)
        if resume_from is not None:
            self._say(f"It goes on after step {step_of(resume_from)}.")
        from phi3_industry.finetuning.embedding_training import train_embedding

        self._say(
            f"{len(pairs)} rows with {len(pairs[0].negatives)} hard negatives each, "
            f"{len(held)} questions held out, rank {self.config.lora_rank}, learning rate "
            f"{self.config.learning_rate:g}, {self.config.batch_size} rows a step, seed "
            f"{self.config.seed}"
        )
        trained = train_embedding(
            encoder,
            pairs,
            self.config,
            run_folder=run_folder,
            resume_from=resume_from,
            say=self._say,
            show_progress=self._show_progress,
        )
        with replaced_folder(path, marker=MANIFEST_NAME) as folder:
            manifest = self._write(
                folder,
                encoder,
                trained,
                pairs,
                data=data,
                held=held,
                passages=passages,
                before=before,
            )
        shutil.rmtree(run_folder, ignore_errors=True)
        self._say(f"The adapter is in '{path}'. {_outcome(manifest.metrics)}")
        return manifest

    def get_finetuned_model(self) -> Any:
        """Give the embedding with the adapter in ``output_dir``.

        A store that was built with another embedding refuses it, and has to be built again.

        Raises:
            AdapterNotFoundError: There is no adapter yet: call :meth:`finetune` first.
            AdapterError: The adapter is damaged or was made for something else.
        """
        return self._embed_model.with_adapter(self.output_dir.absolute())

    # --- what it learns from ------------------------------------------------------------------

    def _read(self) -> tuple[list[Labelled], list[Labelled], list[Passage]]:
        """Read questions and passages; give those to train on and those held out."""
        questions = _questions(self._questions)
        others = (
            [] if self._validation_questions is None else _questions(self._validation_questions)
        )
        passages = read_passages(self._store, [*questions, *others])
        labelled = label(questions, passages)
        if self._validation_questions is None:
            share, seed = self.config.validation_share, self.config.seed
            train, held, split_by = split(labelled, passages, share=share, seed=seed)
        else:
            train, held, split_by = labelled, label(others, passages), "as given"
            _check_apart(train, held)
        if len(train) < 2:
            raise TrainingDataError(
                f"There is {len(train)} question to train on, of {len(questions)} given; a passage "
                "is told from those of other questions, so there must be at least two, and some "
                "hundreds to teach anything."
            )
        without = len(questions) - len(labelled)
        left_out = f", {without} without a gold passage left out" if without else ""
        self._say(f"{len(train)} questions to train on{left_out}; held out: {split_by}.")
        return train, held, passages

    def _mine(
        self, train: Sequence[Labelled], passages: Sequence[Passage], passage_vectors: Any
    ) -> list[Pair]:
        also = [] if self._retriever is None else found_by(self._retriever, train, passages)
        return mine_pairs(
            train,
            passages,
            question_vectors=embed_questions(self._embed_model, train),
            passage_vectors=passage_vectors,
            also_found=also,
            config=self.config,
        )

    # --- what came of it ----------------------------------------------------------------------

    def _ndcg(self, embed_model: Any, held: Sequence[Labelled], vectors: Any) -> list[float]:
        if not held:
            return []
        return ndcg_of_each(
            held, question_vectors=embed_questions(embed_model, held), passage_vectors=vectors
        )

    def _write(
        self,
        folder: Path,
        encoder: Encoder,
        trained: TrainedEmbedding,
        pairs: Sequence[Pair],
        *,
        data: str,
        held: Sequence[Labelled],
        passages: Sequence[Passage],
        before: Sequence[float],
    ) -> AdapterManifest:
        """Write the adapter, load it as serving does, measure it, and write what was measured."""
        from phi3_industry.finetuning.new_adapter import save_adapter

        save_adapter(trained.model, folder, initial=folder)
        logs = folder / _LOG_FOLDER
        logs.mkdir()
        metrics = {
            **encoder.reading,
            "train_rows": len(pairs),
            "passages": len(passages),
            "trained_parameters": trained.trained_parameters,
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
            "train_loss_first": trained.curve.points[0].loss,
            "train_loss_last": trained.curve.points[-1].loss,
            **asdict(self.config),
        }

        def manifest() -> AdapterManifest:
            trained.curve.write_json(logs / LOG_NAME, run=metrics)
            return write_manifest(
                folder,
                encoder.base,
                prompt_fingerprint=encoder.reading_fingerprint,
                method=encoder.method,
                data_fingerprint=data,
                metrics=metrics,
            )

        self._write_curve(trained, logs)
        manifest()
        after: list[float] = []
        if held:
            self._say("Embedding the passages again, with the adapter.")
            tuned = self._embed_model.with_adapter(folder)
            vectors = embed_passages(tuned, passages, show_progress=self._show_progress)
            after = self._ndcg(tuned, held, vectors)
        metrics |= compare_ranks(before, after)
        return manifest()

    def _write_curve(self, trained: TrainedEmbedding, logs: Path) -> None:
        trained.curve.write_csv(logs / CSV_NAME)
        try:
            trained.curve.write_png(logs / PLOT_NAME, title=f"Training {self.output_dir.name}")
        except MissingDependencyError as error:
            self._say(f"There is no {PLOT_NAME}, only {CSV_NAME}. {error}")

    def _say(self, text: str) -> None:
        if self._report is not None:
            self._report(text)
        elif self._show_progress:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            _LOGGER.info("%s", text)


def _questions(given: Questions) -> list[Question]:
    if isinstance(given, (str, PathLike)):
        return load_questions(given)
    if not given:
        raise TrainingDataError("There is no question. Give some, each with its gold_ids.")
    return list(given)


def _check_apart(train: Sequence[Labelled], held: Sequence[Labelled]) -> None:
    known = {item.question.question.strip().casefold() for item in train}
    seen = [item.question for item in held if item.question.question.strip().casefold() in known]
    if seen:
        raise TrainingDataError(
            f"{len(seen)} validation questions are also questions to train on, such as "
            f"'{seen[0].question}', so they would say nothing. Take them out of either."
        )


def _fingerprint(pairs: Sequence[Pair]) -> str:
    text = json.dumps([asdict(pair) for pair in pairs], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _outcome(metrics: Any) -> str:
    if metrics["verdict"] == "not measured":
        return "No question was held out, so nothing says whether it helps."
    figures = (
        f"nDCG@10 on {metrics['validation_questions']} held-out questions went from "
        f"{metrics['ndcg_at_10_before']:.3f} to {metrics['ndcg_at_10_after']:.3f}; "
        f"{metrics['questions_better']} rose, {metrics['questions_worse']} fell."
    )
    advice = {
        "better": "Build your store again with it: old and new vectors cannot be compared.",
        "same": "It changed nothing that shows: keep the embedding as it was.",
        "worse": "Worse than before: keep the embedding as it was, or train on more questions.",
    }
    return f"{figures} {advice[metrics['verdict']]}"
