"""Intervals and p-values of differences: pure functions of counts and arrays.

Every interval is of 95 %, every p two-sided. Random numbers are drawn from a fixed seed: the same input gives the same
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np

ALPHA = 0.05
"""One minus the coverage of the intervals."""

BLOCK = 8
"""Length of the blocks of the bootstrap, in epochs."""

RESAMPLES = 10_000
"""Number of resamples of the bootstrap."""

_Z = NormalDist().inv_cdf(1 - ALPHA / 2)
_FEWEST_BLOCKS = 4
_ROUNDING = 1e-12
"""Differences of fractions that differ by less are equal: those of test sets do by one over their size or more."""


@dataclass(frozen=True)
class Estimate:
    """A difference, its interval, and the p of no difference.

    Attributes:
        value: The difference.
        low: Lower end of its interval; None: too few values for one.
        high: Upper end of its interval; None: too few values for one.
        p: Two-sided; None where the method gives none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def compare_proportions(first: float, second: float, samples: int) -> Estimate:
    """Compares two proportions of as many samples, as if each had samples of its own.

    Args:
        first: First proportion, 0 to 1.
        second: Second proportion.
        samples: Number of samples of each.

    Returns:
        first − second, with Newcombe's interval (1998, method 10) and the p of the score test with a common proportion.

    Example:
        >>> found = compare_proportions(0.6, 0.4, 100)
        >>> f"{found.value:.2f} [{found.low:.3f}, {found.high:.3f}], p = {found.p:.4f}"
        '0.20 [0.061, 0.328], p = 0.0047'
    """
    value, common = first - second, (first + second) / 2
    error = math.sqrt(2 * common * (1 - common) / samples)
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error else 1.0
    (low_1, high_1), (low_2, high_2) = (_wilson(proportion, samples) for proportion in (first, second))
    return Estimate(
        value,
        value - math.hypot(first - low_1, high_2 - second),
        value + math.hypot(high_1 - first, second - low_2),
        p,
    )


def _wilson(proportion: float, samples: int) -> tuple[float, float]:
    """Returns Wilson's score interval of a proportion."""
    square = _Z**2 / samples
    centre = proportion + square / 2
    half = _Z * math.sqrt(proportion * (1 - proportion) / samples + square / (4 * samples))
    return (centre - half) / (1 + square), (centre + half) / (1 + square)


def mcnemar(only_first: int, only_second: int, samples: int) -> Estimate:
    """Compares two classifiers on the same samples (McNemar's exact test).

    Args:
        only_first: Number of samples that only the first classifies correctly.
        only_second: Number of samples that only the second classifies correctly.
        samples: Number of all samples.

    Returns:
        The difference of the accuracies, with the exact interval given the number of samples that one of them alone
        classifies correctly, and the exact p: twice the binomial tail of the smaller count.

    Example:
        >>> mcnemar(1, 5, 100).p  # 2 · (1 + 6) / 2⁶
        0.21875
    """
    discordant = only_first + only_second
    if not discordant:
        most = 1 - (ALPHA / 2) ** (1 / samples)
        return Estimate(0.0, -most, most, 1.0)
    fewer = min(only_first, only_second)
    tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
    low, high = _clopper_pearson(only_first, discordant)
    share = discordant / samples
    return Estimate(
        (only_first - only_second) / samples,
        share * (2 * low - 1),
        share * (2 * high - 1),
        min(1.0, 2 * tail / 2**discordant),
    )


def paired_difference(only_first: int, only_second: int, samples: int) -> Estimate:
    """Returns the difference of two accuracies on the same samples, with an interval to compare with a margin.

    The interval of :func:`mcnemar` takes the number of samples that only one classifies correctly as given. That is
    exact for the question whether there is a difference, and too narrow for how great it is.

    Args:
        only_first: Number of samples that only the first classifies correctly.
        only_second: Number of samples that only the second classifies correctly.
        samples: Number of all samples.

    Returns:
        first − second, with the adjusted Wald interval of Agresti and Min (2005): half a sample is added to each of the
        four counts.

    Example:
        >>> found = paired_difference(22, 0, 110)
        >>> f"{found.value:.2f} [{found.low:.3f}, {found.high:.3f}]"
        '0.20 [0.121, 0.272]'
    """
    first, second, total = only_first + 0.5, only_second + 0.5, samples + 2
    centre = (first - second) / total
    half = _Z * math.sqrt(first + second - (first - second) ** 2 / total) / total
    return Estimate((only_first - only_second) / samples, max(-1.0, centre - half), min(1.0, centre + half))


def _clopper_pearson(count: int, of: int) -> tuple[float, float]:
    """Returns the exact interval of a proportion."""
    logs = [math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) for k in range(of + 1)]
    choose, k = np.array(logs), np.arange(of + 1)

    def tail(proportion: float, counts: slice) -> float:
        terms = choose + k * math.log(proportion) + (of - k) * math.log1p(-proportion)
        return float(np.exp(terms[counts]).sum())

    low = 0.0 if count == 0 else _solve(lambda p: tail(p, slice(count, None)) - ALPHA / 2, 0.0, 1.0)
    high = 1.0 if count == of else _solve(lambda p: ALPHA / 2 - tail(p, slice(count + 1)), 0.0, 1.0)
    return low, high


def paired_t(differences: Sequence[float]) -> Estimate:
    """Returns the mean of differences, with Student's interval and p.

    Args:
        differences: Two or more, one for each seed.

    Returns:
        Without interval and p if all differences are equal, as they may be on few test samples.

    Example:
        >>> found = paired_t([1.0, 2.0, 3.0])  # t = 2·√3 with 2 degrees of freedom
        >>> f"{found.value} [{found.low:.3f}, {found.high:.3f}], p = {found.p:.4f}"
        '2.0 [-0.484, 4.484], p = 0.0742'
    """
    value, freedom = fmean(differences), len(differences) - 1
    error = stdev(differences) / math.sqrt(len(differences))
    if error <= _ROUNDING:  # 0.3 − 0.2 and 0.2 − 0.1 are equal but for their last digit
        return Estimate(value)
    half = error * _solve(lambda t: ALPHA - _student_p(t, freedom), 0.0, 1e3)
    return Estimate(value, value - half, value + half, _student_p(abs(value) / error, freedom))


def _student_p(t: float, freedom: int) -> float:
    """Returns the two-sided p of Student's t.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4: finite sums for whole degrees of freedom.
    """
    theta = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= math.cos(theta) ** 2 * (power + 1) / (power + 2)
    inside = 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
    return max(0.0, 1 - inside)


def block_bootstrap(differences: Sequence[float]) -> Estimate:
    """Returns the mean of a series, with an interval that allows for correlation between neighbours.

    The circular block bootstrap: resamples are made of blocks of :data:`BLOCK` consecutive values, and the interval
    lies between the percentiles of their :data:`RESAMPLES` means.

    Args:
        differences: One for each epoch, in order.

    Returns:
        Without an interval if there are fewer than four blocks.
    """
    values = np.asarray(differences, dtype=np.float64)
    count, value = len(values), float(np.mean(values))
    if count < _FEWEST_BLOCKS * BLOCK:
        return Estimate(value)
    starts = np.random.default_rng(0).integers(count, size=(RESAMPLES, math.ceil(count / BLOCK), 1))
    chosen = ((starts + np.arange(BLOCK)) % count).reshape(RESAMPLES, -1)[:, :count]
    low, high = np.quantile(values[chosen].mean(axis=1), (ALPHA / 2, 1 - ALPHA / 2))
    return Estimate(value, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number by Holm's method, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    greatest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = greatest
    return adjusted


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Returns the zero of a rising function by bisection."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
