"""What each strategy reached: rates with their intervals, times, tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phi3_industry.evaluation.metrics import quantile
from phi3_industry.evaluation.rows import AnswerRow
from phi3_industry.evaluation.statistics import Interval, wilson_interval

__all__ = ["ArmSummary", "Rate", "summarise"]


@dataclass(frozen=True)
class Rate:
    """A share of questions, or of whatever else is counted.

    Attributes:
        successes: How many it is true of.
        trials: How many it can be true of.
    """

    successes: int
    trials: int

    @classmethod
    def of(cls, outcomes: Iterable[bool | None]) -> Rate:
        """Count outcomes; ``None`` does not count."""
        counted = [outcome for outcome in outcomes if outcome is not None]
        return cls(sum(counted), len(counted))

    @property
    def share(self) -> float | None:
        """The share between 0 and 1; ``None`` without trials."""
        return self.successes / self.trials if self.trials else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval of the share; ``None`` without trials."""
        return wilson_interval(self.successes, self.trials) if self.trials else None


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """What one strategy reached.

    Attributes:
        strategy: The strategy.
        right: Treated rightly, of all questions: the wanted answer, or an abstention where the
            documents hold none.
        house_match: Right fact in house format, of the answerable questions.
        value_match: Right value whatever the format, of the answerable questions.
        exact_match: An answer or the reference and nothing else, of the answerable questions.
        number_match: Right numbers and no others, of the answerable questions about numbers.
        token_f1: Mean overlap with answer or reference, of the answerable questions.
        terms_right: No banned word, of the answers that name a term of the glossary.
        gold_shown: A gold passage was shown, of the questions that name one.
        citation_right: Verified citation of a gold passage, of the questions that name one.
        citation_precision: Verified and of a gold passage, of the citations given on questions
            that name one.
        citation_recall: At least one such citation, of the questions that name a gold passage.
        quotes_exact: Exact substrings of their passages, of all quotes given out.
        abstention: Abstained, of the questions that the documents cannot answer.
        over_refusal: Abstained, of the answerable questions.
        latency_p50_s: Median time of a query in seconds.
        latency_p95_s: Time within which 95 % of the queries were answered, in seconds.
        latency_s: Mean time of a query in seconds.
        machine_s: Mean share of the machine's time in seconds.
        prompt_tokens: Mean tokens of a prompt, if the engine says.
        completion_tokens: Mean tokens of an answer, if the engine says.
        failed: Queries that failed.
    """

    strategy: str
    right: Rate
    house_match: Rate
    value_match: Rate
    exact_match: Rate
    number_match: Rate
    token_f1: float | None
    terms_right: Rate
    gold_shown: Rate
    citation_right: Rate
    citation_precision: Rate
    citation_recall: Rate
    quotes_exact: Rate
    abstention: Rate
    over_refusal: Rate
    latency_p50_s: float
    latency_p95_s: float
    latency_s: float
    machine_s: float
    prompt_tokens: float | None
    completion_tokens: float | None
    failed: int

    @property
    def tokens(self) -> float | None:
        """Mean tokens of prompt and answer together, if the engine says."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


def summarise(strategy: str, rows: Sequence[AnswerRow]) -> ArmSummary:
    """Summarise the answers of one strategy.

    Args:
        strategy: The strategy.
        rows: All its answers, at least one.

    Returns:
        Its rates, times and tokens.
    """
    latencies = [row.latency_s for row in rows]
    return ArmSummary(
        strategy=strategy,
        right=Rate.of(row.right for row in rows),
        house_match=Rate.of(row.house_match for row in rows),
        value_match=Rate.of(row.value_match for row in rows),
        exact_match=Rate.of(row.exact_match for row in rows),
        number_match=Rate.of(row.number_match for row in rows),
        token_f1=_mean(row.token_f1 for row in rows),
        terms_right=Rate.of(row.terms_right for row in rows),
        gold_shown=Rate.of(row.gold_shown for row in rows),
        citation_right=Rate.of(row.citation_right for row in rows),
        citation_precision=Rate.of(
            citation.right
            for row in rows
            if row.citation_right is not None
            for citation in row.given_citations
        ),
        citation_recall=Rate.of(row.cites_gold for row in rows),
        quotes_exact=Rate(sum(row.quotes_exact for row in rows), sum(row.quotes for row in rows)),
        abstention=Rate.of(row.abstained for row in rows if row.house_match is None),
        over_refusal=Rate.of(row.abstained for row in rows if row.house_match is not None),
        latency_p50_s=quantile(latencies, 0.5),
        latency_p95_s=quantile(latencies, 0.95),
        latency_s=sum(latencies) / len(rows),
        machine_s=sum(row.machine_s for row in rows) / len(rows),
        prompt_tokens=_mean(row.prompt_tokens for row in rows),
        completion_tokens=_mean(row.completion_tokens for row in rows),
        failed=sum(bool(row.error) for row in rows),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
