"""Ask labelled questions in every way there is, to learn when which way is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from llama_index.core.schema import NodeWithScore, QueryBundle
from tqdm import tqdm

from phi3_industry.grounding.citations import parse_answer
from phi3_industry.grounding.matching import stands_in
from phi3_industry.grounding.questions import Question
from phi3_industry.query_engine.fitting import Observation, Outcome
from phi3_industry.query_engine.signals import Signals
from phi3_industry.query_engine.strategy import Strategy

__all__ = ["IsRight", "gives_the_answer", "observe_questions"]

IsRight = Callable[[str, Question], bool]
"""Tells whether an answer is right for a question that the documents can answer."""


class Answers(Protocol):
    """A query engine of one strategy."""

    def synthesize(self, query_bundle: QueryBundle, nodes: list[NodeWithScore]) -> Any:
        """Answer from given passages."""


def gives_the_answer(answer: str, question: Question) -> bool:
    """Tell whether an answer holds the whole of what is wanted, in the wanted form."""
    body = parse_answer(answer).body
    accepted = [question.reference] if question.reference is not None else question.answers
    return any(stands_in(wanted, body) for wanted in accepted)


def observe_questions(
    questions: Sequence[Question],
    *,
    retrieve: Callable[[QueryBundle], list[NodeWithScore]],
    signals: Callable[[str, list[NodeWithScore]], Signals],
    ways: Mapping[Strategy, Answers],
    is_right: IsRight,
    workers: int,
    show_progress: bool,
) -> list[Observation]:
    """Observe what is known of each question and what each way makes of it.

    Args:
        questions: The questions.
        retrieve: Finds passages.
        signals: Measures what is known before answering.
        ways: An engine for each strategy.
        is_right: Judges the answers.
        workers: Questions that are asked at once.
        show_progress: Whether to show a progress bar.

    Returns:
        The observations, in the questions' order.
    """

    def observe(question: Question) -> Observation:
        bundle = QueryBundle(question.question)
        nodes = retrieve(bundle)
        outcomes = {}
        for strategy, engine in ways.items():
            response = engine.synthesize(bundle, nodes)
            answered = not response.metadata["abstained"]
            right = answered and question.answerable and is_right(response.response, question)
            usage = response.metadata["usage"] or {}
            tokens = int(usage.get("total_tokens", 0))
            outcomes[strategy] = Outcome(answered, right, tokens)
        return Observation(
            group=question.gold_ids[0] if question.gold_ids else question.id,
            answerable=question.answerable,
            signals=signals(question.question, nodes),
            outcomes=outcomes,
        )

    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = pool.map(observe, questions)
        bar = tqdm(results, total=len(questions), desc="calibrating", disable=not show_progress)
        return list(bar)
