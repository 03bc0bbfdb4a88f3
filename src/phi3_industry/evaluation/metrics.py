"""How right an answer is: pure functions over texts and ids."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from phi3_industry.evaluation.tokens import (
    answer_tokens,
    fold,
    normalise_answer,
    tokens_with_ends,
)

__all__ = [
    "answer_tokens",
    "citation_right",
    "exact_match",
    "house_match",
    "normalise_answer",
    "quantile",
    "token_f1",
    "value_match",
]

_CONTINUED_NUMBER = re.compile(r"\s*[-−–—~.,'’/:x×]?\s*\d")
_CONTINUED_WORD = re.compile(r"[^\w\s|;()\[\]{}<>]*\w")


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Tell whether a prediction equals one of the answers after normalisation.

    Args:
        prediction: What was answered, without its citation.
        answers: Right answers, any one of which suffices.

    Returns:
        Whether it equals one. Texts of nothing but punctuation are compared as they are.

    Raises:
        ValueError: ``answers`` is empty.
    """
    _require_answers(answers)
    normalised = normalise_answer(prediction)
    return any(
        normalised == normalise_answer(answer) if normalised else house_match(prediction, answer)
        for answer in answers
    )


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the answer's tokens, for the best of the answers.

    Args:
        prediction: What was answered, without its citation.
        answers: Right answers, any one of which suffices.

    Returns:
        A share between 0 and 1.

    Raises:
        ValueError: ``answers`` is empty.
    """
    _require_answers(answers)
    predicted = Counter(answer_tokens(prediction))
    return max(_f1(predicted, Counter(answer_tokens(answer))) for answer in answers)


def value_match(body: str, answers: Sequence[str]) -> bool:
    """Tell whether an answer gives the right value, whatever the house wants said after it.

    It does if it equals one of the answers, or begins with one that ends there: followed by
    white space or by a bracket, a bar or a semicolon. So "38.2 bar | PDIS" and "38.2 bar (PDIS)"
    give "38.2 bar"; "38.2" does not give "38", "3 bars" not "3 bar", "10-20" and "10 – 20" not
    "10", and "P-4471" not "P".

    A value in the middle of a sentence is not looked for: the prompt asks for it first.

    Args:
        body: What was answered, without its citation.
        answers: Right answers, any one of which suffices.

    Returns:
        Whether the value is right.

    Raises:
        ValueError: ``answers`` is empty.
    """
    if exact_match(body, answers):
        return True
    folded = fold(body)
    found = tokens_with_ends(folded)
    return any(_begins_with(folded, found, answer_tokens(answer)) for answer in answers)


def house_match(body: str, reference: str) -> bool:
    """Tell whether an answer is the reference to the letter: right fact in the house's format.

    Args:
        body: What was answered, without its citation.
        reference: The wanted answer.

    Returns:
        Whether they are the same but for the amount of white space and for the way in which
        Unicode composes a letter with its accents.
    """
    wanted, given = (
        " ".join(unicodedata.normalize("NFC", text).split()) for text in (reference, body)
    )
    return wanted == given


def citation_right(
    cited: Iterable[Collection[str]], verified: Iterable[bool], gold_ids: Collection[str]
) -> bool:
    """Tell whether an answer's citations lead to where the answer stands.

    Args:
        cited: For each citation the names of the cited passage: its node id, ``source_id`` and
            document id; empty if there is no such passage.
        verified: For each citation whether what it covers stands in the passage.
        gold_ids: Names of the passages that hold the answer.

    Returns:
        Whether there is a citation, and each is verified and names a gold passage.
    """
    gold = set(gold_ids)
    checks = [
        stands and not gold.isdisjoint(names) for names, stands in zip(cited, verified, strict=True)
    ]
    return bool(checks) and all(checks)


def quantile(values: Sequence[float], q: float) -> float:
    """Give a quantile of some values, interpolating between neighbours.

    Source: definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", The
    American Statistician 50(4), 1996; NumPy's default.

    Args:
        values: At least one number, in any order.
        q: Which quantile, between 0 and 1; 0.5 is the median.

    Returns:
        The quantile, in the unit of the values.

    Raises:
        ValueError: There is no value, or ``q`` is out of range.
    """
    if not values:
        raise ValueError("A quantile needs at least one value; none was given.")
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q}; a quantile lies between 0 and 1.")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _require_answers(answers: Sequence[str]) -> None:
    if not answers:
        raise ValueError(
            "answers is empty: the documents hold no answer, so nothing can be compared with "
            "one. Score such a question by whether it was abstained from."
        )
    if isinstance(answers, str):
        raise ValueError(f"answers is the text {answers!r:.60}; give a list of texts.")


def _f1(predicted: Counter[str], wanted: Counter[str]) -> float:
    if not predicted or not wanted:
        return float(predicted == wanted)
    common = (predicted & wanted).total()
    return 2 * common / (predicted.total() + wanted.total())


def _begins_with(folded: str, found: list[tuple[str, int]], wanted: list[str]) -> bool:
    """Tell whether a folded text begins with the wanted tokens, and a value may end there."""
    if not wanted or [token for token, _ in found[: len(wanted)]] != wanted:
        return False
    rest = folded[found[len(wanted) - 1][1] :]
    if wanted[-1][-1].isdigit() and _CONTINUED_NUMBER.match(rest):
        return False
    return not _CONTINUED_WORD.match(rest)
