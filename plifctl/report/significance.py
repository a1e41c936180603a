"""Whether PLIF and LIF, and max and average pooling, differ: differences with intervals and p-values.

The test depends on what the runs allow: over seeds with several, by sample with stored predictions, else of two
proportions. Each row names its test, and the text below the table says what a p is no evidence for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from plifctl.config.choices import SIGNIFICANCE_TABLE
from plifctl.errors import RunError
from plifctl.report.pairs import MatchedRuns, PairRows
from plifctl.report.results import Results
from plifctl.report.statistics import (
    ALPHA,
    BLOCK,
    RESAMPLES,
    Estimate,
    block_bootstrap,
    compare_proportions,
    holm,
    mcnemar,
    paired_difference,
    paired_t,
)
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs import ResultRecord
from plifctl.runs.folders import is_run
from plifctl.runs.predictions import reported_predictions
from plifctl.runs.records import LATE_EPOCHS, late_values

_COLUMNS = (
    *("Data set", "First − second", "First, max (%)", "Second, max (%)", "Δ of maxima [95 %]"),
    *("p", "p, Holm", "Test", f"Δ of means of the last {LATE_EPOCHS} [95 %]"),
)

_LIMITS = (
    "Protocol A: each maximum is the best of all tests of a run (a thousand, in a whole one), so the test set chose "
    "the epoch; p does not correct for it. z and McNemar compare one run with one run: their p is uncertainty of the "
    "test samples only. They do not say whether another seed gives the same order; how much seeds differ is unknown "
    "from one run. z is the score test of two proportions of n samples, with Newcombe's interval; it treats the runs "
    "as tested on different samples, though they were the same, because their predictions are not stored. McNemar, "
    "a : b, is exact: a samples that only the first classifies correctly, b only the second. paired t compares the "
    "runs of equal seeds: it is uncertainty of the training, on the given test set. Holm: adjusted for all {count} p "
    f"of this table. The means are of the last {LATE_EPOCHS} epochs that count, if there are more; of one run each, "
    f"their interval is a circular block bootstrap (blocks of {BLOCK} epochs, {RESAMPLES:,} resamples, random seed 0): "
    "fluctuation between epochs only, neither test samples nor seeds. With several seeds it is Student's over seeds."
)


def build_significance_table(results: Results, runs_dir: Path | None = None) -> Table:
    """Returns the differences between PLIF and LIF at each τ, and between max and average pooling.

    Args:
        results: Finds the runs.
        runs_dir: Runs directory, whose runs may have stored predictions; None: there are none.
    """
    rows = PairRows(results, ("neuron", "pooling"))
    compared = compare_with_holm(rows, runs_dir)
    cells: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for runs, found, adjusted in compared:
        sides, side_entries = rows.sides(runs)
        numbers = _numbers(found, adjusted)
        cells.append((Cell(runs.pair.dataset), Cell(runs.label), *sides, *_cells(numbers)))
        entries += [*side_entries, *(Entry(runs.name, column, "", (number,)) for column, number in numbers.items())]
    return Table(
        SIGNIFICANCE_TABLE,
        "Differences between PLIF and LIF, and between max and average pooling, in points of test accuracy",
        _LIMITS.format(count=sum(adjusted is not None for _, _, adjusted in compared)),
        _COLUMNS,
        tuple(cells),
        tuple(entries),
        warnings=tuple(rows.warnings),
    )


@dataclass(frozen=True)
class Comparison:
    """Differences between the runs of a pair, in fractions.

    Attributes:
        maxima: Difference of the maxima over test epochs, with the interval that agrees with its p.
        extent: The same difference, with an interval to compare with a margin; another one in McNemar's test only.
        test: What gave its p, as printed.
        means: Difference of the means of the last epochs; None if they were not tested.
    """

    maxima: Estimate
    extent: Estimate
    test: str
    means: Estimate | None


def compare_with_holm(
    rows: PairRows, runs_dir: Path | None
) -> list[tuple[MatchedRuns, Comparison | None, float | None]]:
    """Returns the runs of each pair, their differences if they can be compared, and p after Holm if there is one.

    Args:
        rows: The pairs; Holm's adjustment is for all of them. Their warnings get what could not be read.
        runs_dir: Runs directory, whose runs may have stored predictions; None: there are none.
    """
    compared = [(runs, compare_runs(runs, runs_dir, rows.warnings)) for runs in rows.matched()]
    known = [found.maxima.p for _, found in compared if found is not None and found.maxima.p is not None]
    adjusted = iter(holm(known))
    return [
        (runs, found, None if found is None or found.maxima.p is None else next(adjusted)) for runs, found in compared
    ]


def compare_runs(runs: MatchedRuns, runs_dir: Path | None, warnings: list[str]) -> Comparison | None:
    """Returns the differences; None if the runs cannot be compared."""
    if not runs.comparable:
        return None
    late = [_late_differences(one, other) for one, other in runs.by_seed]
    if len(late) > 1:
        maxima = paired_t([one.accuracy - other.accuracy for one, other in runs.by_seed])
        means = paired_t([fmean(values) for values in late]) if all(late) else None
        return Comparison(maxima, maxima, f"paired t, {len(late)} seeds", means)
    return _compare_single(runs, block_bootstrap(late[0]) if late[0] else None, runs_dir, warnings)


def _late_differences(one: ResultRecord, other: ResultRecord) -> list[float]:
    """Returns the differences in the last epochs, of those epochs in which both were tested."""
    others = other.tests
    return late_values({epoch: value - others[epoch] for epoch, value in one.tests.items() if epoch in others})


def _compare_single(
    runs: MatchedRuns, means: Estimate | None, runs_dir: Path | None, warnings: list[str]
) -> Comparison:
    """Returns the differences of one run each, by the test that their data allow."""
    ((one, other),) = runs.by_seed
    counts = _count_discordant(one, other, runs_dir, warnings)
    samples = runs.pair.test_samples if one.data is None else one.data.test
    if samples is None:
        maxima = Estimate(one.accuracy - other.accuracy)
        return Comparison(maxima, maxima, "number of test samples unknown", means)
    if counts is None:
        maxima = compare_proportions(one.accuracy, other.accuracy, samples)
        return Comparison(maxima, maxima, f"z, n = {samples:,}", means)
    extent = paired_difference(*counts, samples)
    return Comparison(mcnemar(*counts, samples), extent, f"McNemar, {counts[0]} : {counts[1]}", means)


def _count_discordant(
    one: ResultRecord, other: ResultRecord, runs_dir: Path | None, warnings: list[str]
) -> tuple[int, int] | None:
    """Returns how many samples only one of two runs classifies correctly; None if that is not stored."""
    runs = [] if runs_dir is None else [(runs_dir / record.run, record) for record in (one, other)]
    if not runs or not all(is_run(folder) for folder, _ in runs):
        return None
    try:
        first, second = (reported_predictions(folder, record) for folder, record in runs)
    except RunError as error:
        warnings.append(f"no McNemar test: {error}")
        return None
    return None if first is None or second is None else first.count_discordant(second)


def _numbers(found: Comparison | None, adjusted: float | None) -> dict[str, Number]:
    """Returns the numbers of a row by their column in the long form; differences in points."""
    if found is None:
        return {}
    numbers: dict[str, Number] = {}
    for name, estimate in (("maxima", found.maxima), ("means", found.means)):
        if estimate is not None:
            ends = {"": estimate.value, ", 95 % from": estimate.low, ", 95 % to": estimate.high}
            numbers |= {
                f"difference of {name}{end}": Number(format_points(value), 100 * value)
                for end, value in ends.items()
                if value is not None
            }
    if found.maxima.p is not None and adjusted is not None:
        numbers |= {
            name: Number(format_p(p), p, decimals=12) for name, p in (("p", found.maxima.p), ("p, Holm", adjusted))
        }
    return {**numbers, "test": Number(found.test, None)}


def _cells(numbers: dict[str, Number]) -> list[Cell]:
    """Returns the cells of a row after those of the two sides."""

    def text(name: str) -> str:
        return numbers[name].text if name in numbers else ""

    def difference(name: str) -> str:
        ends = [text(f"{name}, 95 % {end}") for end in ("from", "to")]
        return text(name) + (f" [{', '.join(ends)}]" if all(ends) else "")

    return [
        Cell(difference("difference of maxima")),
        *(Cell(text(name)) for name in ("p", "p, Holm", "test")),
        Cell(difference("difference of means")),
    ]


def format_points(fraction: float) -> str:
    """Returns a difference of accuracies, a fraction, in points: ``+0.47``."""
    return f"{100 * fraction:+.2f}".replace("-", "−")


def format_p(p: float) -> str:
    """Returns p with two digits, ``0.18``, or ``< 0.0001``; beside 0.05 with as many as show the side of it."""
    if p < 1e-4:
        return "< 0.0001"
    if f"{p:.3f}" == f"{ALPHA:.3f}":
        return next(text for digits in range(4, 18) if float(text := f"{p:.{digits}f}") != ALPHA or p == ALPHA)
    if p < 0.01:
        return f"{p:.4f}"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
