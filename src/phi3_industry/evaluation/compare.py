"""Ask every question under every strategy, on the user's own data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from typing import Protocol

from llama_index.core.base.response.schema import RESPONSE_TYPE, StreamingResponse
from tqdm.auto import tqdm

from phi3_industry.evaluation.result import ComparisonResult
from phi3_industry.evaluation.rows import AnswerRow, Passage, failed_row, score_response
from phi3_industry.grounding.questions import Question, load_questions

__all__ = ["STRATEGIES", "QuestionEngine", "StrategyEngine", "compare_strategies"]

STRATEGIES = ("base", "rag", "fine_tuned", "rag_fine_tuned")
"""The four ways, the cheapest first: nothing to keep up, a store, a training run and another one
whenever the facts change, both."""


class QuestionEngine(Protocol):
    """Whatever answers a question; every LlamaIndex query engine does."""

    def query(self, str_or_query_bundle: str, /) -> RESPONSE_TYPE:
        """Answer a question."""


class StrategyEngine(Protocol):
    """What :func:`compare_strategies` asks; :class:`HybridQueryEngine` is one."""

    def with_strategy(self, strategy: str, /) -> QuestionEngine:
        """Give the engine that answers by one strategy."""


def compare_strategies(
    engine: StrategyEngine,
    *,
    questions: str | PathLike[str] | Sequence[Question],
    strategies: Sequence[str] = STRATEGIES,
    margin: float = 0.02,
    seed: int = 0,
    show_progress: bool = True,
) -> ComparisonResult:
    """Ask every question under every strategy and score the answers.

    A query that fails is recorded with its error and counts as wrong. The strategies take turns
    in going first, so that what one leaves in a cache favours none.

    Args:
        engine: A :class:`~phi3_industry.query_engine.hybrid.HybridQueryEngine`, or anything with
            ``with_strategy(name)`` that gives a LlamaIndex query engine.
        questions: A questions file, or questions.
        strategies: The strategies, the cheapest first: the recommendation goes by this order.
        margin: The loss of right answers that one would accept for a lower price, as a share.
        seed: Seed of the bootstrap.
        show_progress: Whether to draw a progress bar.

    Returns:
        The scored answers, with ``table()``, ``recommendation`` and ``to_html(path)``.

    Raises:
        ValueError: There is no question or strategy, one is there twice, or the margin is not
            between 0 and 1.
        TrainingDataError: The questions file cannot be read.
    """
    asked = _questions(questions)
    _check(asked, strategies, margin)
    # every engine before any query: a strategy that the engine refuses is refused at once
    arms = {name: engine.with_strategy(name) for name in strategies}
    rows: dict[tuple[str, str], AnswerRow] = {}
    passages: dict[str, Passage] = {}
    settings: dict[str, str] = {}
    with tqdm(
        total=len(asked) * len(arms), desc="comparing", unit="answer", disable=not show_progress
    ) as progress:
        for turn, question in enumerate(asked):
            for name in _rotated(list(arms), turn):
                row, shown = _ask(arms[name], question, name, settings)
                rows[question.id, name] = row
                passages.update((passage.node_id, passage) for passage in shown)
                progress.update()
    return ComparisonResult(
        questions=tuple(asked),
        strategies=tuple(strategies),
        rows=tuple(rows[question.id, name] for question in asked for name in strategies),
        passages=passages,
        seed=seed,
        margin=margin,
        settings=settings,
    )


def _ask(
    engine: QuestionEngine, question: Question, strategy: str, settings: dict[str, str]
) -> tuple[AnswerRow, list[Passage]]:
    """Ask one question and score the answer; note in ``settings`` what the engine says it is."""
    started = time.perf_counter()
    try:
        response = engine.query(question.question)
        if isinstance(response, StreamingResponse):
            response = response.get_response()
        latency_s = time.perf_counter() - started
        row, shown = score_response(question, strategy, response, latency_s=latency_s)
    except Exception as error:  # one question must not cost the answers to all others
        latency_s = time.perf_counter() - started
        return failed_row(question, strategy, error, latency_s=latency_s), []
    for name in ("model", "adapter"):
        found = (response.metadata or {}).get(name)
        if found:
            settings.setdefault(name, str(found))
    return row, shown


def _questions(questions: str | PathLike[str] | Sequence[Question]) -> list[Question]:
    if isinstance(questions, (str, PathLike)):
        return load_questions(questions)
    return list(questions)


def _check(questions: Sequence[Question], strategies: Sequence[str], margin: float) -> None:
    if not questions:
        raise ValueError("questions is empty; give at least one question.")
    if isinstance(strategies, str):
        raise ValueError(f"strategies is the text {strategies!r}; give a list of names.")
    if not strategies:
        raise ValueError("strategies is empty; give at least one.")
    for what, names in (
        ("strategies", list(strategies)),
        ("questions", [question.id for question in questions]),
    ):
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise ValueError(f"{what} holds {repeated} more than once; each must be there once.")
    if not 0 < margin < 1:
        raise ValueError(f"margin is {margin}; it is a share between 0 and 1, such as 0.02.")


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names)
    return names[start:] + names[:start]
