"""The rows that training benchmarks share: those of the recipe, from documents and questions."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from phi3_industry import KnowledgeBase, Phi3LLM, TrainingSetBuilder, load_embedding
from phi3_industry.finetuning.training_set import TrainingSet


def load_recipe_rows(folder: Path, *, model: str, limit: int | None, seed: int) -> TrainingSet:
    """Load a saved training set, or build one from ``documents/`` and ``questions.train.jsonl``.

    Args:
        folder: A training set, or an example's folder.
        model: The model whose window the rows have to fit.
        limit: Keep this many training rows, drawn by their order; ``None`` keeps all.
        seed: Seed of what is built.
    """
    if (folder / "report.json").is_file():
        return _first(TrainingSet.load(folder), limit)
    with tempfile.TemporaryDirectory() as name:
        base = KnowledgeBase.open(Path(name) / "kb", embed_model=load_embedding("embedded"))
        base.add(folder / "documents")
        builder = TrainingSetBuilder(base, llm=Phi3LLM(model=model), seed=seed)
        return _first(builder.build(questions=folder / "questions.train.jsonl"), limit)


def _first(train_set: TrainingSet, limit: int | None) -> TrainingSet:
    if limit is None:
        return train_set
    step = max(1, len(train_set.split("train")) // limit)  # every slice, wherever it stands
    kept = train_set.split("train")[::step][:limit]
    held_out = train_set.split("validation")
    return replace(train_set, rows=(*kept, *held_out[: max(1, limit // 5)]))
