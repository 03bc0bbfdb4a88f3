"""Phi3Rerank: a language model says how well each passage answers the question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, model_validator
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from phi3_industry.grounding.relevance import DEFAULT_RELEVANCE, RelevancePrompt

__all__ = ["Phi3Rerank", "RerankedNode", "SupportsScores"]

_dispatcher = get_dispatcher(__name__)


class SupportsScores(Protocol):
    """An LLM that scores given answers; :class:`~phi3_industry.llms.Phi3LLM` is one.

    One that has ``score_batch(prompts, continuations)`` is asked for all passages together.
    """

    def score(
        self, prompt: Sequence[Mapping[str, str]], continuations: Sequence[str]
    ) -> list[list[float]]:
        """Give the natural log probability of each token of possible answers to messages."""


class SupportsGrounding(Protocol):
    """The wording of grounded questions, as ``phi3_industry.grounding.prompt`` has it.

    Answers begin with the number of the passage that they rest on, and with 0 when there is none.
    """

    def grounded(self, question: str, passages: Sequence[str]) -> Sequence[Mapping[str, str]]:
        """Build a system and a user message that ask a question about numbered passages."""


@dataclass(frozen=True, kw_only=True)
class RerankedNode:
    """A node in its new place, and what it had before.

    Attributes:
        node: The node, as it was given.
        score: Its relevance, the probability of "true" among the two verdicts, from 0 to 1.
        original_score: Its score before.
        original_rank: Its place before, from 1.
    """

    node: BaseNode
    score: float
    original_score: float | None
    original_rank: int


class Phi3Rerank(BaseNodePostprocessor):
    """Orders nodes by the probability that the model calls them relevant.

    Each passage is shown to the model with the question, and what counts is how much more
    probable "True" is than "False" as its answer: nothing is generated. The question stands
    before the passage, so that it is read once for all passages. It works over any LLM that has
    ``score(messages, continuations)``; with a :class:`~phi3_industry.llms.Phi3LLM` the weights
    are those that answer. A small or untrained model is a poor judge of True and False: give it
    an adapter that was trained to judge, or see :meth:`from_grounding_prompt`.

    In a retriever, which then fetches more than it returns::

        retriever = kb.as_retriever(similarity_top_k=5, reranker=Phi3Rerank(llm=llm))

    or in any query engine of LlamaIndex: ``node_postprocessors=[Phi3Rerank(llm=llm, top_n=3)]``.

    Args:
        llm: The model, or a view of it.
        adapter: Name or path of the adapter to judge with; that of ``llm`` if ``None``.
        top_n: The most nodes to return; all if ``None``.
        instructions: The system message; none if empty.
        template: The user message; ``{question}`` and ``{passage}`` stand for the two.
        true_text, false_text: The two verdicts, in the words that the model is to be judged by.
        metadata_mode: Which metadata a passage is shown with.
        callback_manager: LlamaIndex's.

    Raises:
        ValueError: The template lacks a place, a verdict is empty, or both are the same.
        TypeError: The LLM has no ``score``, or no adapters and one was given.

    Example:
        >>> from phi3_industry import Phi3LLM
        >>> rerank = Phi3Rerank(llm=Phi3LLM(model="embedded"), top_n=1)
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("38 bar", "Tovex 32")]
        >>> len(rerank.postprocess_nodes(nodes, query_str="Which oil does pump P-7 have?"))
        1
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    adapter: str | None = None
    top_n: int | None = Field(default=None, gt=0)
    instructions: str = DEFAULT_RELEVANCE.instructions
    template: str = DEFAULT_RELEVANCE.template
    true_text: str = Field(default=DEFAULT_RELEVANCE.true_text, min_length=1)
    false_text: str = Field(default=DEFAULT_RELEVANCE.false_text, min_length=1)
    metadata_mode: MetadataMode = MetadataMode.LLM

    _llm: Any = PrivateAttr()

    def __init__(self, llm: SupportsScores, *, adapter: str | None = None, **settings: Any) -> None:
        fields: dict[str, Any] = {"adapter": adapter, **settings}
        super().__init__(**fields)
        if not callable(getattr(llm, "score", None)):
            raise TypeError(
                f"{type(llm).__name__} has no score(messages, continuations), which the "
                "reranker needs. Use Phi3LLM, or LlamaIndex's SentenceTransformerRerank."
            )
        if adapter is not None and not callable(getattr(llm, "with_adapter", None)):
            raise TypeError(
                f"The adapter '{adapter}' was given with {type(llm).__name__}, which has no "
                "adapters. Use Phi3LLM, or leave the adapter out."
            )
        view: Any = llm
        self._llm = view if adapter is None else view.with_adapter(adapter)

    @model_validator(mode="after")
    def _check_prompt(self) -> Phi3Rerank:
        for place in ("{question}", "{passage}"):
            if place not in self.template:
                raise ValueError(f"The template has no {place}: {self.template!r}.")
        if self.true_text == self.false_text:
            raise ValueError(f"true_text and false_text are both {self.true_text!r}.")
        return self

    @classmethod
    def from_grounding_prompt(
        cls, llm: SupportsScores, prompt: SupportsGrounding, **settings: Any
    ) -> Phi3Rerank:
        """Make a reranker of a model that was trained to cite a passage or to abstain.

        What counts is how much more probable it is to cite the passage, shown alone, than to
        abstain. ``"embedded"`` and adapters of :class:`~phi3_industry.LoraFinetuneEngine` need no
        further training for it; asked for True or False, the embedded model guesses.

        Args:
            llm: The model, or a view of it.
            prompt: The grounding prompt that it was trained with.
            **settings: What else the class takes, such as ``adapter`` and ``top_n``.
        """
        system, user = prompt.grounded("{question}", ["{passage}"])
        words = {"instructions": system["content"], "template": user["content"]}
        return cls(llm, **{**words, "true_text": "[1]", "false_text": "[0]", **settings})

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised form."""
        return "Phi3Rerank"

    def rerank_with_details(
        self, nodes: Sequence[NodeWithScore], query: str | QueryBundle
    ) -> list[RerankedNode]:
        """Order nodes by relevance and tell what they had before.

        Args:
            nodes: The nodes; neither they nor their metadata are changed.
            query: The question.

        Returns:
            At most ``top_n`` nodes, best first; equal scores keep their order.

        Raises:
            PromptTooLongError: A passage does not fit into the model's context window.
        """
        question = query if isinstance(query, str) else query.query_str
        prompts = [
            self.messages(question, node.node.get_content(metadata_mode=self.metadata_mode))
            for node in nodes
        ]
        ranked = [
            RerankedNode(node=node.node, score=score, original_score=node.score, original_rank=rank)
            for rank, (node, score) in enumerate(
                zip(nodes, self._relevances(prompts), strict=True), start=1
            )
        ]
        ranked.sort(key=lambda entry: -entry.score)
        return ranked[: self.top_n]

    def messages(self, question: str, passage: str) -> list[dict[str, str]]:
        """Build the prompt for one passage; training rows that teach to judge have the same."""
        prompt = RelevancePrompt(instructions=self.instructions, template=self.template)
        return prompt.messages(question, passage)

    def _relevances(self, prompts: Sequence[list[dict[str, str]]]) -> list[float]:
        if not prompts:
            return []
        verdicts = [self.true_text, self.false_text]
        if callable(getattr(self._llm, "score_batch", None)):
            scores = self._llm.score_batch(prompts, verdicts)
        else:
            scores = [self._llm.score(prompt, verdicts) for prompt in prompts]
        return [_probability(math.fsum(true), math.fsum(false)) for true, false in scores]

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("The reranker needs the question. Pass query_bundle= or query_str=.")
        if not nodes:
            return []
        name = self._model_name
        top_n = len(nodes) if self.top_n is None else self.top_n
        _dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            ranked = [
                NodeWithScore(node=entry.node, score=entry.score)
                for entry in self.rerank_with_details(nodes, query_bundle)
            ]
            event.on_end(payload={EventPayload.NODES: ranked})
        _dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    @property
    def _model_name(self) -> str:
        metadata = getattr(self._llm, "metadata", None)
        return str(getattr(metadata, "model_name", type(self._llm).__name__))


def _probability(true: float, false: float) -> float:
    """Give the share of the first in two probabilities, from their logarithms."""
    difference = false - true
    return 1 / (1 + math.exp(difference)) if difference < 700 else 0.0
