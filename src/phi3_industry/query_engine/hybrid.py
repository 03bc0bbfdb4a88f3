"""HybridQueryEngine: answers from documents, from fine-tuned weights, or from both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.utils import get_tokenizer

from phi3_industry.errors import AdapterMismatchError, AdapterNotFoundError, ConfigurationError
from phi3_industry.grounding.citations import Citation, parse_answer, repair
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt, Message
from phi3_industry.query_engine.strategy import (
    AUTO,
    Choice,
    Evidence,
    choose,
    parse_strategy,
)

__all__ = ["HybridQueryEngine", "SupportsAdapters"]

_TOKENS_AROUND_MESSAGE = 8


@runtime_checkable
class SupportsAdapters(Protocol):
    """An LLM that answers with adapters; :class:`~phi3_industry.llms.Phi3LLM` is one."""

    def with_adapter(self, adapter: str | None) -> Any:
        """Give a view of the same weights that answers with an adapter."""

    def adapter_manifest(self) -> Any:
        """Say what the adapter of this view was made for."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be asked, and of whom.

    Attributes:
        choice: The strategy and its reason.
        llm: The LLM, with or without adapter; ``None`` if there is nothing to ask.
        messages: The prompt.
        shown: The passages in it, in the order of their numbers.
        adapter: Name of the adapter that answers.
    """

    choice: Choice
    llm: LLM | None
    messages: list[ChatMessage]
    shown: list[NodeWithScore]
    adapter: str | None


class HybridQueryEngine(BaseQueryEngine):
    """Answers questions in one of four ways, says which and why, and checks its citations.

    It works with any LlamaIndex retriever and any LlamaIndex LLM. The strategies that use an
    adapter need an LLM that has them, such as :class:`~phi3_industry.llms.Phi3LLM`.

    Every response's ``metadata`` holds ``strategy``, ``reason``, ``abstained``, ``adapter``,
    ``model``, ``citations`` and ``usage``; its ``source_nodes`` are the passages of the prompt
    in the order of their numbers. A streamed response gets ``abstained``, ``citations``,
    ``usage`` and the checked ``answer`` when its stream has ended.

    Args:
        retriever: Finds passages. May be ``None`` for the strategies that use none.
        llm: Answers.
        adapter: Name or path of the adapter; ``None`` if there is none.
        strategy: ``"auto"`` or one of :class:`Strategy`.
        prompt: The wording; an adapter has to be trained with the same.
        min_score: With ``"auto"``, the retriever's score below which a passage is no evidence.
            ``None`` takes whatever the retriever found.
        node_postprocessors: Applied to what was retrieved, such as a reranker.
        streaming: Whether ``query`` gives the answer piece by piece.
        callback_manager: LlamaIndex's callbacks.

    Raises:
        ValueError: There is no such strategy.
        ConfigurationError: The strategy needs a retriever or an adapter that is not given.
        AdapterMismatchError: The adapter was trained with another prompt.
    """

    def __init__(
        self,
        *,
        retriever: BaseRetriever | None,
        llm: LLM,
        adapter: str | None = None,
        strategy: str = AUTO,
        prompt: GroundingPrompt = DEFAULT_PROMPT,
        min_score: float | None = None,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        streaming: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager or llm.callback_manager)
        self.retriever = retriever
        self.prompt = prompt
        self.strategy = parse_strategy(strategy)
        self.min_score = min_score
        self.node_postprocessors = list(node_postprocessors)
        self.streaming = streaming
        self._given_llm = llm
        self.adapter = adapter
        self._base_llm = llm.with_adapter(None) if isinstance(llm, SupportsAdapters) else llm
        self._expert_llm = self._find_expert(llm, adapter)
        self._check_strategy()

    def with_strategy(self, strategy: str) -> HybridQueryEngine:
        """Give an engine over the same parts that answers in another way."""
        return HybridQueryEngine(
            retriever=self.retriever,
            llm=self._given_llm,
            adapter=self.adapter,
            strategy=strategy,
            prompt=self.prompt,
            min_score=self.min_score,
            node_postprocessors=self.node_postprocessors,
            streaming=self.streaming,
            callback_manager=self.callback_manager,
        )

    # --- LlamaIndex's interface ---------------------------------------------------------------

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find passages, best first."""
        if self.retriever is None:
            return []
        nodes = self.retriever.retrieve(query_bundle)
        for postprocessor in self.node_postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle=query_bundle)
        return nodes

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find passages, best first, without blocking the event loop."""
        if self.retriever is None:
            return []
        nodes = await self.retriever.aretrieve(query_bundle)
        for postprocessor in self.node_postprocessors:
            nodes = await postprocessor.apostprocess_nodes(nodes, query_bundle=query_bundle)
        return nodes

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from given passages."""
        plan = self._plan(query_bundle, [*nodes, *(additional_source_nodes or ())])
        if self.streaming:
            return self._stream(plan)
        reply = plan.llm.chat(plan.messages) if plan.llm is not None else None
        return self._respond(plan, reply)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from given passages without blocking the event loop."""
        plan = self._plan(query_bundle, [*nodes, *(additional_source_nodes or ())])
        if self.streaming:
            return self._astream(plan)
        reply = await plan.llm.achat(plan.messages) if plan.llm is not None else None
        return self._respond(plan, reply)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._query_event(query_bundle) as event:
            nodes = self.retrieve(query_bundle) if self._may_retrieve else []
            response = self.synthesize(query_bundle, nodes)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._query_event(query_bundle) as event:
            nodes = await self.aretrieve(query_bundle) if self._may_retrieve else []
            response = await self.asynthesize(query_bundle, nodes)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _query_event(self, query_bundle: QueryBundle) -> Any:
        payload: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(CBEventType.QUERY, payload=payload)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        if prompts_dict:
            raise ConfigurationError(
                f"The prompts {sorted(prompts_dict)} cannot be replaced here: adapters are trained "
                "with the prompt that serves. Pass prompt=GroundingPrompt(...) to the constructor."
            )

    # --- what to ask --------------------------------------------------------------------------

    @property
    def _may_retrieve(self) -> bool:
        return self.strategy is None or self.strategy.uses_passages

    def _find_expert(self, llm: LLM, adapter: str | None) -> LLM | None:
        if adapter is None:
            return None
        if not isinstance(llm, SupportsAdapters):
            raise ConfigurationError(
                f"The adapter '{adapter}' was given with the LLM {type(llm).__name__}, which has "
                "no adapters. Use Phi3LLM, or leave the adapter out."
            )
        expert = llm.with_adapter(adapter)
        trained_with = expert.adapter_manifest().prompt_fingerprint
        if trained_with != self.prompt.fingerprint:
            raise AdapterMismatchError(
                adapter,
                what="the prompt",
                expected=f"the one it was trained with ({trained_with[:12]})",
                found=f"another ({self.prompt.fingerprint[:12]})",
                advice="Pass the GroundingPrompt that its training set was built with.",
            )
        found: LLM = expert
        return found

    def _check_strategy(self) -> None:
        if self.strategy is not None and self.strategy.uses_passages and self.retriever is None:
            raise ConfigurationError(
                f"The strategy '{self.strategy}' answers from passages and no retriever was "
                "given. Pass retriever=..., or choose 'base' or 'fine_tuned'."
            )
        if self.strategy is not None and self.strategy.uses_adapter and self._expert_llm is None:
            raise ConfigurationError(
                f"The strategy '{self.strategy}' answers with an adapter and none was given. "
                "Pass adapter=..., or choose 'base' or 'rag'."
            )

    def _plan(self, query_bundle: QueryBundle, nodes: list[NodeWithScore]) -> _Plan:
        scores = [node.score for node in nodes if node.score is not None]
        evidence = Evidence(
            passages=len(nodes),
            best_score=max(scores, default=None),
            min_score=self.min_score,
        )
        choice = (
            choose(evidence, adapter=self.adapter)
            if self.strategy is None
            else Choice(
                strategy=self.strategy, reason=f"The strategy '{self.strategy}' was asked for."
            )
        )
        llm = self._base_llm
        if choice.strategy.uses_adapter:
            if self._expert_llm is None:
                raise AdapterNotFoundError(self.adapter or "")
            llm = self._expert_llm
        adapter = self.adapter if choice.strategy.uses_adapter else None
        question = query_bundle.query_str
        if not choice.strategy.uses_passages:
            messages = _chat_messages(self.prompt.closed_book(question))
            return _Plan(choice=choice, llm=llm, messages=messages, shown=[], adapter=adapter)
        if not nodes or (self.strategy is None and not evidence.sufficient):
            return _Plan(choice=choice, llm=None, messages=[], shown=[], adapter=adapter)
        fitted = self.prompt.fit(
            question,
            [node.node.get_content(metadata_mode=MetadataMode.LLM) for node in nodes],
            count_tokens=_token_counter(llm),
            context_window=_usable_window(llm),
            max_new_tokens=llm.metadata.num_output,
        )
        if fitted.dropped:
            reason = f"{choice.reason} {len(fitted.dropped)} of them did not fit into the prompt."
            choice = Choice(strategy=choice.strategy, reason=reason)
        return _Plan(
            choice=choice,
            llm=llm,
            messages=_chat_messages(fitted.messages),
            shown=[nodes[index] for index in fitted.kept],
            adapter=adapter,
        )

    # --- what came back -----------------------------------------------------------------------

    def _respond(self, plan: _Plan, reply: ChatResponse | None) -> Response:
        metadata = self._metadata(plan)
        answer = self._finish(plan, metadata, reply)
        return Response(response=answer, source_nodes=plan.shown, metadata=metadata)

    def _stream(self, plan: _Plan) -> StreamingResponse:
        metadata = self._metadata(plan)

        def tokens() -> Iterator[str]:
            last: ChatResponse | None = None
            if plan.llm is None:
                yield self.prompt.abstention_answer
            else:
                for last in plan.llm.stream_chat(plan.messages):
                    yield last.delta or ""
            metadata["answer"] = self._finish(plan, metadata, last)

        return StreamingResponse(
            response_gen=tokens(),  # type: ignore[arg-type] # any iterator of texts will do
            source_nodes=plan.shown,
            metadata=metadata,
        )

    def _astream(self, plan: _Plan) -> AsyncStreamingResponse:
        metadata = self._metadata(plan)

        async def tokens() -> AsyncIterator[str]:
            last: ChatResponse | None = None
            if plan.llm is None:
                yield self.prompt.abstention_answer
            else:
                async for last in await plan.llm.astream_chat(plan.messages):
                    yield last.delta or ""
            metadata["answer"] = self._finish(plan, metadata, last)

        return AsyncStreamingResponse(
            response_gen=tokens(),  # type: ignore[arg-type] # any async iterator will do
            source_nodes=plan.shown,
            metadata=metadata,
        )

    def _metadata(self, plan: _Plan) -> dict[str, Any]:
        return {
            "strategy": plan.choice.strategy.value,
            "reason": plan.choice.reason,
            "adapter": plan.adapter,
            "model": (plan.llm or self._base_llm).metadata.model_name,
        }

    def _finish(self, plan: _Plan, metadata: dict[str, Any], reply: ChatResponse | None) -> str:
        """Check a finished answer, complete the metadata, and give the answer's text."""
        raw_answer = self.prompt.abstention_answer if reply is None else reply.message.content or ""
        raw_answer = raw_answer.strip()
        passages = [node.node.get_content(metadata_mode=MetadataMode.LLM) for node in plan.shown]
        answer, citations = repair(raw_answer, passages)
        parsed = parse_answer(raw_answer, abstention=self.prompt.abstention)
        metadata["abstained"] = parsed.abstained
        metadata["citations"] = [_describe(citation, plan.shown) for citation in citations]
        metadata["usage"] = _usage(reply)
        if answer != raw_answer:
            metadata["raw_answer"] = raw_answer
        return answer


def _chat_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    return [ChatMessage(role=message["role"], content=message["content"]) for message in messages]


def _token_counter(llm: LLM) -> Callable[[list[Message]], int]:
    """Count with the LLM's own tokenizer where it has one, else with LlamaIndex's global one."""
    own: Callable[[list[Message]], int] | None = getattr(llm, "count_tokens", None)
    if own is not None:
        return own
    tokenize = get_tokenizer()
    return lambda messages: sum(
        len(tokenize(message["content"])) + _TOKENS_AROUND_MESSAGE for message in messages
    )


def _usable_window(llm: LLM) -> int:
    """Tokens of prompt and answer that a grounded prompt should stay within."""
    window = int(llm.metadata.context_window)
    budget: int | None = getattr(llm, "prompt_budget", None)
    return window if budget is None else min(window, budget + llm.metadata.num_output)


def _usage(reply: ChatResponse | None) -> dict[str, int] | None:
    """Token counts of an answer: zero if no LLM was asked, ``None`` if the LLM does not count."""
    if reply is None:
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    usage = reply.raw.get("usage") if isinstance(reply.raw, Mapping) else None
    return dict(usage) if isinstance(usage, Mapping) else None


def _describe(citation: Citation, shown: Sequence[NodeWithScore]) -> dict[str, Any]:
    node_id = None if citation.index is None else shown[citation.index].node.node_id
    return {
        "marker": citation.marker,
        "node_id": node_id,
        "quote": citation.quote,
        "verified": citation.verified,
    }
