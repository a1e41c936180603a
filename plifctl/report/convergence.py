"""Whether the learnt time constants forget their start: τ of each layer of PLIF from two τ₀, by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile
from statistics import fmean

from plifctl.config.choices import CONVERGENCE_TABLE
from plifctl.report.pairs import MatchedRuns, PairRows
from plifctl.report.results import Results
from plifctl.report.table import Cell, Entry, Number, Table

_EPOCHS = tuple(4**power for power in range(11))
"""Epochs that are shown before the last."""

_LIMITS = (
    "In a cell: τ in time steps, of the run from the smaller τ₀ and of that from the greater, after an epoch; epoch 0 "
    "is τ₀ itself. Ratio: the greater of the two over the smaller, so 1 is agreement; its mean over layers is "
    "geometric. An epoch that was not logged shows the one before it that was. From one run each it is unknown how "
    "much τ differs between two runs from the same τ₀: a ratio near 1 shows that both starts lead to the same τ, but "
    "one above 1 does not show that the start caused it. With several seeds, τ is the geometric mean over them."
)


Tau = list[tuple[float, float]]
"""τ of each layer from the smaller and from the greater start."""


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
            means = ([_geometric_mean(layer) for layer in zip(*side, strict=True)] for side in logged)
            found[epoch] = list(zip(*means, strict=True))
    if found and "modified" not in runs.flags:  # the registry does not know the start of a modified run
        found[0] = [runs.pair.taus] * len(next(iter(found.values())))
    return found


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(fmean(map(math.log, values)))


def ratio(tau: tuple[float, float]) -> float:
    """Returns the greater of two τ over the smaller."""
    return max(tau) / min(tau)


def mean_ratio(tau: Tau) -> float:
    """Returns the geometric mean of the ratios of all layers."""
    return _geometric_mean(list(map(ratio, tau)))


def _rows(head: str, epochs: Sequence[int | None], found: dict[int, Tau]) -> Iterator[tuple[Cell, ...]]:
    """Yields a row of cells for each layer, then one with the mean ratio of each epoch."""
    last = found[max(found)]
    for layer in range(len(last)):
        texts = ("" if epoch is None else "{:.2f} / {:.2f}".format(*found[epoch][layer]) for epoch in epochs)
        yield tuple(map(Cell, (head if layer == 0 else "", f"sn{layer}", *texts, f"{ratio(last[layer]):.2f}")))
    means = ["" if epoch is None else f"{mean_ratio(found[epoch]):.2f}" for epoch in epochs]
    yield tuple(map(Cell, ("", "mean ratio", *means, means[-1])))


def _entries(runs: MatchedRuns, epoch: int, tau: Tau) -> Iterator[Entry]:
    """Yields τ of each layer after an epoch and the ratios, for the long form."""
    for layer, values in enumerate(tau):
        row = f"{runs.pair.dataset}: sn{layer}{f', recipe {runs.recipe}' if runs.recipe else ''}"
        for head, value in zip((*runs.pair.heads, "ratio"), (*values, ratio(values)), strict=True):
            yield Entry(row, f"epoch {epoch}: {head}", "", (Number(f"{value:.3f}", value),))
    mean = mean_ratio(tau)
    yield Entry(runs.name, f"epoch {epoch}: mean ratio", "", (Number(f"{mean:.3f}", mean),))
