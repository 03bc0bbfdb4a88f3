"""Turn a Phi-3 model into the expert of one industry, as LlamaIndex objects.

Public names are resolved at their first use, so that ``import phi3_industry`` loads neither torch
nor transformers nor faiss nor LlamaIndex.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi3_industry.embeddings.loading import load_embedding
    from phi3_industry.embeddings.phi3 import Phi3Embedding
    from phi3_industry.evaluation.compare import compare_strategies
    from phi3_industry.finetuning.dataset import TrainingSetBuilder
    from phi3_industry.finetuning.embedding import EmbeddingFinetuneEngine
    from phi3_industry.finetuning.trainer import LoraFinetuneEngine
    from phi3_industry.knowledge_base import KnowledgeBase
    from phi3_industry.llms.phi3 import Phi3LLM
    from phi3_industry.query_engine.hybrid import HybridQueryEngine
    from phi3_industry.query_engine.strategy import Strategy
    from phi3_industry.retrievers.hybrid import HybridRetriever
    from phi3_industry.retrievers.rerank import Phi3Rerank
    from phi3_industry.vector_stores.faiss_sqlite import FaissSQLiteVectorStore

__all__ = [
    "EmbeddingFinetuneEngine",
    "FaissSQLiteVectorStore",
    "HybridQueryEngine",
    "HybridRetriever",
    "KnowledgeBase",
    "LoraFinetuneEngine",
    "Phi3Embedding",
    "Phi3LLM",
    "Phi3Rerank",
    "Strategy",
    "TrainingSetBuilder",
    "__version__",
    "compare_strategies",
    "load_embedding",
]

__version__ = "0.1.0"

_MODULES = {
    "EmbeddingFinetuneEngine": "phi3_industry.finetuning.embedding",
    "FaissSQLiteVectorStore": "phi3_industry.vector_stores.faiss_sqlite",
    "HybridQueryEngine": "phi3_industry.query_engine.hybrid",
    "HybridRetriever": "phi3_industry.retrievers.hybrid",
    "KnowledgeBase": "phi3_industry.knowledge_base",
    "LoraFinetuneEngine": "phi3_industry.finetuning.trainer",
    "Phi3Embedding": "phi3_industry.embeddings.phi3",
    "Phi3LLM": "phi3_industry.llms.phi3",
    "Phi3Rerank": "phi3_industry.retrievers.rerank",
    "Strategy": "phi3_industry.query_engine.strategy",
    "TrainingSetBuilder": "phi3_industry.finetuning.dataset",
    "compare_strategies": "phi3_industry.evaluation.compare",
    "load_embedding": "phi3_industry.embeddings.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
