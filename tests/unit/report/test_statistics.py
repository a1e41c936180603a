"""Intervals and p-values: published examples, closed forms, and exact small cases counted by hand."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from plifctl.report.statistics import block_bootstrap, compare_proportions, holm, mcnemar, paired_difference, paired_t


def test_compare_proportions_interval_is_made_of_wilson_limits() -> None:
    found = compare_proportions(0.5, 0.0, 10)
    square = 1.959964**2
    wilson_half = math.sqrt(0.25 / 10 + square / 400) * 1.959964 / (1 + square / 10)
    zero_high = square / 10 / (1 + square / 10)  # Wilson's upper limit of 0 of 10
    assert found.low == pytest.approx(0.5 - math.hypot(wilson_half, zero_high), abs=1e-6)
    assert found.high == pytest.approx(0.5 + wilson_half, abs=1e-6)


def test_compare_proportions_p_is_that_of_the_chi_squared_table() -> None:
    found = compare_proportions(0.6, 0.4, 100)  # χ² = 8 of the 2 × 2 table 60 40 / 40 60
    assert found.p == pytest.approx(math.erfc(math.sqrt(8 / 2)))
    assert compare_proportions(0.4, 0.6, 100).p == pytest.approx(found.p)
    assert compare_proportions(1.0, 1.0, 100).p == 1.0


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (1, 5), (3, 3), (6, 2), (9, 0)])
def test_mcnemar_p_counts_the_outcomes_that_are_as_unequal(counts: tuple[int, int]) -> None:
    discordant, distance = sum(counts), abs(counts[0] - counts[1])
    outcomes = list(itertools.product((0, 1), repeat=discordant))
    unequal = sum(abs(2 * sum(outcome) - discordant) >= distance for outcome in outcomes)
    found = mcnemar(*counts, 50)
    assert found.p == Fraction(unequal, len(outcomes))
    assert found.value == pytest.approx((counts[0] - counts[1]) / 50)


def test_mcnemar_interval_excludes_zero_where_p_is_small() -> None:
    for first, second in itertools.product(range(12), repeat=2):
        found = mcnemar(first, second, 100)
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        assert found.low <= found.value <= found.high
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_mcnemar_interval_with_one_kind_of_sample_is_the_closed_form() -> None:
    found = mcnemar(8, 0, 100)  # π > 0.025^(1/8)
    assert found.low == pytest.approx(0.08 * (2 * 0.025 ** (1 / 8) - 1))
    assert found.high == pytest.approx(0.08)
    assert mcnemar(0, 0, 100).high == pytest.approx(1 - 0.025**0.01)


@pytest.mark.parametrize(("first", "second", "samples"), [(0.2, 0.0, 110), (0.05, 0.02, 288), (0.0105, 0.0, 10_000)])
def test_paired_difference_covers_the_difference_in_95_of_100_samples(
    first: float, second: float, samples: int
) -> None:
    counts = np.random.default_rng(0).multinomial(samples, [first, second, 1 - first - second], size=2000).tolist()
    found = [paired_difference(one, other, samples) for one, other, _ in counts]
    intervals = [(one.low, one.high) for one in found if one.low is not None and one.high is not None]
    assert 0.92 < np.mean([low <= first - second <= high for low, high in intervals]) < 0.97


def test_paired_difference_is_antisymmetric_and_stays_between_its_bounds() -> None:
    one, other = paired_difference(7, 3, 50), paired_difference(3, 7, 50)
    assert (other.value, other.low) == pytest.approx((-one.value, -(one.high or 0)))
    assert paired_difference(120, 0, 120).high == 1.0
    assert paired_difference(0, 0, 110).high == pytest.approx(1.959964 / 112)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (10, 2.22814)]
)
def test_paired_t_interval_has_the_quantiles_of_tables(freedom: int, quantile: float) -> None:
    differences = [0.0, 1.0] * freedom
    differences = differences[: freedom + 1]
    mean = sum(differences) / len(differences)
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / freedom / len(differences))
    found = paired_t(differences)
    assert found.high == pytest.approx(mean + quantile * error, rel=1e-5)
    # shifted to the end of the interval, p is 0.05
    assert found.high is not None
    assert paired_t([d - found.high for d in differences]).p == pytest.approx(0.05)


@pytest.mark.parametrize("differences", [[0.5, 0.5, 0.5], [0.3 - 0.2, 0.2 - 0.1, 0.9 - 0.8]], ids=["exact", "rounded"])
def test_paired_t_with_equal_differences_gives_no_p(differences: list[float]) -> None:
    found = paired_t(differences)
    assert found.value == pytest.approx(differences[0])
    assert (found.low, found.p) == (None, None)


def test_block_bootstrap_is_wider_for_correlated_epochs_and_reproducible() -> None:
    rng = np.random.default_rng(1)
    independent = rng.normal(size=64)
    correlated = np.repeat(independent[:8], 8)  # eight values, eight times each
    widths = []
    for values in (independent, correlated):
        found = block_bootstrap(values.tolist())
        assert found == block_bootstrap(values.tolist())
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        widths.append((found.high - found.low) / values.std())
    # errors of the mean of 64 independent values, and of 8
    assert widths[0] == pytest.approx(2 * 1.96 / 8, rel=0.25)
    assert 2 * 1.96 / 8 * 1.6 < widths[1] < 2 * 1.96 / math.sqrt(8) * 1.1


def test_block_bootstrap_of_few_epochs_gives_no_interval() -> None:
    found = block_bootstrap([1.0, 2.0, 3.0])
    assert (found.value, found.low, found.high) == (2.0, None, None)


def test_holm_steps_down_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
