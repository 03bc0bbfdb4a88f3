"""Ask every question under every strategy, on the user's own data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Protocol

from llama_index.core.evaluation import BaseEvaluator
from tqdm.auto import tqdm

from phi3_industry.evaluation.asking import Block, QuestionEngine, Reply, ask_all
from phi3_industry.evaluation.costs import Prices, Upkeep
from phi3_industry.evaluation.journal import Journal, Record, journal_settings
from phi3_industry.evaluation.judging import check_judge, judge_answers
from phi3_industry.evaluation.result import ComparisonResult
from phi3_industry.evaluation.scoring import Terms, failed_row, score_response
from phi3_industry.evaluation.ways import PLAIN, STRATEGIES
from phi3_industry.grounding.questions import Question, load_questions

__all__ = ["STRATEGIES", "StrategyEngine", "compare_strategies"]


class StrategyEngine(Protocol):
    """What :func:`compare_strategies` asks; :class:`HybridQueryEngine` is one."""

    def with_strategy(self, strategy: str, /) -> QuestionEngine:
        """Give the engine that answers by one strategy."""


def compare_strategies(
    engine: StrategyEngine,
    *,
    questions: str | PathLike[str] | Sequence[Question],
    strategies: Sequence[str] | None = None,
    plain: StrategyEngine | None = None,
    glossary: Terms | None = None,
    prices: Prices | None = None,
    upkeep: Upkeep | None = None,
    judge: BaseEvaluator | None = None,
    workers: int = 1,
    journal: str | PathLike[str] | None = None,
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
        questions: A questions file, or questions. What kind of question each is, its stratum, is
            read from its ``metadata``; see :class:`~phi3_industry.grounding.questions.Question`.
        strategies: The strategies, the cheapest first. If ``None`` all that the engine names as
            its ``strategies``, ``auto`` among them, or :data:`STRATEGIES`.
        plain: An engine whose adapter was trained by plain instruction tuning, without passages
            in its rows; its ways with the adapter are asked beside those of ``engine``.
        glossary: The house's terms, to see whether answers keep to them.
        prices: What tokens, the machine and fine-tuning cost.
        upkeep: How long fine-tuning and indexing take.
        judge: A LlamaIndex evaluator that reads the answers too. One that compares two answers
            is asked in both orders; make it with ``enforce_consensus=False``.
        workers: Questions that a strategy is asked at once, through ``aquery`` if more than one.
            Latencies are then those under that load.
        journal: A file to which each scored answer is appended at once. A comparison that was
            stopped goes on with it; failed queries are asked again. It is refused if questions,
            strategies, glossary, model, adapter, prompt, retriever or calibration are others.
            That documents have changed is not noticed.
        margin: The loss of right answers that one would accept for a lower price, as a share.
        seed: Seed of the bootstrap.
        show_progress: Whether to draw a progress bar.

    Returns:
        The scored answers, with ``table()``, ``recommendation`` and ``to_html(path)``.

    Raises:
        ValueError: There is no question or strategy, one is there twice, or a number is out of
            range.
        ConfigurationError: The journal is of another comparison.
        TrainingDataError: The questions file cannot be read.
    """
    asked = _questions(questions)
    if strategies is None:
        strategies = getattr(engine, "strategies", STRATEGIES)
    _check(asked, strategies, margin=margin, workers=workers)
    if judge is not None:
        check_judge(judge)
    # every engine before any query: a strategy that the engine refuses is refused at once
    arms = _arms(engine, strategies, plain)
    _check_engines(arms, workers)
    log = None if journal is None else Journal(journal, journal_settings(asked, arms, glossary))
    with log or nullcontext():
        records = _collect(asked, arms, glossary, log, workers=workers, show=show_progress)
        ordered = [records[question.id, name] for question in asked for name in arms]
        passages = {passage.node_id: passage for _, shown, _ in ordered for passage in shown}
        judgement = None
        if judge is not None:
            judgement = judge_answers(
                judge,
                asked,
                {name: [records[question.id, name][0] for question in asked] for name in arms},
                passages,
                workers=workers,
                journal=log,
                show_progress=show_progress,
            )
    return ComparisonResult(
        questions=tuple(asked),
        strategies=tuple(arms),
        rows=tuple(row for row, _, _ in ordered),
        passages=passages,
        seed=seed,
        margin=margin,
        prices=prices,
        upkeep=upkeep,
        judgement=judgement,
        settings={**_said(ordered), **({"asked at once": str(workers)} if workers > 1 else {})},
    )


def _arms(
    engine: StrategyEngine, strategies: Sequence[str], plain: StrategyEngine | None
) -> dict[str, QuestionEngine]:
    """Give the engine of each way, a plain one before ours of the same kind."""
    arms = {}
    for name in strategies:
        if plain is not None and name in PLAIN:
            arms[PLAIN[name]] = plain.with_strategy(name)
        arms[name] = engine.with_strategy(name)
    return arms


def _collect(
    questions: Sequence[Question],
    arms: Mapping[str, QuestionEngine],
    glossary: Terms | None,
    log: Journal | None,
    *,
    workers: int,
    show: bool,
) -> dict[tuple[str, str], Record]:
    """Ask what the journal does not hold, and give all answers by question and way."""
    known = log.records if log else []
    records = {(record[0].question_id, record[0].strategy): record for record in known}
    blocks = _blocks(questions, list(arms), workers, done=set(records))
    total = len(questions) * len(arms)
    with tqdm(total=total, desc="comparing", unit="answer", disable=not show) as progress:
        progress.update(len(records))

        def receive(name: str, question: Question, reply: Reply) -> None:
            record = records[question.id, name] = _score(name, question, reply, glossary)
            if log:
                log.add(*record)
            progress.update()

        ask_all(arms, blocks, receive)
    return records


def _blocks(
    questions: Sequence[Question],
    names: list[str],
    workers: int,
    *,
    done: Collection[tuple[str, str]],
) -> Iterator[Block]:
    """Part the questions into blocks; each way is asked a whole block at once."""
    for turn, start in enumerate(range(0, len(questions), workers)):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            block = questions[start : start + workers]
            left = [question for question in block if (question.id, name) not in done]
            if left:
                yield name, left


def _score(name: str, question: Question, reply: Reply, glossary: Terms | None) -> Record:
    """Score a reply, and note what the engine says it is."""
    times = {"latency_s": reply.latency_s, "machine_s": reply.machine_s}
    if reply.error is None and reply.response is not None:
        try:
            row, passages = score_response(question, name, reply.response, terms=glossary, **times)
            facts = reply.response.metadata or {}
            said = {key: str(facts[key]) for key in ("model", "adapter") if facts.get(key)}
            return row, passages, said
        except Exception as error:  # what an engine says of itself may be of any shape
            return failed_row(question, name, error, **times), [], {}
    problem = reply.error or TypeError("The engine gave no response.")
    return failed_row(question, name, problem, **times), [], {}


def _said(records: Sequence[Record]) -> dict[str, str]:
    """Give the first model and the first adapter that an engine named."""
    found: dict[str, str] = {}
    for _, _, said in records:
        for name, value in said.items():
            found.setdefault(name, value)
    return found


def _questions(questions: str | PathLike[str] | Sequence[Question]) -> list[Question]:
    if isinstance(questions, (str, PathLike)):
        return load_questions(questions)
    return list(questions)


def _check(
    questions: Sequence[Question], strategies: Sequence[str], *, margin: float, workers: int
) -> None:
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
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1.")


def _check_engines(arms: Mapping[str, QuestionEngine], workers: int) -> None:
    for name, arm in arms.items():
        if workers > 1 and not callable(getattr(arm, "aquery", None)):
            raise ValueError(
                f"workers is {workers} and the engine of '{name}', a {type(arm).__name__}, has no "
                "aquery. Leave workers at 1."
            )
