"""How sure a measured share or difference is: pure functions on NumPy alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = [
    "Interval",
    "holm",
    "mcnemar_exact",
    "newcombe_interval",
    "paired_bootstrap",
    "required_questions",
    "sign_flip_exact",
    "subtract_intervals",
    "wilson_interval",
]

_BLOCK = 2_000_000
"""Most numbers drawn at once by the bootstrap, which bounds its memory to 16 MB."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a share.

    Unlike the textbook interval it stays between 0 and 1 and keeps its width at 0 % and 100 %.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22, 1927.

    Args:
        successes: How many trials succeeded.
        trials: How many there were, at least 1.
        confidence: Probability that the interval is to cover, between 0 and 1.

    Returns:
        The interval of the share.

    Raises:
        ValueError: The counts or the confidence are impossible.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"{successes} successes in {trials} trials is impossible: trials must be at least 1 "
            "and successes between 0 and trials."
        )
    z = _two_sided_z(confidence)
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Interval(low, high)


def newcombe_interval(
    *, both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> Interval:
    """Score interval of the difference of two shares measured on the same trials.

    It keeps a width where no trial, or every trial, separates the two.

    Source: method 10 of Newcombe, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", Statistics in Medicine 17, 1998.

    Args:
        both: Trials in which both succeeded.
        only_first: Trials in which only the first did.
        only_second: Trials in which only the second did.
        neither: Trials in which neither did.
        confidence: Probability that the interval is to cover, between 0 and 1.

    Returns:
        The interval of the first share less the second.

    Raises:
        ValueError: A count is negative, or all are zero.
    """
    counts = (both, only_first, only_second, neither)
    trials = sum(counts)
    if min(counts) < 0 or not trials:
        raise ValueError(f"The counts {counts} must not be negative, nor all zero.")
    first, second = (both + only_first) / trials, (both + only_second) / trials
    one = wilson_interval(both + only_first, trials, confidence=confidence)
    two = wilson_interval(both + only_second, trials, confidence=confidence)
    below_one, above_one = first - one.low, one.high - first
    below_two, above_two = second - two.low, two.high - second
    phi = _phi(both, only_first, only_second, neither)
    low = math.sqrt(max(0.0, below_one**2 - 2 * phi * below_one * above_two + above_two**2))
    high = math.sqrt(max(0.0, above_one**2 - 2 * phi * above_one * below_two + below_two**2))
    return Interval(first - second - low, first - second + high)


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean paired difference, drawing whole clusters.

    Questions about one document are right or wrong together; drawing documents instead of
    questions keeps the interval from being too narrow. It needs many clusters to be trusted
    (about 20), and has no width where every cluster shows the same difference.

    Source: Miller, "Adding Error Bars to Evals", 2024 (arXiv:2411.00640), on clustered and
    paired comparisons; Efron's percentile bootstrap.

    Args:
        first: One score for each question under the first arm.
        second: One score for each question under the second, in the same order.
        clusters: The cluster of each question.
        resamples: How many samples of clusters are drawn.
        confidence: Probability that the interval is to cover, between 0 and 1.
        seed: Seed of the draws; the same seed gives the same interval.

    Returns:
        The interval of the mean of first less second.

    Raises:
        ValueError: There is no question, or the lengths differ.
    """
    if not len(first) == len(second) == len(clusters) or not len(first):
        raise ValueError(
            f"Got {len(first)} first scores, {len(second)} second scores and {len(clusters)} "
            "clusters; there must be as many of each, and at least one."
        )
    tail = (1 - _checked(confidence)) / 2
    numbers = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    member = np.array([numbers[cluster] for cluster in clusters])
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    sums = np.bincount(member, weights=differences)
    sizes = np.bincount(member).astype(float)
    count = len(sums)
    # clusters of the same sum and size cannot be told apart, so they are drawn together
    kinds, alike = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    sums, sizes = kinds.T

    generator = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    left = resamples
    while left > 0:
        rows = min(left, max(1, _BLOCK // len(kinds)))
        drawn = generator.multinomial(count, alike / count, size=rows)
        means.append((drawn @ sums) / (drawn @ sizes))
        left -= rows
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p-value that two arms are right equally often, from the pairs that differ.

    Source: McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 1947, with the exact binomial tail.

    Args:
        only_first: Questions that only the first arm got right.
        only_second: Questions that only the second got right.

    Returns:
        The p-value; 1 if there is no such question.

    Raises:
        ValueError: A count is negative.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"The counts {only_first} and {only_second} must not be negative.")
    pairs = only_first + only_second
    tail = sum(math.comb(pairs, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << pairs))


def sign_flip_exact(differences: Sequence[int]) -> float:
    """Two-sided p-value that paired differences are as often up as down.

    Every way of turning the signs of the differences round is as probable as every other; the
    p-value is the share of them whose sum lies as far from zero as the one that was observed.
    For differences of one this is McNemar's exact test.

    Source: Fisher, "The Design of Experiments", 1935, section 21.

    Args:
        differences: One whole number for each question; zeros do not count.

    Returns:
        The p-value; 1 if all are zero.
    """
    distribution = np.ones(1)
    for size, count in Counter(abs(difference) for difference in differences).items():
        if size:
            steps = np.zeros(2 * size * count + 1)
            steps[:: 2 * size] = [math.comb(count, ups) / (1 << count) for ups in range(count + 1)]
            distribution = np.convolve(distribution, steps)
    reach = len(distribution) // 2
    sums = np.arange(-reach, reach + 1)
    return min(1.0, float(distribution[abs(sums) >= abs(sum(differences))].sum()))


def subtract_intervals(
    first: float, first_interval: Interval, second: float, second_interval: Interval
) -> Interval:
    """Interval of a difference of two estimates, taken for independent, from theirs.

    Source: Zou and Donner, "Construction of confidence limits about effect measures", Statistics
    in Medicine 27, 2008.

    Args:
        first: The first estimate.
        first_interval: Its interval.
        second: The second estimate.
        second_interval: Its interval.

    Returns:
        The interval of first less second, of the same confidence.
    """
    low = math.hypot(first - first_interval.low, second_interval.high - second)
    high = math.hypot(first_interval.high - first, second - second_interval.low)
    return Interval(first - second - low, first - second + high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests so that one false alarm in all is as rare as in one test.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
    of Statistics 6, 1979.

    Args:
        p_values: One p-value for each test.

    Returns:
        The adjusted p-values in the same order.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def required_questions(
    difference: float, discordance: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Number of questions that show a paired difference.

    Source: Connor, "Sample Size for Testing Differences in Proportions for the Paired-Sample
    Design", Biometrics 43, 1987.

    Args:
        difference: The difference of the two shares that is to be seen, such as 0.05; its sign
            does not matter.
        discordance: Share of questions that only one of the two gets right. Less than the
            difference is impossible and is read as the difference.
        power: Probability of seeing it.
        alpha: Probability of a false alarm, two-sided.

    Returns:
        The number, rounded up.

    Raises:
        ValueError: ``difference`` is zero, or a share is out of range.
    """
    size = abs(difference)
    if not 0 < size <= 1 or not 0 <= discordance <= 1:
        raise ValueError(
            f"A difference of {difference} at a discordance of {discordance} cannot be planned "
            "for: the difference must lie between 0 and 1 and not be 0, the discordance between "
            "0 and 1."
        )
    share = max(discordance, size)
    alarm, miss = _two_sided_z(1 - alpha), NormalDist().inv_cdf(_checked(power))
    root = alarm * math.sqrt(share) + miss * math.sqrt(max(0.0, share - size * size))
    return math.ceil(root * root / (size * size))


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of two paired outcomes, with Newcombe's correction for continuity."""
    margins = math.prod(
        (both + only_first, only_second + neither, both + only_second, only_first + neither)
    )
    if not margins:
        return 0.0
    association = float(both * neither - only_first * only_second)
    if association > 0:
        trials = both + only_first + only_second + neither
        association = max(0.0, association - trials / 2)
    return association / math.sqrt(margins)


def _two_sided_z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)


def _checked(probability: float) -> float:
    if not 0 < probability < 1:
        raise ValueError(f"{probability} is no probability between 0 and 1.")
    return probability
