"""Whether the learnt time constants forget their start: τ of each layer of PLIF from two τ₀, by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from statistics import fmean
from typing import NamedTuple

from plifctl.config.choices import CONVERGENCE_TABLE
from plifctl.config.overrides import override_key
from plifctl.report.pairs import MatchedRuns, PairRows
from plifctl.report.results import Results
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs.changes import CHANGED_SINCE

_EPOCHS = tuple(4**power for power in range(11))
"""Epochs that are shown before the last."""

_LIMITS = (
    "In a cell: τ in time steps, of the run from the smaller τ₀ and of that from the greater, after an epoch; epoch 0 "
    "is τ₀ itself. Ratio: the greater of the two over the smaller, so 1 is agreement; its mean over layers is "
    "geometric. An epoch that was not logged shows the one before it that was. From one run each it is unknown how "
    "much τ differs between two runs from the same τ₀: a ratio near 1 shows that both starts lead to the same τ, but "
    "one above 1 does not show that the start caused it. With several seeds, τ and the ratio are geometric means over "
    "them."
)


class LayerTau(NamedTuple):
    """τ of a layer in time steps; of several seeds the geometric means.

    Attributes:
        first: From the smaller start.
        second: From the greater start.
        ratio: The greater of the two over the smaller, of the runs of one seed: means may agree where no two runs do.
    """

    first: float
    second: float
    ratio: float


Tau = list[LayerTau]
"""τ of each layer."""


def build_convergence_table(results: Results) -> Table:
    """Returns τ of each layer from two starts and their ratio, for every data set whose runs logged τ."""
    rows = PairRows(results, ("start",))
    matched = list(rows.matched())
    logged = [(runs, found) for runs in matched if runs.comparable and (found := tau_by_epoch(runs))]
    longest = max((max(found) for _, found in logged), default=0)
    columns = [0, *takewhile(lambda epoch: epoch < longest, _EPOCHS)]
    cells: list[tuple[Cell, ...]] = []
    entries = [entry for runs in matched if not runs.comparable for entry in rows.empty_entries(runs)]
    for runs, found in logged:
        sides, side_entries = rows.sides(runs)
        last = max(found)
        epochs = [max((known for known in found if known <= epoch < last), default=None) for epoch in columns]
        marks = ", ".join(number.mark for cell in sides for number in cell.numbers)
        cells += _rows(f"{runs.name}, {last} epochs ({marks})", [*epochs, last], found)
        shown = sorted({epoch for epoch in (*epochs, last) if epoch is not None})
        entries += [*side_entries, *(entry for epoch in shown for entry in _entries(runs, epoch, found[epoch]))]
    return Table(
        CONVERGENCE_TABLE,
        "Time constants τ of PLIF from two starts, by epoch",
        _LIMITS,
        ("Data set", "Layer", *map(str, columns), "last", "ratio, last"),
        tuple(cells),
        tuple(entries),
        warnings=tuple(rows.warnings),
    )


def tau_by_epoch(runs: MatchedRuns) -> dict[int, Tau]:
    """Returns τ by epoch, of those that all runs have logged, with the start as epoch 0; empty if there are none."""
    found: dict[int, Tau] = {}
    groups = (runs.first, runs.second)
    for epoch in range(1, runs.epochs + 1):
        logged = [[tau for record in group.records for tau in record.tau[epoch - 1 : epoch] if tau] for group in groups]
        layers = {len(tau) for side in logged for tau in side}
        if len(layers) == 1 and [len(side) for side in logged] == [len(group.records) for group in groups]:
            firsts, seconds = (zip(*side, strict=True) for side in logged)  # by layer
            found[epoch] = list(map(_over_seeds, firsts, seconds))
    if found and not any(map(_may_change_start, runs.changes)):
        first, second = runs.pair.taus
        found[0] = [_over_seeds([first], [second])] * len(next(iter(found.values())))
    return found


def _may_change_start(change: str) -> bool:
    """Returns whether a change of an experiment may give another τ before training; if it is unknown, it may."""
    return change == CHANGED_SINCE or override_key(change).startswith(("neuron.", "train.weights"))


def _over_seeds(firsts: Sequence[float], seconds: Sequence[float]) -> LayerTau:
    """Returns the means over the seeds of the τ of a layer, from the smaller and from the greater start."""
    ratios = [max(both) / min(both) for both in zip(firsts, seconds, strict=True)]
    return LayerTau(*map(_geometric_mean, (firsts, seconds, ratios)))


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(fmean(map(math.log, values)))


def mean_ratio(tau: Tau) -> float:
    """Returns the geometric mean of the ratios of all layers."""
    return _geometric_mean([layer.ratio for layer in tau])


def _rows(head: str, epochs: Sequence[int | None], found: dict[int, Tau]) -> Iterator[tuple[Cell, ...]]:
    """Yields a row of cells for each layer, then one with the mean ratio of each epoch."""
    last = found[max(found)]
    for layer in range(len(last)):
        texts = ("" if epoch is None else "{:.2f} / {:.2f}".format(*found[epoch][layer][:2]) for epoch in epochs)
        yield tuple(map(Cell, (head if layer == 0 else "", f"sn{layer}", *texts, f"{last[layer].ratio:.2f}")))
    means = ["" if epoch is None else f"{mean_ratio(found[epoch]):.2f}" for epoch in epochs]
    yield tuple(map(Cell, ("", "mean ratio", *means, means[-1])))


def _entries(runs: MatchedRuns, epoch: int, tau: Tau) -> Iterator[Entry]:
    """Yields τ of each layer after an epoch and the ratios, for the long form."""
    for layer, values in enumerate(tau):
        row = f"{runs.pair.dataset}: sn{layer}{f', {runs.settings}' if runs.settings else ''}"
        for head, value in zip((*runs.pair.heads, "ratio"), values, strict=True):
            yield Entry(row, f"epoch {epoch}: {head}", "", (Number(f"{value:.3f}", value),))
    mean = mean_ratio(tau)
    yield Entry(runs.name, f"epoch {epoch}: mean ratio", "", (Number(f"{mean:.3f}", mean),))
