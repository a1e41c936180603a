"""How many epochs PLIF and LIF need to reach the same test accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from plifctl.config.choices import SPEED_TABLE
from plifctl.report.pairs import MatchedRuns, PairRows
from plifctl.report.results import Results
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs import ResultRecord

LEVEL = 0.98
"""Part of the lower of the two maxima that is to be reached."""

_ROUNDING = 1e-7
"""Of accuracies in the authors' logs, which are float32, and of levels; less than a test sample is worth."""

_COLUMNS = ("Data set", "τ", "PLIF, max (%)", "LIF, max (%)", "Level (%)", "PLIF, epochs", "LIF, epochs")

_LIMITS = (
    f"The level is {LEVEL:.0%} of the lower of the two maxima over test epochs, so that both reach it; the epochs are "
    "the first test at or above it. Epochs that were not logged are passed over. A level far below the better maximum, "
    "where LIF fails, is reached early by the other. Of one run each: no uncertainty is known; single tests fluctuate, "
    "another seed gives other epochs, and the test set chose the level. With several seeds: means over equal seeds."
).replace("%", " %")


def build_speed_table(results: Results) -> Table:
    """Returns the epochs that PLIF and LIF need to the same accuracy, for every data set and τ."""
    rows = PairRows(results, ("neuron",))
    cells: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for runs in rows.matched():
        sides, side_entries = rows.sides(runs)
        numbers = _numbers(runs)
        tau = f"{runs.pair.taus[0]:g}{f', {runs.settings}' if runs.settings else ''}"
        found = [Cell(numbers[name].text if name in numbers else "") for name in _NUMBERS]
        cells.append((Cell(runs.pair.dataset), Cell(tau), *sides, *found))
        entries += [*side_entries, *(Entry(runs.name, column, "", (number,)) for column, number in numbers.items())]
    caption = f"Epochs to {LEVEL:.0%} of the lower of the two maxima of PLIF and LIF".replace("%", " %")
    return Table(SPEED_TABLE, caption, _LIMITS, _COLUMNS, tuple(cells), tuple(entries), warnings=tuple(rows.warnings))


_NUMBERS = ("level", "PLIF, epochs", "LIF, epochs")


@dataclass(frozen=True)
class Reached:
    """The two runs of a seed: the level, a fraction, and the epoch in which each first reached it."""

    level: float
    first: int
    second: int


def reach_level(runs: MatchedRuns) -> list[Reached]:
    """Returns for each seed when both runs reach the level; empty if that is not known for all of them."""
    found: list[Reached] = []
    for one, other in runs.by_seed if runs.comparable else ():
        level = LEVEL * min(one.accuracy, other.accuracy)
        first, second = first_epoch(one, level), first_epoch(other, level)
        if first is None or second is None:
            return []
        found.append(Reached(level, first, second))
    return found


def _numbers(runs: MatchedRuns) -> dict[str, Number]:
    """Returns the level and the epochs of both sides, means over seeds; empty if that is not known."""
    reached = reach_level(runs)
    if not reached:
        return {}
    epochs = [fmean(seed.first for seed in reached), fmean(seed.second for seed in reached)]
    values = [100 * fmean(seed.level for seed in reached), *epochs]
    texts = [f"{values[0]:.2f}", *map(epochs_text, epochs)]
    return {name: Number(text, value) for name, text, value in zip(_NUMBERS, texts, values, strict=True)}


def epochs_text(mean: float) -> str:
    """Returns a number of epochs, the mean over seeds: ``13``, ``6.7``."""
    return f"{mean:g}" if float(mean).is_integer() else f"{mean:.1f}"


def first_epoch(record: ResultRecord, level: float) -> int | None:
    """Returns the first epoch, from 1, with a test accuracy of a level or more, but for rounding; None: there is none.

    Args:
        record: Record of a run.
        level: Test accuracy, a fraction.
    """
    return next((epoch for epoch, value in record.tests.items() if value >= level - _ROUNDING), None)
