"""Plain LlamaIndex parts for query engines: a scripted LLM and a fixed retriever."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.query_engine.hybrid import HybridQueryEngine

QUESTION = "What is the discharge pressure of P-4471?"


class ScriptedLLM(CustomLLM):
    """Gives one answer and keeps the prompts it saw."""

    answer: str = "[2] 38.2 bar"
    window: int = 2048
    prompts: list[str] = []

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.window, num_output=32, model_name="scripted", is_chat_model=True
        )

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        return CompletionResponse(text=self.answer, raw={"usage": {"total_tokens": 7}})

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **_: Any
    ) -> CompletionResponseGen:
        self.prompts.append(prompt)

        def stream() -> CompletionResponseGen:
            for end in range(1, len(self.answer) + 1):
                yield CompletionResponse(
                    text=self.answer[:end], delta=self.answer[end - 1], raw={"usage": {"n": end}}
                )

        return stream()


class AdaptedLLM(ScriptedLLM):
    """A scripted LLM that has one adapter."""

    adapter: str | None = None
    prompt_fingerprint: str = DEFAULT_PROMPT.fingerprint

    def with_adapter(self, adapter: str | None) -> AdaptedLLM:
        answer = "[2] 38.2 bar | PDIS" if adapter else "[2] 38.2 bar"
        return self.model_copy(update={"adapter": adapter, "answer": answer})

    revision: str = "1"

    def adapter_manifest(self) -> SimpleNamespace:
        return SimpleNamespace(
            prompt_fingerprint=self.prompt_fingerprint, data_fingerprint=self.revision
        )


class ScoringLLM(AdaptedLLM):
    """A scripted LLM that knows how probable answers are.

    ``chances`` gives the probability of each answer, whole, with and without the adapter; what is
    not listed has a chance of one in a hundred.
    """

    chances: dict[tuple[str | None, str], float] = {}

    def score(
        self, prompt: Sequence[Mapping[str, str]], continuations: Sequence[str]
    ) -> list[list[float]]:
        known = [self.chances.get((self.adapter, text), 0.01) for text in continuations]
        return [[math.log(chance) / 2] * 2 for chance in known]


class FixedRetriever(BaseRetriever):
    """Finds the same nodes for every question."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self.nodes = nodes
        self.calls = 0

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.calls += 1
        return list(self.nodes)


def found(*texts: str, scores: tuple[float, ...] = (0.9, 0.8, 0.7)) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=f"n{number}", text=text), score=score)
        for number, (text, score) in enumerate(zip(texts, scores, strict=False), start=1)
    ]


TWO = ("Tag: P-4472; Discharge pressure: 31 bar", "Tag: P-4471; Discharge pressure: 38.2 bar")


def engine(**options: Any) -> HybridQueryEngine:
    options.setdefault("retriever", FixedRetriever(found(*TWO)))
    options.setdefault("llm", ScriptedLLM())
    return HybridQueryEngine(**options)
