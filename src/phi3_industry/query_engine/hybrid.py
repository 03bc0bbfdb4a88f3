"""HybridQueryEngine: answers from documents, from fine-tuned weights, or from both."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.instrumentation.events.synthesis import (
    SynthesizeEndEvent,
    SynthesizeStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import BaseMemory
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from phi3_industry.errors import ConfigurationError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt
from phi3_industry.grounding.questions import Question, load_questions
from phi3_industry.query_engine.admission import Admission
from phi3_industry.query_engine.answers import Unsupported
from phi3_industry.query_engine.calibration import Calibration
from phi3_industry.query_engine.chat import (
    ChatMode,
    CheckedChatEngine,
    chat_memory,
    context_chat_engine,
)
from phi3_industry.query_engine.conflicts import Conflicts
from phi3_industry.query_engine.evidence import EvidenceRules
from phi3_industry.query_engine.fitting import Wish, fit_calibration
from phi3_industry.query_engine.freshness import (
    CalibrationSource,
    find_calibration,
    retriever_fingerprints,
)
from phi3_industry.query_engine.models import find_models
from phi3_industry.query_engine.observing import IsRight, gives_the_answer, observe_questions
from phi3_industry.query_engine.planning import Planner
from phi3_industry.query_engine.prompts import (
    CONDENSE_QUESTION,
    CONDENSE_QUESTION_KEY,
    read_prompts,
    replace_prompts,
)
from phi3_industry.query_engine.responding import Responder
from phi3_industry.query_engine.strategy import AUTO, parse_strategy

__all__ = ["HybridQueryEngine"]

_dispatcher = get_dispatcher(__name__)


class HybridQueryEngine(BaseQueryEngine):
    """Answers questions in one of four ways, says which and why, and checks its answers.

    It works with any LlamaIndex retriever and any LlamaIndex LLM. The strategies that use an
    adapter need an LLM that has them, such as :class:`~phi3_industry.llms.Phi3LLM`. An LLM that
    scores answers lets ``auto`` see whether passages suffice and whether the weights know.

    Every response's ``metadata`` is plain JSON:

    - ``strategy``, ``reason`` (a plain sentence with the numbers), ``signals`` (these numbers,
      under ``auto``), ``adapter``, ``model``, ``usage``;
    - ``ground``: ``"passages"``, ``"weights"`` for an answer without any, ``"none"`` where
      nothing was asked;
    - ``abstained``; ``supported``, whether a passage bears the answer (``None`` where that is no
      question);
    - ``citations`` (``marker``, ``node_id``, ``quote``, ``verified``); each quote is an exact
      substring of its passage;
    - where they apply: ``quotes``, ``raw_answer``, ``superseded``, ``conflict``, ``provenance``.

    ``source_nodes`` are the passages of the prompt in the order of their numbers; older versions
    that were set aside follow. A streamed response is shown as the model speaks; when its stream
    has ended, ``answer`` is the checked text and the rest of the metadata is there.

    Args:
        retriever: Finds passages. May be ``None`` for the strategies that use none.
        llm: Answers.
        adapter: Name or path of the adapter; ``None`` if there is none.
        strategy: ``"auto"`` or one of :class:`Strategy`.
        prompt: The wording; an adapter has to be trained with the same.
        min_score: With ``"auto"`` and no calibration, the retriever's score below which a
            passage is no evidence. ``None`` takes whatever the retriever found.
        node_postprocessors: Applied to what was retrieved, such as a reranker.
        streaming: Whether ``query`` gives the answer piece by piece.
        evidence: Which of the retrieved passages are shown, and in which order.
        abstention: What an abstaining answer says, in the language of your users; ``None`` for
            the prompt's own, ``[0] I don't know.``
        unsupported: ``"abstain"`` from an answer that no passage bears, or only ``"mark"`` it.
        conflicts: Other than ``"ignore"``, the LLM is asked once more, over the passages that do
            not say what its answer says. If they bear another answer, ``"mark"`` says so in the
            metadata and the reason, ``"show"`` also answers with both, a line each, ``"abstain"``
            with neither. The answer of the more trusted, then of the newer document comes first.
        provenance: Whether to trace each answer to its passages and the weights; see
            :mod:`~phi3_industry.query_engine.provenance`. Costs some more readings of the prompt.
        calibration: What :meth:`calibrate` gave, or its file; ``None`` takes the file that lies
            beside the adapter if it was made with the same parts; ``False`` takes none.
        max_concurrency: The most ``aquery`` calls that run at once.
        max_waiting: The most that wait; one more gets ``EngineOverloadedError`` at once.
        callback_manager: LlamaIndex's callbacks.

    Raises:
        ValueError: There is no such strategy, or a number is out of range.
        ConfigurationError: The strategy needs a retriever or an adapter that is not given, the
            calibration is stale, or provenance is asked of an LLM that cannot score.
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
        evidence: EvidenceRules | None = None,
        abstention: str | None = None,
        unsupported: Unsupported = "abstain",
        conflicts: Conflicts = "ignore",
        provenance: bool = False,
        calibration: CalibrationSource = None,
        max_concurrency: int = 64,
        max_waiting: int = 1024,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager or llm.callback_manager)
        if unsupported not in ("abstain", "mark"):
            raise ValueError(f"unsupported is {unsupported!r}; it must be 'abstain' or 'mark'.")
        if conflicts not in get_args(Conflicts):
            raise ValueError(
                f"conflicts is {conflicts!r}; it must be one of {', '.join(get_args(Conflicts))}."
            )
        self._settings: dict[str, Any] = {
            "retriever": retriever,
            "llm": llm,
            "adapter": adapter,
            "strategy": strategy,
            "prompt": prompt,
            "min_score": min_score,
            "node_postprocessors": list(node_postprocessors),
            "streaming": streaming,
            "evidence": evidence or EvidenceRules(),
            "abstention": abstention,
            "unsupported": unsupported,
            "conflicts": conflicts,
            "provenance": provenance,
            "calibration": calibration,
            "max_concurrency": max_concurrency,
            "max_waiting": max_waiting,
            "callback_manager": callback_manager,
        }
        self.retriever = retriever
        self.adapter = adapter
        self.prompt = prompt
        self.strategy = parse_strategy(strategy)
        self.node_postprocessors = list(node_postprocessors)
        self.streaming = streaming
        self._condense_question: BasePromptTemplate = CONDENSE_QUESTION
        self._models = find_models(llm, adapter)
        self._models.check_prompt(prompt)
        self._check_parts(provenance=provenance)
        self._admission = Admission(most_running=max_concurrency, most_waiting=max_waiting)
        self._responder = Responder(
            models=self._models,
            rules=self._settings["evidence"],
            abstention=abstention,
            unsupported=unsupported,
            conflicts=conflicts,
            provenance=provenance,
        )
        self._planner = self._make_planner()

    def with_settings(self, **changes: Any) -> HybridQueryEngine:
        """Give an engine over the same parts with other settings.

        Args:
            **changes: Arguments of the constructor.
        """
        other = HybridQueryEngine(**{**self._settings, **changes})
        other._condense_question = self._condense_question
        return other

    def with_strategy(self, strategy: str) -> HybridQueryEngine:
        """Give an engine over the same parts that answers in another way."""
        return self.with_settings(strategy=strategy)

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that this engine's parts allow, ``auto`` last."""
        known = [
            strategy.value
            for strategy in self._models.strategies
            if self.retriever is not None or not strategy.uses_passages
        ]
        return (*known, AUTO)

    @property
    def calibration(self) -> Calibration | None:
        """What ``auto`` learned about when which way is right; ``None`` if nothing."""
        return self._planner.calibration

    @property
    def answer_settings(self) -> dict[str, str]:
        """The settings beside strategy and parts that answers depend on, as texts."""
        names = ("min_score", "evidence", "abstention", "unsupported", "conflicts")
        return {name: repr(self._settings[name]) for name in names}

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

    @_dispatcher.span
    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from given passages."""
        given = [*nodes, *(additional_source_nodes or ())]
        _dispatcher.event(SynthesizeStartEvent(query=query_bundle))
        with self._event(CBEventType.SYNTHESIZE, query_bundle) as event:
            plan = self._planner.plan(query_bundle.query_str, given)
            response: RESPONSE_TYPE = (
                self._responder.stream(plan) if self.streaming else self._responder.answer(plan)
            )
            event.on_end(payload={EventPayload.RESPONSE: response})
        _dispatcher.event(SynthesizeEndEvent(query=query_bundle, response=response))
        return response

    @_dispatcher.span
    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from given passages without blocking the event loop."""
        given = [*nodes, *(additional_source_nodes or ())]
        _dispatcher.event(SynthesizeStartEvent(query=query_bundle))
        with self._event(CBEventType.SYNTHESIZE, query_bundle) as event:
            plan = await asyncio.to_thread(self._planner.plan, query_bundle.query_str, given)
            response: RESPONSE_TYPE = (
                self._responder.astream(plan)
                if self.streaming
                else await self._responder.aanswer(plan)
            )
            event.on_end(payload={EventPayload.RESPONSE: response})
        _dispatcher.event(SynthesizeEndEvent(query=query_bundle, response=response))
        return response

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._event(CBEventType.QUERY, query_bundle) as event:
            nodes = self.retrieve(query_bundle) if self._may_retrieve else []
            response = self.synthesize(query_bundle, nodes)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        async with self._admission.admitted():
            with self._event(CBEventType.QUERY, query_bundle) as event:
                nodes = await self.aretrieve(query_bundle) if self._may_retrieve else []
                response = await self.asynthesize(query_bundle, nodes)
                event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _event(self, kind: CBEventType, query_bundle: QueryBundle) -> Any:
        payload: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        return self.callback_manager.event(kind, payload=payload)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _get_prompts(self) -> PromptDictType:
        return read_prompts(self.prompt, self._condense_question)

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        prompt = replace_prompts(self.prompt, prompts_dict)
        self._models.check_prompt(prompt)
        before, self.prompt = self.prompt, prompt
        try:
            self._planner = self._make_planner()
        except ConfigurationError:  # the calibration was learned with the other wording
            self.prompt = before
            raise
        self._settings["prompt"] = prompt
        self._condense_question = prompts_dict.get(CONDENSE_QUESTION_KEY, self._condense_question)

    # --- conversations ------------------------------------------------------------------------

    def as_chat_engine(
        self,
        chat_mode: ChatMode = "condense_question",
        *,
        llm: LLM | None = None,
        chat_history: list[ChatMessage] | None = None,
        memory: BaseMemory | None = None,
        **settings: Any,
    ) -> BaseChatEngine:
        """Make a chat engine.

        Args:
            chat_mode: ``"condense_question"`` makes each follow-up a question of its own and
                answers it here, with all checks. ``"condense_plus_context"`` and ``"context"``
                are LlamaIndex's engines over the same retriever and LLM; nothing is checked.
            llm: Condenses, and answers in the latter two; the LLM without adapter if ``None``.
            chat_history: What was said before.
            memory: Keeps the conversation; one that leaves room in the LLM's window if ``None``.
            **settings: What else LlamaIndex's engine takes.

        Raises:
            ConfigurationError: The mode is unknown, or needs a retriever and there is none.
        """
        talker = llm or self._models.base
        memory = memory or chat_memory(talker, chat_history)
        if chat_mode == "condense_question":
            return CheckedChatEngine(
                self.with_settings(streaming=False),
                self.with_settings(streaming=True),
                condense_question_prompt=self._condense_question,
                memory=memory,
                llm=talker,
                abstention=self.prompt.abstention,
                callback_manager=self.callback_manager,
                **settings,
            )
        return context_chat_engine(
            chat_mode,
            retriever=self.retriever,
            llm=talker,
            memory=memory,
            node_postprocessors=self.node_postprocessors,
            **settings,
        )

    # --- calibration --------------------------------------------------------------------------

    def calibrate(
        self,
        questions: str | PathLike[str] | Sequence[Question],
        *,
        path: str | PathLike[str] | None = None,
        coverage: float | None = None,
        accuracy: float | None = None,
        is_right: IsRight = gives_the_answer,
        folds: int = 5,
        margin: float = 0.02,
        seed: int = 0,
        workers: int = 8,
        show_progress: bool = False,
    ) -> Calibration:
        """Learn from labelled questions when which way to answer is right.

        Each question is asked in every way there is. What was known before, of retrieval and of
        the model, is weighed by a logistic model for each way. The reported curve and rates are
        cross-fitted: no question is judged by models or a threshold that saw it.

        Args:
            questions: A questions file or its questions, at least 20; those that the documents
                cannot answer belong to them.
            path: Where to save it, a file or a folder; beside the adapter if ``None`` and there
                is one.
            coverage: Share of questions to answer, the surest ones.
            accuracy: Share of right ones wanted among the answers, in place of ``coverage``.
                Without either the most questions are treated rightly, where abstaining is right
                if there is no answer; nothing is held back beforehand unless that gains more
                than its standard error.
            is_right: Judges an answer; by default it has to hold the ``reference``, or where
                there is none an accepted answer.
            folds: Parts of the cross-fitting.
            margin: Ways whose probability is no more than this below the best are as good; the
                cheapest of them is taken.
            seed: Seed of the parts.
            workers: Questions that are asked at once.
            show_progress: Whether to show a progress bar.

        Returns:
            The calibration, which ``auto`` goes by from now on.

        Raises:
            TrainingDataError: There are too few questions.
        """
        if isinstance(questions, str | PathLike):
            questions = load_questions(questions)
        ways = {
            strategy: self.with_settings(
                strategy=strategy.value, streaming=False, provenance=False, calibration=False
            )
            for strategy in self._models.strategies
            if self.retriever is not None or not strategy.uses_passages
        }
        observations = observe_questions(
            questions,
            retrieve=self.retrieve,
            signals=self._planner.observe,
            ways=ways,
            is_right=is_right,
            workers=workers,
            show_progress=show_progress,
        )
        calibration = fit_calibration(
            observations,
            wish=Wish(coverage=coverage, accuracy=accuracy),
            fingerprints=self.fingerprints(),
            folds=folds,
            margin=margin,
            seed=seed,
        )
        target = path if path is not None else self._adapter_folder()
        if target is not None:
            calibration.save(target)
        self._settings["calibration"] = calibration
        self._planner = self._make_planner()
        return calibration

    def fingerprints(self) -> dict[str, str]:
        """Say what a calibration depends on: model, adapter, prompt, retriever, embedding."""
        return {
            **self._models.fingerprints(),
            **retriever_fingerprints(self.retriever),
            "prompt": self.prompt.fingerprint,
        }

    def _adapter_folder(self) -> Path | None:
        paths: Mapping[str, str] = getattr(self._models.expert, "adapter_paths", {})
        folder = paths.get(self.adapter or "")
        return None if folder is None else Path(folder)

    def _make_planner(self) -> Planner:
        calibration, remark = None, ""
        if self.strategy is None:
            calibration, remark = find_calibration(
                self._settings["calibration"],
                folder=self._adapter_folder(),
                fingerprints=self.fingerprints(),
            )
        return Planner(
            models=self._models,
            prompt=self.prompt,
            rules=self._settings["evidence"],
            strategy=self.strategy,
            min_score=self._settings["min_score"],
            calibration=calibration,
            remark=remark,
        )

    @property
    def _may_retrieve(self) -> bool:
        return self.strategy is None or self.strategy.uses_passages

    def _check_parts(self, *, provenance: bool) -> None:
        strategy = self.strategy
        if strategy is not None and strategy.uses_passages and self.retriever is None:
            raise ConfigurationError(
                f"The strategy '{strategy}' answers from passages and no retriever was "
                "given. Pass retriever=..., or choose 'base' or 'fine_tuned'."
            )
        if strategy is not None and strategy.uses_adapter and self._models.expert is None:
            raise ConfigurationError(
                f"The strategy '{strategy}' answers with an adapter and none was given. "
                "Pass adapter=..., or choose 'base' or 'rag'."
            )
        if provenance and not self._models.supports_scores:
            raise ConfigurationError(
                f"Provenance was asked of {type(self._models.base).__name__}, which has no "
                "score(messages, continuations). Use Phi3LLM, or leave provenance out."
            )
