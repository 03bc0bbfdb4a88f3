"""What is to be asked, and of whom: evidence, signals, strategy and prompt of one question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import NodeWithScore

from phi3_industry.grounding.citations import parse_answer
from phi3_industry.grounding.prompt import FittedPrompt, GroundingPrompt
from phi3_industry.query_engine.calibration import Calibration
from phi3_industry.query_engine.evidence import (
    EvidenceRules,
    Selection,
    as_data,
    document_of,
    passage_text,
)
from phi3_industry.query_engine.models import (
    Models,
    chat_messages,
    token_counter,
    usable_window,
)
from phi3_industry.query_engine.signals import (
    Signals,
    certainty,
    citing_probabilities,
    retrieval_signals,
    scorer,
)
from phi3_industry.query_engine.strategy import (
    LEAST_SUFFICIENCY,
    Choice,
    Strategy,
    choose,
    suffices,
)
from phi3_industry.query_engine.versions import Superseded

__all__ = ["Plan", "Planner"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be asked, and of whom.

    Attributes:
        question: The question.
        choice: The strategy and its reason.
        llm: The LLM, with or without adapter; ``None`` if there is nothing to ask.
        messages: The prompt.
        prompt: The wording it was made with.
        shown: The nodes in it, in the order of their numbers.
        shown_texts: What the LLM reads of each; see :func:`as_data`.
        adapter: Name of the adapter that answers.
        superseded: Older versions of what is shown.
        signals: What was known of the question, if it was chosen by that.
        draft: An answer from the weights, where choosing took asking for one.
        takes_draft: Whether that is the answer.
    """

    question: str
    choice: Choice
    prompt: GroundingPrompt
    llm: LLM | None = None
    messages: tuple[ChatMessage, ...] = ()
    shown: tuple[NodeWithScore, ...] = ()
    shown_texts: tuple[str, ...] = ()
    adapter: str | None = None
    superseded: tuple[Superseded, ...] = ()
    signals: Signals | None = None
    draft: ChatResponse | None = None
    takes_draft: bool = False

    @property
    def closed_book(self) -> bool:
        """Whether the answer comes from the weights."""
        return self.llm is not None and not self.shown


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Makes the plan of each question.

    Attributes:
        models: Who can answer.
        prompt: The wording.
        rules: What counts as evidence.
        strategy: The strategy; ``None`` chooses for each question.
        min_score: See :class:`~phi3_industry.query_engine.hybrid.HybridQueryEngine`.
        calibration: What was learned about when which strategy is right.
        remark: A sentence to add to each reason.
    """

    models: Models
    prompt: GroundingPrompt
    rules: EvidenceRules
    strategy: Strategy | None
    min_score: float | None
    calibration: Calibration | None
    remark: str = ""

    def plan(self, question: str, nodes: Sequence[NodeWithScore]) -> Plan:
        """Make the plan of a question.

        Args:
            question: The question.
            nodes: What was retrieved for it, best first.

        Raises:
            PromptTooLongError: The question, or every passage, is too long for the model.
            EngineError: The model could not be asked for its probabilities.
        """
        if self.strategy is not None and not self.strategy.uses_passages:
            return self._closed_book(question, self._asked_for(self.strategy))
        selection, fitted = self._gather(question, nodes)
        if self.strategy is not None:
            choice = self._asked_for(self.strategy)
            choice = replace(choice, abstains=fitted is None)
            return self._finish(question, choice, selection, fitted)
        signals, draft = self._measure(question, selection, fitted)
        if self.calibration is not None:
            choice = self.calibration.choose(signals)
        else:
            choice = choose(signals, adapter=self.models.adapter, min_score=self.min_score)
        if self.remark:
            choice = replace(choice, reason=f"{choice.reason} {self.remark}")
        if not choice.abstains and not choice.strategy.uses_passages:
            whose = Strategy.BASE if self.models.expert is None else Strategy.FINE_TUNED
            takes = draft is not None and choice.strategy is whose
            plan = replace(self._closed_book(question, choice), takes_draft=takes)
        else:
            plan = self._finish(question, choice, selection, fitted)
        return replace(plan, signals=signals, draft=draft)

    def observe(self, question: str, nodes: Sequence[NodeWithScore]) -> Signals:
        """Measure everything that can be known of a question before it is answered."""
        selection, fitted = self._gather(question, nodes)
        signals = retrieval_signals(selection.passages)
        signals = self._with_sufficiency(signals, selection, fitted)
        return self._with_certainty(question, signals)[0]

    def _asked_for(self, strategy: Strategy) -> Choice:
        return Choice(strategy=strategy, reason=f"The strategy '{strategy}' was asked for.")

    def _gather(
        self, question: str, nodes: Sequence[NodeWithScore]
    ) -> tuple[Selection, FittedPrompt | None]:
        """Select the evidence and fit it into a prompt, from the most trusted documents on."""
        selection = self.rules.select(nodes)
        reader = scorer(self.models.reader)
        tiers = self.rules.tiers(selection.passages)
        for passages in tiers[:-1]:
            if reader is None:
                break
            fitted = self._fit(question, passages)
            abstains, *_ = citing_probabilities(reader, fitted.messages, len(fitted.kept))
            if 1 - abstains >= LEAST_SUFFICIENCY:
                untrusted = len(selection.passages) - len(passages)
                return replace(selection, passages=passages, untrusted=untrusted), fitted
        if not tiers:
            return selection, None
        return selection, self._fit(question, selection.passages)

    def _fit(self, question: str, passages: Sequence[NodeWithScore]) -> FittedPrompt:
        llm = self.models.reader
        texts = [as_data(passage_text(node), self.prompt) for node in passages]
        return self.prompt.fit(
            question,
            texts,
            count_tokens=token_counter(llm),
            context_window=usable_window(llm),
            max_new_tokens=llm.metadata.num_output,
            order=self.rules.order(passages),
        )

    # --- signals ------------------------------------------------------------------------------

    def _measure(
        self, question: str, selection: Selection, fitted: FittedPrompt | None
    ) -> tuple[Signals, ChatResponse | None]:
        """Measure what the choice needs, the cheap first."""
        signals = retrieval_signals(selection.passages)
        if self.calibration is not None:
            if self.calibration.needs("sufficiency"):
                signals = self._with_sufficiency(signals, selection, fitted)
            if self.calibration.needs("certainty"):
                return self._with_certainty(question, signals)
            return signals, None
        signals = self._with_sufficiency(signals, selection, fitted)
        enough = suffices(signals, min_score=self.min_score)
        if enough or self.models.expert is None:
            return signals, None
        return self._with_certainty(question, signals)

    def _with_sufficiency(
        self, signals: Signals, selection: Selection, fitted: FittedPrompt | None
    ) -> Signals:
        """Ask the reader whether it would cite; engines keep what it read for the answer."""
        reader = scorer(self.models.reader)
        if fitted is None or reader is None:
            return signals
        abstains, *citing = citing_probabilities(reader, fitted.messages, len(fitted.kept))
        sources = [document_of(selection.passages[index]) for index in fitted.kept]
        best = sources[citing.index(max(citing))]
        rival = max((p for p, at in zip(citing, sources, strict=True) if at != best), default=0.0)
        return replace(signals, sufficiency=1 - abstains, rival=rival)

    def _with_certainty(
        self, question: str, signals: Signals
    ) -> tuple[Signals, ChatResponse | None]:
        """Let the reader draft an answer from its weights, and ask how sure it is of it."""
        base, expert = scorer(self.models.base), scorer(self.models.expert)
        if base is None:
            return signals, None
        messages = self.prompt.closed_book(question)
        draft = self.models.reader.chat(chat_messages(messages))
        answer = draft.message.content or ""
        parsed = parse_answer(answer, abstention=self.prompt.abstention)
        signals = replace(signals, draft_abstains=parsed.abstained)
        if not answer:
            return signals, draft
        signals = replace(signals, certainty=certainty(base, messages, answer))
        if expert is not None:
            signals = replace(signals, expert_certainty=certainty(expert, messages, answer))
        return signals, draft

    # --- prompts ------------------------------------------------------------------------------

    def _closed_book(self, question: str, choice: Choice) -> Plan:
        return Plan(
            question=question,
            choice=choice,
            prompt=self.prompt,
            llm=self.models.of(choice.strategy),
            messages=tuple(chat_messages(self.prompt.closed_book(question))),
            adapter=self._adapter(choice.strategy),
        )

    def _finish(
        self, question: str, choice: Choice, selection: Selection, fitted: FittedPrompt | None
    ) -> Plan:
        adapter = self._adapter(choice.strategy)
        if choice.abstains or fitted is None:
            return Plan(question=question, choice=choice, prompt=self.prompt, adapter=adapter)
        shown = tuple(selection.passages[index] for index in fitted.kept)
        ids = {node.node.node_id for node in shown}
        texts = tuple(as_data(passage_text(node), self.prompt) for node in shown)
        return Plan(
            question=question,
            choice=replace(
                choice,
                reason=_with_omissions(choice.reason, selection, fitted)
                + _on_versions(self.rules.dates_of_versions(shown)),
            ),
            prompt=self.prompt,
            llm=self.models.of(choice.strategy),
            messages=tuple(chat_messages(fitted.messages)),
            shown=shown,
            shown_texts=texts,
            adapter=adapter,
            superseded=tuple(old for old in selection.superseded if old.newer_id in ids),
        )

    def _adapter(self, strategy: Strategy) -> str | None:
        return self.models.adapter if strategy.uses_adapter else None


def _with_omissions(reason: str, selection: Selection, fitted: FittedPrompt) -> str:
    """Add to a reason what was left out."""
    if fitted.dropped:
        reason += f" {len(fitted.dropped)} of them did not fit into the prompt."
    if selection.capped:
        reason += f" {selection.capped} more of the same documents were left out."
    if selection.untrusted:
        reason += f" {selection.untrusted} of less trusted documents were set aside."
    if selection.superseded:
        dates = ", ".join(f"{old.older_date} by {old.newer_date}" for old in selection.superseded)
        reason += f" Older versions were set aside: {dates}."
    return reason


def _on_versions(groups: Sequence[tuple[str, ...]]) -> str:
    """Say which passages may contradict one another, since they look like versions."""
    if not groups:
        return ""
    dates = "; ".join(" before ".join(group) for group in groups)
    return f" What looks like versions of one passage is numbered newest first: {dates}."
